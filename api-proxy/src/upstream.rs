//! The way to the cloud providers: which channel is asked, over which connection, and what is tried when one fails.
//!
//! A request goes to the best channel that has the model and the endpoint: of the smallest priority, in turns by weight, those that
//! are well before those that said that they have too many requests; one that fails again and again is left alone for a while. It
//! goes on to the next when the first cannot be reached, refuses the operator's secret, or answers that it has too many requests or
//! failed itself; never once a byte of an answer is there, and never when one that has the request says nothing for too long: what
//! it thought meanwhile is paid for. Nothing of a body is changed, kept or unpacked in either direction, and no redirect is
//! followed: the secret goes where the operator sent it.
//!
//! The steps: [`breaker`] and [`choice`] decide, [`request`] and [`headers`] write, [`dial`] and [`pool`] connect,
//! [`mod@exchange`] sends.

mod breaker;
mod choice;
mod dial;
mod exchange;
mod headers;
mod pool;
mod request;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use memchr::memmem;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use wire::Content;

use breaker::{Condition, News, Standing, Why};
use choice::Turns;
use dial::Destination;
use exchange::{Begun, NotBegun, exchange};
pub(crate) use exchange::{BrokenOff, UpstreamBody};
use headers::pass_response;
use pool::Pool;
use request::Address;

use crate::{
    Model, head,
    provider::{Channel, Name, ProviderKind},
    surface::Endpoint,
};

/// Channels that one request is sent to at most.
const MOST_CHANNELS: usize = 3;
/// How long a channel rests that has too many requests and does not say for how long.
const USUAL_REST: Duration = Duration::from_secs(5);
/// How long one rests whose account may not spend more: it will not end soon, and asking again is what its provider asks not to do.
const SPENT_REST: Duration = Duration::from_secs(60);

/// All channels of a Lab, with their connections.
pub struct Upstream {
    stations: Vec<Station>,
    board: Mutex<Board>,
    tuning: Tuning,
}

/// A channel, and the way to it.
struct Station {
    channel: Channel,
    /// `None` when its host or secret cannot be sent at all.
    way: Option<(Address, Arc<Pool>)>,
}

/// What is known of the channels, by their index.
struct Board {
    conditions: Vec<Condition>,
    turns: Turns,
}

/// Times and bounds. Constants of the program; here so that a test can have shorter ones.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// From the first packet to an open, encrypted connection.
    pub connect: Duration,
    /// From a channel's turn to the head of its answer and the first byte, a new connection included.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// An unused connection is closed after this long.
    pub keep: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            // A packet that got lost is sent again after 1, 3 and 7 s.
            connect: Duration::from_secs(10),
            // What the providers' own SDKs wait: a whole answer that is not streamed comes in one piece when all of it was thought.
            first_byte: Duration::from_secs(600),
            // Providers send a ping every 10 to 30 s where a model thinks for longer, but not all of them do.
            idle: Duration::from_secs(300),
            // Load balancers close after 60 s and more: whoever closes first meets no race.
            keep: Duration::from_secs(50),
        }
    }
}

/// One request to whoever serves the model.
pub(crate) struct Call<'a> {
    pub(crate) model: &'a Model,
    pub(crate) endpoint: Endpoint,
    /// The name by which the caller asked for the model, in the body or in the path: one of the catalogue's.
    pub(crate) name: &'a str,
    /// The caller's own query, for the parts of it that a provider is given.
    pub(crate) query: Option<&'a str>,
    pub(crate) addressing: Addressing,
    /// The caller's headers.
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a Content,
    /// Set when a connection is there and the request is about to go out: from then on somebody may work for it.
    pub(crate) contacted: &'a AtomicBool,
}

/// What the caller's path says beside the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addressing {
    /// Nothing that the body or the model does not say.
    Usual,
    /// A deployment, and the body names no model: only who is addressed in the same way can be asked.
    Deployment,
    /// Gemini's `v1` instead of `v1beta`.
    GeminiStable,
}

/// The head of a provider's answer, and its body to come.
pub(crate) struct UpstreamAnswer {
    /// Which was chosen; only the tests of the choice want to know.
    #[cfg(test)]
    pub(crate) channel: Name,
    pub(crate) kind: ProviderKind,
    pub(crate) status: StatusCode,
    /// Those that are passed on.
    pub(crate) headers: HeaderMap,
    /// The first bytes, unless the answer has none.
    pub(crate) first: Option<Bytes>,
    pub(crate) body: UpstreamBody,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// No channel may be asked just now.
    NoProvider {
        /// When one may be, in seconds.
        retry_after_s: u32,
    },
    /// No channel could be reached, or none gave an answer that could be read.
    Failed,
    /// The provider took too long.
    Timeout,
    /// The provider refused the operator's own secret.
    KeyRefused,
    /// The operator's own account there may not spend more.
    AccountSpent,
}

/// How a channel is doing, for metrics, readiness and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelHealth {
    /// Which.
    pub channel: Name,
    /// Its provider.
    pub provider: Name,
    /// How it is.
    pub state: ChannelState,
}

/// How a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelState {
    /// It is asked as usual.
    Ready,
    /// It said that it has too many requests; others go first until then.
    Resting,
    /// It failed again and again and is left alone for a while.
    Failing,
    /// It refused its secret.
    KeyRefused,
}

/// What came of looking whether a channel can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It is there and takes the secret.
    Ok,
    /// It does not take the secret.
    KeyRefused,
    /// It could not be reached: no such name, no connection, or a certificate that nobody trusts.
    Unreachable,
    /// It can be reached and said nothing in time.
    Timeout,
    /// It answered with something else: the base address may be wrong.
    Unexpected(StatusCode),
}

impl Upstream {
    /// The channels of a Lab. `tls` is how https connections are made: its roots are whom the Lab trusts; ALPN is set here.
    #[must_use]
    pub fn new(channels: Vec<Channel>, tls: &Arc<rustls::ClientConfig>, tuning: Tuning) -> Self {
        let mut config = rustls::ClientConfig::clone(tls);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let tls = TlsConnector::from(Arc::new(config));
        let board = Board { conditions: vec![Condition::default(); channels.len()], turns: Turns::new(channels.len()) };
        let stations = channels.into_iter().map(|channel| Station::new(channel, &tls, tuning)).collect();
        Self { stations, board: Mutex::new(board), tuning }
    }

    /// Whether some channel, well or not, has the model and the endpoint for a request that names the model so.
    pub(crate) fn offers(&self, model: &Model, endpoint: Endpoint, name: &str, addressing: Addressing) -> bool {
        self.ways().any(|(_, address, _)| address.takes(model, endpoint, name, addressing))
    }

    /// Whose manners a provider has, if it has a channel here.
    pub(crate) fn kind_of(&self, provider: &Name) -> Option<ProviderKind> {
        self.stations.iter().find(|station| station.channel.provider == *provider).map(|station| station.channel.kind)
    }

    /// How the channels are.
    #[must_use]
    pub fn health(&self) -> Vec<ChannelHealth> {
        self.ways().for_each(|(_, _, pool)| pool.sweep());
        let now = Instant::now();
        let board = self.board();
        let state = |(station, condition): (&Station, &Condition)| ChannelHealth {
            channel: station.channel.name.clone(),
            provider: station.channel.provider.clone(),
            state: if station.way.is_some() { condition.state(now) } else { ChannelState::KeyRefused },
        };
        self.stations.iter().zip(&board.conditions).map(state).collect()
    }

    /// Looks whether a channel can be reached and takes its secret, by asking for its list of models. `None` when there is no such.
    pub async fn probe(&self, channel: &Name) -> Option<Probe> {
        let station = self.stations.iter().find(|station| station.channel.name == *channel)?;
        let Some((address, pool)) = &station.way else { return Some(Probe::KeyRefused) };
        let asked = timeout(self.tuning.connect * 2, exchange(pool, self.tuning.idle, |version| address.probe(version))).await;
        Some(match asked {
            Err(_) => Probe::Timeout,
            Ok(Err(_)) => Probe::Unreachable,
            Ok(Ok(begun)) => match (judge(station.channel.kind, &begun), begun.status) {
                (Verdict::KeyRefused | Verdict::NotForThisKey, _) => Probe::KeyRefused,
                (_, StatusCode::OK) => Probe::Ok,
                (_, status) => Probe::Unexpected(status),
            },
        })
    }

    /// Asks the best channel, and the next best if that one fails before its first byte.
    ///
    /// Of several that have failed, the last answer is given back, and where there was none the last reason.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<UpstreamAnswer, NoAnswer> {
        let mut tried = Vec::new();
        let mut last: Result<UpstreamAnswer, NoAnswer> = Err(NoAnswer::Failed);
        while tried.len() < MOST_CHANNELS {
            let chosen = match self.choose(call, &tried) {
                Ok(chosen) => chosen,
                Err(none) if tried.is_empty() => return Err(none),
                Err(_) => break,
            };
            let Some((address, pool)) = &self.stations[chosen].way else { break };
            tried.push(chosen);
            let asked = timeout(
                self.tuning.first_byte,
                exchange(pool, self.tuning.idle, |version| {
                    call.contacted.store(true, Ordering::Relaxed);
                    address.request(call, version)
                }),
            );
            let (news, came) = match asked.await {
                Ok(Ok(begun)) => match judge(address.channel.kind, &begun) {
                    Verdict::Good => {
                        self.heard(chosen, News::Answer);
                        return Ok(answer(&address.channel, begun));
                    }
                    Verdict::Busy(rest) => (Some(News::Busy(rest)), Ok(answer(&address.channel, begun))),
                    Verdict::Spent => (Some(News::Busy(SPENT_REST)), Err(NoAnswer::AccountSpent)),
                    Verdict::Failed => (Some(News::Failure), Ok(answer(&address.channel, begun))),
                    Verdict::Redirect => (Some(News::Failure), Err(NoAnswer::Failed)),
                    Verdict::KeyRefused => (Some(News::KeyRefused), Err(NoAnswer::KeyRefused)),
                    Verdict::NotForThisKey => (Some(News::Answer), Err(NoAnswer::KeyRefused)),
                },
                Ok(Err(NotBegun::Failed)) => (Some(News::Failure), Err(NoAnswer::Failed)),
                Ok(Err(NotBegun::Full)) => (None, Err(NoAnswer::NoProvider { retry_after_s: 1 })),
                Ok(Err(NotBegun::Unaskable)) => (None, Err(NoAnswer::Failed)),
                Err(_) => (Some(News::Failure), Err(NoAnswer::Timeout)),
            };
            if let Some(news) = news {
                self.heard(chosen, news);
            }
            // Whoever has the request and is silent works for it: another one's work would be paid for on top.
            let is_at_work = came.as_ref().is_err_and(|why| *why == NoAnswer::Timeout);
            if came.is_ok() || last.is_err() {
                last = came;
            }
            if is_at_work {
                break;
            }
        }
        last
    }

    /// Whose turn it is, those left out that were tried.
    fn choose(&self, call: &Call<'_>, tried: &[usize]) -> Result<usize, NoAnswer> {
        let now = Instant::now();
        let mut board = self.board();
        let Board { conditions, turns } = &mut *board;
        let takes = |address: &Address| address.takes(call.model, call.endpoint, call.name, call.addressing);
        let fitting = || self.ways().filter(|(index, address, _)| !tried.contains(index) && takes(address));

        let mut best = None;
        let mut shut: Option<(Why, Duration)> = None;
        for (index, address, _) in fitting() {
            let is_resting = match conditions[index].standing(now) {
                Standing::Ready => false,
                Standing::Resting => true,
                Standing::Shut(why, left) => {
                    // A channel that fails may come back by itself: whoever waits for one waits for that.
                    let sooner = shut.is_none_or(|known| (why == Why::KeyRefused, left) < (known.0 == Why::KeyRefused, known.1));
                    shut = if sooner { Some((why, left)) } else { shut };
                    continue;
                }
            };
            let rank = (is_resting, address.channel.priority);
            if best.is_none_or(|best| rank < best) {
                best = Some(rank);
            }
        }
        let Some(best) = best else {
            return Err(match shut {
                Some((Why::KeyRefused, _)) => NoAnswer::KeyRefused,
                Some((Why::Failing, left)) => NoAnswer::NoProvider { retry_after_s: head::whole_seconds(left) },
                // Whoever asks has found before that there is one, and channels stay as they are.
                None => NoAnswer::Failed,
            });
        };
        let of_best = fitting().filter_map(|(index, address, _)| {
            let is_resting = match conditions[index].standing(now) {
                Standing::Ready => false,
                Standing::Resting => true,
                Standing::Shut(..) => return None,
            };
            ((is_resting, address.channel.priority) == best).then_some((index, address.channel.weight))
        });
        let chosen = turns.next(of_best).ok_or(NoAnswer::Failed)?;
        conditions[chosen].asked(now);
        Ok(chosen)
    }

    fn heard(&self, station: usize, news: News) {
        self.board().conditions[station].heard(Instant::now(), news);
    }

    /// The channels that can be asked at all, with their index.
    fn ways(&self) -> impl Iterator<Item = (usize, &Address, &Arc<Pool>)> {
        self.stations
            .iter()
            .enumerate()
            .filter_map(|(index, station)| station.way.as_ref().map(|(address, pool)| (index, address, pool)))
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Station {
    fn new(channel: Channel, tls: &TlsConnector, tuning: Tuning) -> Self {
        let destination = Destination::new(&channel.base);
        let address = Address::new(channel.clone());
        let way = address.zip(destination.map(|destination| Arc::new(Pool::new(destination, tls.clone(), tuning))));
        Self { channel, way }
    }
}

/// What an answer says about the channel that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It did what it should, or the caller asked for something wrong.
    Good,
    /// It has too many requests.
    Busy(Duration),
    /// The operator's account may not spend more. The caller could wait for ever.
    Spent,
    /// It failed itself.
    Failed,
    /// It points elsewhere.
    Redirect,
    /// It refuses the operator's secret.
    KeyRefused,
    /// It refuses what was asked under the operator's secret. That may be one model, so that the channel is still good for others;
    /// the caller has no part in it either way.
    NotForThisKey,
}

fn judge(kind: ProviderKind, begun: &Begun) -> Verdict {
    let first = begun.first.as_deref().unwrap_or_default();
    match begun.status.as_u16() {
        300..=399 => Verdict::Redirect,
        401 | 402 => Verdict::KeyRefused,
        403 => Verdict::NotForThisKey,
        400 if says_key_is_invalid(kind, first) => Verdict::KeyRefused,
        429 if says_account_is_spent(first) => Verdict::Spent,
        429 => Verdict::Busy(asked_rest(&begun.headers).unwrap_or(USUAL_REST)),
        500.. => Verdict::Failed,
        _ => Verdict::Good,
    }
}

/// OpenAI and Anthropic say with the status of too many requests that the account is empty; what it was is told by a code. A
/// caller's own text may come back in such an answer, but its quotes then have backslashes before them.
fn says_account_is_spent(body: &[u8]) -> bool {
    let codes: [&[u8]; 2] = [b"\"insufficient_quota\"", b"\"enforced_spend_limit_reached\""];
    codes.into_iter().any(|code| memmem::find(body, code).is_some())
}

/// Google and xAI refuse a key with status 400, like any other mistake; xAI quotes a part of it. What it was is told by the field in
/// which it stands: a caller's own text may come back in such an answer, but not there.
fn says_key_is_invalid(kind: ProviderKind, body: &[u8]) -> bool {
    let (field, begins) = match kind {
        ProviderKind::Gemini => ("\"reason\"", "\"API_KEY_INVALID\""),
        ProviderKind::Xai => ("\"error\"", "\"Incorrect API key provided"),
        _ => return false,
    };
    memmem::find_iter(body, field).any(|at| {
        let value = body[at + field.len()..].trim_ascii_start().strip_prefix(b":");
        value.is_some_and(|value| value.trim_ascii_start().starts_with(begins.as_bytes()))
    })
}

/// What a provider says about when to come again. A date is left unread: no model API sends one.
fn asked_rest(headers: &HeaderMap) -> Option<Duration> {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let millis = number(http::HeaderName::from_static("retry-after-ms")).map(|millis| millis / 1000.0);
    Duration::try_from_secs_f64(millis.or_else(|| number(RETRY_AFTER))?).ok()
}

fn answer(channel: &Channel, begun: Begun) -> UpstreamAnswer {
    UpstreamAnswer {
        #[cfg(test)]
        channel: channel.name.clone(),
        kind: channel.kind,
        status: begun.status,
        headers: pass_response(begun.headers),
        first: begun.first,
        body: begun.body,
    }
}
