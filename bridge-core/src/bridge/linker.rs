//! Dials the Lab and holds the link: one loop, one state, one reason to wait at a time.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use wire::relay::Goodbye;

use crate::{
    backoff::{AFTER_REFUSAL, Backoff, Waiting},
    config::{Origin, Pairing},
    credentials::Credentials,
    dial::{DialError, Dialer, Link},
    network::Network,
    session::{self, LinkSignal, SessionEnd},
    shared::Shared,
    status::{LinkState, now_ms},
};

/// How long to wait for a keyring that is locked: the owner may log in any moment.
const CREDENTIAL_RETRY: Duration = Duration::from_secs(30);
/// How long a link that the Lab is draining may finish what runs on it.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

pub(super) struct Linker {
    shared: Arc<Shared>,
    dialer: Dialer,
    backoff: Backoff,
    /// The way the last link took, to notice when it becomes another one.
    network: Network,
    /// Links that the Lab is draining.
    draining: JoinSet<()>,
    /// No wait is longer.
    longest_wait: Duration,
}

/// Why a link is held no longer.
enum Released {
    /// There is a reason to dial at once: another network, or somebody said so.
    DialNow,
    /// It is over, or the Lab is going away: dial again, no faster than the network deserves.
    Over,
    /// The Lab does not want this device to dial again soon.
    Goodbye(Goodbye),
}

impl Linker {
    pub(super) fn new(shared: Arc<Shared>, dialer: Dialer, longest_wait: Duration) -> Self {
        let (backoff, network) = (Backoff::new(), Network::towards(None));
        Self { shared, dialer, backoff, network, draining: JoinSet::new(), longest_wait }
    }

    /// Dials, holds, waits, for as long as the bridge runs.
    pub(super) async fn run(mut self) {
        loop {
            let Some(pairing) = self.pairing() else {
                self.shared.set_link(LinkState::Unpaired);
                self.shared.wake.notified().await;
                continue;
            };
            let lab = pairing.lab.to_string();
            if !matches!(*self.shared.link.borrow(), LinkState::Waiting { .. } | LinkState::Refused { .. }) {
                self.shared.set_link(LinkState::Connecting { lab: lab.clone(), attempt: self.backoff.failures() + 1 });
            }
            let key = match self.key(&pairing.lab).await {
                Ok(key) => key,
                Err(error) => {
                    let (code, cause) = (error.code().to_owned(), error.to_string());
                    self.shared.set_link(LinkState::NoCredential { lab, code, cause });
                    self.wait(CREDENTIAL_RETRY).await;
                    continue;
                }
            };
            match self.dialer.link(&pairing.lab, pairing.device, &key).await {
                Ok(link) => {
                    drop(key);
                    let dialled = Instant::now();
                    let released = self.hold(&pairing, link).await;
                    self.backoff.after_link(dialled.elapsed(), random());
                    match released {
                        Released::DialNow => self.shared.set_link(LinkState::Connecting { lab, attempt: 1 }),
                        // A Lab that takes a link and drops it again and again is not dialled in a circle.
                        Released::Over => {
                            self.shared.set_link(LinkState::Connecting { lab, attempt: self.backoff.failures() + 1 });
                            let delay = self.next_delay();
                            self.wait(delay).await;
                        }
                        Released::Goodbye(why) => self.refused(lab, goodbye_code(why), goodbye_sentence(why)).await,
                    }
                    continue;
                }
                Err(error) if error.is_permanent() => self.refused(lab, error.code(), &error.to_string()).await,
                Err(error) => self.failed(lab, &error).await,
            }
        }
    }

    /// The pairing as it is on disk now: `login` and `logout` change it while we run.
    fn pairing(&self) -> Option<Pairing> {
        match Pairing::load(&self.shared.config.paths) {
            Ok(pairing) => pairing,
            Err(error) => {
                tracing::error!(%error, "the pairing cannot be read");
                None
            }
        }
    }

    async fn key(&self, lab: &Origin) -> Result<ed25519_dalek::SigningKey, crate::credentials::Error> {
        Credentials::open(self.shared.config.credential_store.clone(), lab)?.load().await
    }

    /// Serves the Lab until the link ends or is better dropped.
    async fn hold(&mut self, pairing: &Pairing, link: Link) -> Released {
        self.shared.set_link(LinkState::Online {
            lab: pairing.lab.to_string(),
            device: pairing.device,
            since_ms: now_ms(),
            clock_skew_s: link.clock_skew_s,
        });
        tracing::info!(lab = pairing.lab.as_str(), "linked");
        self.network = Network::towards(link.peer);
        let (signals, mut heard) = mpsc::channel(4);
        let shared = Arc::clone(&self.shared);
        let mut session = Box::pin(session::serve(link.stream, shared, signals));
        loop {
            tokio::select! {
                end = &mut session => {
                    match end {
                        SessionEnd::Closed => tracing::info!("the link has ended"),
                        SessionEnd::Silent => tracing::warn!("the Lab was silent for too long, the link was dropped"),
                    }
                    // The goodbye may have come together with the end.
                    return match heard.try_recv() {
                        Ok(LinkSignal::Goodbye(why)) => Released::Goodbye(why),
                        Ok(LinkSignal::Drain) | Err(_) => Released::Over,
                    };
                }
                signal = heard.recv() => match signal {
                    Some(LinkSignal::Drain) => {
                        self.draining.spawn(async move {
                            // Over when its relays are, or when the Lab closes it.
                            let _ = tokio::time::timeout(DRAIN_LIMIT, session).await;
                        });
                        return Released::Over;
                    }
                    Some(LinkSignal::Goodbye(why)) => return Released::Goodbye(why),
                    // The session holds a sender.
                    None => {}
                },
                change = self.network.changed() => {
                    tracing::info!(?change, "the network changed, the link is dialled anew");
                    return Released::DialNow;
                }
                () = self.shared.wake.notified() => return Released::DialNow,
            }
        }
    }

    /// The wait before the next dial: shorter while a caller waits for the rest of an answer.
    fn next_delay(&mut self) -> Duration {
        let waiting = if self.shared.relays.is_wanted() { Waiting::Caller } else { Waiting::Nobody };
        self.backoff.next(waiting, random()).min(self.longest_wait)
    }

    async fn failed(&mut self, lab: String, error: &DialError) {
        let delay = match error {
            DialError::Refused { retry_after: Some(wish), .. } => (*wish).min(AFTER_REFUSAL),
            _ => self.next_delay(),
        };
        if self.backoff.failures() == 1 {
            tracing::warn!(cause = %error, "no link; retrying until there is one");
        }
        self.shared.set_link(LinkState::Waiting {
            lab,
            code: error.code().to_owned(),
            cause: error.to_string(),
            retry_at_ms: now_ms().saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        });
        self.wait(delay).await;
    }

    async fn refused(&mut self, lab: String, code: &str, cause: &str) {
        tracing::warn!(cause, "the Lab does not take the link");
        self.shared.set_link(LinkState::Refused { lab, code: code.to_owned(), cause: cause.to_owned() });
        self.wait(AFTER_REFUSAL).await;
    }

    /// Waits, unless there is a reason to look again at once.
    async fn wait(&mut self, delay: Duration) {
        // The time that a dial took is no sleep of the machine's.
        self.network.look_from_now();
        while self.draining.try_join_next().is_some() {}
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.shared.wake.notified() => {}
            _ = self.network.changed() => {}
        }
    }
}

const fn goodbye_code(why: Goodbye) -> &'static str {
    match why {
        Goodbye::Superseded => "superseded",
        Goodbye::Revoked => "revoked",
    }
}

const fn goodbye_sentence(why: Goodbye) -> &'static str {
    match why {
        Goodbye::Superseded => {
            "another bridge with this device's key has taken the link; if that is not you, revoke the device, \
             otherwise stop one of them or run `1k4-bridge retry`"
        }
        Goodbye::Revoked => "the Lab has revoked this workstation; pair it again with `1k4-bridge login`",
    }
}

/// Uniform in `0.0..1.0`.
fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness the wait is the longest one, which is safe.
    if getrandom::fill(&mut bytes).is_err() {
        return 1.0;
    }
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
