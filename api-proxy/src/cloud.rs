//! A request to a provider, from the catalogue to its last byte.
//!
//! Three things own it in turn, each holding its [`Entry`]: the [`Waiting`] future until the provider's head is there, the
//! [`CloudBody`] while bytes pass, and, where a caller hangs up on what is paid for all the same, a task that reads the answer to its
//! end for the sake of the bill.

mod body;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use http::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use tokio::{sync::Semaphore, time::timeout};
use wire::{Content, RequestId};

pub(crate) use body::{CloudBody, Passage};

use crate::{
    Allowance, Bound, Catalogue, Endpoint, Leash, Model, Name, NotAdmitted, Protocol, ProviderKind, ProxyBody, Snapshot,
    TokenUsage, Upstream, Usage,
    catalogue::charged,
    error::ProxyError,
    estimate, exact, head,
    listing::{Offer, Offered},
    scan::Terms,
    settle::{Entry, Used},
    tap::{Reading, Words},
    upstream::{Addressing, Call, NoAnswer, UpstreamAnswer},
};

/// Answers that are read to their end after their caller went away, at once. Beyond that they are broken off, and their usage is
/// estimated: what they hold must stay bounded.
const DRAINS: usize = 256;
/// The longest that a stream is read so.
const DRAIN_STREAM: Duration = Duration::from_secs(60);
/// The longest that an answer in one piece is waited for: it comes when all of it was thought, as [`Tuning`](crate::Tuning) has it.
const DRAIN_WHOLE: Duration = Duration::from_secs(600);
/// Providers that go on, and go on counting, when their reader has gone. Of those that operators reach as compatible ones these are
/// known for it; whoever is not named here is believed to stop, as a server of one's own does, whose graphics card is to be free.
const GO_ON: [&str; 5] = ["google", "groq", "mistral", "perplexity", "bedrock"];
/// Tokens of one picture, where the catalogue gives no bound: more than the largest at the highest quality.
const PICTURE_TOKENS: u64 = 8192;

/// The providers, and what their models cost.
pub(crate) struct Cloud {
    upstream: Arc<Upstream>,
    catalogue: Arc<Catalogue>,
    drains: Arc<Semaphore>,
}

/// What a caller asks of a provider.
pub(crate) struct CloudOrder<'a> {
    pub(crate) endpoint: Endpoint,
    /// The model, as the caller wrote it.
    pub(crate) name: &'a str,
    pub(crate) addressing: Addressing,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) terms: Terms,
    pub(crate) streamed: bool,
    pub(crate) exact_usage: bool,
    /// Whether part of the prompt is not in the request.
    pub(crate) prompt_lies_elsewhere: bool,
}

/// What a request can use at most.
pub(crate) fn bound(model: &Model, order: &CloudOrder<'_>, most_input: u64) -> Bound {
    let terms = order.terms;
    let most = match order.endpoint {
        Endpoint::OpenaiImages if model.max_output == 0 => PICTURE_TOKENS,
        _ => model.max_output,
    };
    let output = terms.max_output(order.endpoint).unwrap_or(most).min(most);
    Bound {
        // A request for embeddings holds many texts, each of which may be as long as the model takes.
        input: if order.endpoint.is_embedding() { most_input } else { most_input.min(model.max_input.max(1)) },
        output: output.saturating_mul(terms.answers()),
        tier: terms.tier,
        fast: terms.fast,
        us_only: terms.us_only,
    }
}

impl Cloud {
    pub(crate) fn new(upstream: Arc<Upstream>, catalogue: Arc<Catalogue>) -> Self {
        Self { upstream, catalogue, drains: Arc::new(Semaphore::new(DRAINS)) }
    }

    /// The model that is meant, if it has a price and somebody serves it in this way.
    pub(crate) fn model(&self, order: &CloudOrder<'_>, at: SystemTime) -> Result<Arc<Model>, ProxyError> {
        let model = self.catalogue.find(order.name).filter(|model| model.is_priced(at));
        let offers = |model: &&Arc<Model>| self.upstream.offers(model, order.endpoint, order.name, order.addressing);
        model.filter(offers).cloned().ok_or(ProxyError::NotInCatalogue)
    }

    /// Whether two names mean one model: what the path says is what is paid for, and what the body says is what runs.
    pub(crate) fn is_same(&self, in_path: &str, in_body: &str) -> bool {
        let model = |name: &str| self.catalogue.find(name).map(|model| Arc::clone(&model.id));
        // Google's own clients write `models/` before it.
        let in_body = in_body.strip_prefix("models/").unwrap_or(in_body);
        in_path == in_body || model(in_path).is_some_and(|one| model(in_body) == Some(one))
    }

    /// Every model that has a price and is served by somebody, under the first of its names by which it is.
    pub(crate) fn listed(&self) -> Vec<Offered<'_>> {
        self.catalogue.models().filter_map(|model| model.names().find_map(|name| self.offered_as(name, model))).collect()
    }

    /// The model that is meant by a name, if it would be listed, under that name.
    pub(crate) fn offered<'a>(&'a self, name: &'a str) -> Option<Offered<'a>> {
        self.offered_as(name, self.catalogue.find(name)?)
    }

    fn offered_as<'a>(&self, name: &'a str, model: &'a Model) -> Option<Offered<'a>> {
        let serves = |endpoint: &Endpoint| self.upstream.offers(model, *endpoint, name, Addressing::Usual);
        let endpoints: Vec<_> = Endpoint::ALL.into_iter().filter(serves).collect();
        (model.is_priced(SystemTime::now()) && !endpoints.is_empty()).then_some(Offered { name, model, endpoints })
    }

    /// The same for whoever is no part of the proxy.
    pub(crate) fn offer(&self, offered: Offered<'_>) -> Option<Offer> {
        Some(Offer {
            name: offered.name.into(),
            kind: self.upstream.kind_of(&offered.model.provider)?,
            model: Arc::clone(self.catalogue.find(offered.name)?),
            endpoints: offered.endpoints,
        })
    }

    /// Which price list charges are made from.
    pub(crate) fn prices(&self) -> Snapshot {
        self.catalogue.snapshot()
    }

    /// The most that a request can cost, in nano-credits.
    pub(crate) fn most(&self, model: &Model, at: SystemTime, endpoint: Endpoint, bound: &Bound) -> i64 {
        if endpoint.is_free() { 0 } else { self.catalogue.most(model, at, bound) }
    }

    /// Asks, and waits for the head and the first bytes of the answer. The entry goes with the request; it comes back where there is
    /// no answer.
    pub(crate) async fn ask(
        &self,
        model: Arc<Model>,
        order: &CloudOrder<'_>,
        content: Content,
        leash: &Leash,
        entry: &mut Entry,
    ) -> Result<Begun, ProxyError> {
        let endpoint = order.endpoint;
        let may_lack_usage =
            order.streamed && matches!(endpoint, Endpoint::OpenaiChat | Endpoint::OpenaiCompletions) && !order.terms.include_usage;
        let spliced = if order.exact_usage && may_lack_usage { exact::splice(&content) } else { None };
        let strip = spliced.is_some().then(exact::Strip::default);
        let contacted = Arc::new(AtomicBool::new(false));
        let account = Account {
            catalogue: Arc::clone(&self.catalogue),
            model: Arc::clone(&model),
            endpoint,
            streamed: order.streamed,
            answered_by: None,
            terms: order.terms,
            prompt_lies_elsewhere: order.prompt_lies_elsewhere,
            request_bytes: content.len(),
            // Kept for its count only where the provider may give none.
            request: (may_lack_usage && spliced.is_none()
                || endpoint == Endpoint::GeminiEmbed
                || endpoint == Endpoint::GeminiBatchEmbed)
                .then(|| content.for_retry()),
            strip,
            contacted: Arc::clone(&contacted),
            drains: Arc::clone(&self.drains),
        };
        let upstream = Arc::clone(&self.upstream);
        let (name, query) = (order.name.to_owned(), order.query.map(str::to_owned));
        let (headers, addressing) = (order.headers.clone(), order.addressing);
        let body = spliced.unwrap_or(content);
        let asking = Box::pin(async move {
            let call = Call {
                model: &model,
                endpoint,
                name: &name,
                query: query.as_deref(),
                addressing,
                headers: &headers,
                body: &body,
                contacted: &contacted,
            };
            upstream.send(&call).await
        });
        let mut waiting = Waiting { asking, flight: Some(Flight { entry: entry.hand_over(), account }) };
        let answer = tokio::select! {
            biased;
            answer = &mut waiting => answer.map_err(ProxyError::NoAnswer),
            () = leash.cancelled() => Err(ProxyError::NotAdmitted(NotAdmitted::Unknown)),
        };
        let flight = waiting.flight.take();
        match (answer, flight) {
            (Ok(answer), Some(flight)) => Ok(Begun { answer, flight }),
            (Err(error), Some(mut flight)) => {
                if let ProxyError::NotAdmitted(_) = error {
                    flight.note_guess();
                }
                *entry = flight.entry.hand_over();
                Err(error)
            }
            // The flight is taken here and nowhere else while the request waits.
            (_, None) => Err(ProxyError::NoAnswer(NoAnswer::Failed)),
        }
    }
}

type Asking = Pin<Box<dyn Future<Output = Result<UpstreamAnswer, NoAnswer>> + Send>>;

/// A request under way, and what its end will need. Dropped before it is settled, it settles itself: by a guess, once somebody may
/// have worked for it.
struct Flight {
    entry: Entry,
    account: Account,
}

impl Flight {
    /// What it has used if nobody tells: its request, as far as it has reached somebody.
    fn note_guess(&mut self) {
        if self.account.contacted.load(Ordering::Relaxed) && !self.account.endpoint.is_free() {
            let whole = estimate::guessed(self.account.request_bytes, &Reading::default());
            let usage = self.account.as_asked(whole, &Reading::default());
            let mut used = self.account.used(self.entry.time(), &usage, true);
            used.cost_nano = used.cost_nano.min(self.entry.reserved_nano());
            self.entry.note_used(used);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.entry.is_settled() {
            self.note_guess();
            self.entry.settle_dropped();
        }
    }
}

/// What a request's price is made from.
struct Account {
    catalogue: Arc<Catalogue>,
    model: Arc<Model>,
    endpoint: Endpoint,
    streamed: bool,
    /// Which kind of provider the answer is from, once there is one.
    answered_by: Option<ProviderKind>,
    terms: Terms,
    prompt_lies_elsewhere: bool,
    request_bytes: usize,
    /// The request's own words, where they may have to be counted.
    request: Option<Content>,
    /// Takes out again what the project had put in.
    strip: Option<exact::Strip>,
    /// Whether the request has gone out to somebody.
    contacted: Arc<AtomicBool>,
    drains: Arc<Semaphore>,
}

/// What a caller who hangs up means for the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HangUp {
    /// It stops there and then, and so does its price.
    Stops,
    /// It is paid for to its end all the same: the end is read for the sake of the bill.
    Drains,
}

impl Account {
    /// Providers say themselves whether they stop when their reader goes: OpenAI, Azure, Anthropic and xAI do, those of [`GO_ON`]
    /// do not. Nobody stops an answer in one piece. And where lengths say nothing of the price, because it is a picture or the
    /// prompt lies elsewhere, only its end tells what is owed.
    fn hang_up(&self) -> HangUp {
        let goes_on = GO_ON.contains(&self.model.provider.as_str());
        let has_a_length = self.endpoint != Endpoint::OpenaiImages && !self.prompt_lies_elsewhere;
        let stops = self.streamed && !goes_on && has_a_length;
        if stops || self.endpoint.is_free() { HangUp::Stops } else { HangUp::Drains }
    }

    /// How long an end is waited for that nobody else waits for.
    fn drain_limit(&self) -> Duration {
        if self.streamed { DRAIN_STREAM } else { DRAIN_WHOLE }
    }

    /// Whether its words are to be gathered.
    fn words(&self) -> Words {
        if self.request.is_some() { Words::Gather } else { Words::Leave }
    }

    /// What the provider says that it charges, where that is the price: xAI's word is, unless the operator has set another. From
    /// anybody else it is a number in an answer, and whoever wrote 0 there would be free.
    fn charged(&self, whole: &TokenUsage) -> Option<u64> {
        let is_price = self.answered_by == Some(ProviderKind::Xai) && !self.model.has_own_price;
        whole.upstream_cost_pico.filter(|_| is_price)
    }

    /// The provider's own word on the usage, where it is complete. An answer that told its prompt and broke off before it told its
    /// own tokens is not; embeddings have none to tell.
    fn known(&self, reading: &Reading) -> Option<Usage> {
        let has_words = !self.endpoint.is_embedding();
        reading.usage.clone().filter(|usage| {
            let whole = &usage.whole;
            !has_words || whole.output_tokens().is_some() || self.charged(whole).is_some() || !usage.iterations.is_empty()
        })
    }

    /// Estimated tokens in the class of service that the answer named, or else the request.
    fn as_asked(&self, mut whole: TokenUsage, reading: &Reading) -> Usage {
        whole.tier = whole.tier.or(reading.tier).or(self.terms.tier);
        whole.fast |= self.terms.fast;
        whole.us_only |= self.terms.us_only;
        Usage { whole, iterations: Vec::new() }
    }

    fn used(&self, at: SystemTime, usage: &Usage, estimated: bool) -> Used {
        let cost_nano = match self.charged(&usage.whole) {
            _ if self.endpoint.is_free() => 0,
            Some(pico) => charged(pico),
            None => self.catalogue.cost(&self.model, at, usage),
        };
        Used { input: usage.whole.input_tokens(), output: usage.whole.output_tokens(), cost_nano, estimated }
    }
}

/// A provider that was asked and has not answered.
struct Waiting {
    asking: Asking,
    /// Gone once it has answered.
    flight: Option<Flight>,
}

impl Future for Waiting {
    type Output = Result<UpstreamAnswer, NoAnswer>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.asking.as_mut().poll(cx)
    }
}

impl Drop for Waiting {
    /// The caller went away before there was an answer.
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        if flight.account.hang_up() == HangUp::Drains && flight.account.contacted.load(Ordering::Relaxed) {
            let nobody: Asking = Box::pin(std::future::ready(Err(NoAnswer::Failed)));
            let asking = std::mem::replace(&mut self.asking, nobody);
            let (drains, limit) = (Arc::clone(&flight.account.drains), flight.account.drain_limit());
            drain(&drains, limit, async move {
                if let Ok(answer) = asking.await {
                    Begun { answer, flight }.for_nobody().read_to_end().await;
                }
            });
        }
    }
}

/// Has an answer read to its end that nobody waits for, if there is room for one more. What is not read settles itself.
fn drain(drains: &Arc<Semaphore>, limit: Duration, reading: impl Future<Output = ()> + Send + 'static) {
    let place = Arc::clone(drains).try_acquire_owned();
    if let (Ok(place), Ok(runtime)) = (place, tokio::runtime::Handle::try_current()) {
        runtime.spawn(async move {
            let _place = place;
            let _ = timeout(limit, reading).await;
        });
    }
}

/// A provider's answer whose head and first bytes are there.
pub(crate) struct Begun {
    answer: UpstreamAnswer,
    flight: Flight,
}

impl Begun {
    /// What the limits left when the request was reserved.
    pub(crate) fn allowance(&self) -> Option<Allowance> {
        self.flight.entry.allowance()
    }

    pub(crate) fn into_response(mut self, protocol: Protocol, request: RequestId, leash: Leash) -> Response<ProxyBody> {
        let status = self.answer.status;
        let mut headers = std::mem::take(&mut self.answer.headers);
        if self.flight.account.strip.is_some() {
            // A frame of it may be taken out.
            headers.remove(CONTENT_LENGTH);
        }
        let provider: Name = self.flight.account.model.provider.clone();
        let passage = Passage::new(self.answer, headers.get(CONTENT_TYPE), self.flight, Some(protocol));
        let body = CloudBody::new(passage);
        head::provided(status, headers, &provider, request, ProxyBody::provided(body, leash))
    }

    /// The answer for nobody but the bill.
    fn for_nobody(mut self) -> Passage {
        let headers = std::mem::take(&mut self.answer.headers);
        Passage::new(self.answer, headers.get(CONTENT_TYPE), self.flight, None)
    }
}

/// The status with which an answer is recorded; one that no HTTP caller could be given is a provider's fault.
fn recordable(status: StatusCode) -> StatusCode {
    if status.is_informational() { StatusCode::BAD_GATEWAY } else { status }
}
