//! Downloading a model, with its progress.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use ollama_rs::{error::OllamaError, models::pull::PullModelStatus};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use wire::{ModelName, relay::PullProgress};

use super::{CONNECT_LIMIT, Error, Ollama, OllamaHost};

/// The shortest time between two events: Ollama sends one every 60 ms, and nobody reads faster than this.
const TELL_EVERY: Duration = Duration::from_millis(200);

impl Ollama {
    /// Downloads a model. At most five events a second, the newest of what happened in between; the last one is `success`, or the
    /// error. Dropping the stream stops the download; what was fetched is kept for the next one.
    pub fn pull(&self, model: &ModelName) -> impl Stream<Item = Result<PullProgress, Error>> + Send + use<> {
        coalesce(self.statuses(model))
    }

    /// Ollama's own events.
    fn statuses(&self, model: &ModelName) -> impl Stream<Item = Result<PullModelStatus, Error>> + Send + use<> {
        let (downloads, model) = (self.downloads.clone(), model.to_string());
        let begun = async move {
            let statuses = downloads.pull_model_stream(model, false).await.map_err(|error| failed(&error))?;
            Ok(statuses.map_err(|error| failed(&error)))
        };
        stream::once(begun).try_flatten()
    }
}

/// A client for downloads. By default it would take a proxy from the environment for the way to this computer.
pub(super) fn client(host: &OllamaHost) -> ollama_rs::Ollama {
    #[expect(clippy::expect_used, reason = "without TLS and with constant settings nothing in it can fail")]
    let client = reqwest_012::Client::builder()
        .no_proxy()
        .redirect(reqwest_012::redirect::Policy::none())
        .connect_timeout(CONNECT_LIMIT)
        .build()
        .expect("a plain HTTP client can be built");
    ollama_rs::Ollama::builder().url(host.join("/")).reqwest_client(client).build()
}

/// What of an error of `ollama-rs` can be passed on: its texts are Ollama's, or hold addresses.
fn failed(error: &OllamaError) -> Error {
    match error {
        OllamaError::InternalError(told) => kind(&told.message),
        // The body of an answer with an error status, whose number is lost.
        OllamaError::Other(body) => serde_json::from_str::<Failed>(body).map_or(Error::NotOllama, |failed| kind(&failed.error)),
        OllamaError::ReqwestError(error) if error.is_connect() => Error::NotRunning,
        OllamaError::ReqwestError(error) if error.is_timeout() => Error::TimedOut,
        OllamaError::ReqwestError(_) => Error::Lost,
        OllamaError::JsonError(_) | OllamaError::ToolCallError(_) => Error::NotOllama,
    }
}

#[derive(Deserialize)]
struct Failed {
    error: String,
}

/// Ollama has no codes for what goes wrong with a download, only Go's texts. They name hosts and paths, so they are not passed on.
fn kind(text: &str) -> Error {
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if has(&["file does not exist", "not found"]) {
        Error::NotInRegistry
    } else if has(&["no space left", "not enough space", "disk full"]) {
        Error::DiskFull
    } else if has(&["dial tcp", "lookup ", "i/o timeout", "connection re", "TLS handshake", "no route to host", "unreachable"]) {
        Error::RegistryUnreachable
    } else {
        Error::PullFailed
    }
}

type Statuses = Pin<Box<dyn Stream<Item = Result<PullModelStatus, Error>> + Send>>;

/// Keeps the newest event until its time has come.
enum Coalesce {
    Running { statuses: Statuses, newest: Option<PullProgress>, not_before: Instant },
    Over,
}

fn coalesce(
    statuses: impl Stream<Item = Result<PullModelStatus, Error>> + Send + 'static,
) -> impl Stream<Item = Result<PullProgress, Error>> + Send {
    let start = Coalesce::Running { statuses: Box::pin(statuses), newest: None, not_before: Instant::now() };
    stream::unfold(start, async |state| {
        let Coalesce::Running { mut statuses, mut newest, not_before } = state else { return None };
        loop {
            tokio::select! {
                biased;
                () = sleep_until(not_before), if newest.is_some() => {
                    let running = Coalesce::Running { statuses, newest: None, not_before: Instant::now() + TELL_EVERY };
                    return newest.map(|progress| (Ok(progress), running));
                }
                status = statuses.next() => match status {
                    Some(Ok(status)) if status.message == "success" => return Some((Ok(progress(status)), Coalesce::Over)),
                    Some(Ok(status)) => newest = Some(progress(status)),
                    Some(Err(error)) => return Some((Err(error), Coalesce::Over)),
                    // Ollama's last word is `success`, or an error.
                    None => return Some((Err(Error::PullFailed), Coalesce::Over)),
                },
            }
        }
    })
}

fn progress(status: PullModelStatus) -> PullProgress {
    PullProgress { step: status.message, digest: status.digest, completed: status.completed, total: status.total }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str, completed: Option<u64>) -> PullModelStatus {
        PullModelStatus { message: message.to_owned(), digest: None, total: None, completed }
    }

    /// An event every 60 ms for six seconds.
    fn ticking() -> impl Stream<Item = Result<PullModelStatus, Error>> + Send {
        stream::iter(0..100).then(|n| async move {
            tokio::time::sleep(Duration::from_millis(60)).await;
            Ok(event("pulling", Some(n)))
        })
    }

    #[tokio::test(start_paused = true)]
    async fn five_events_a_second_and_the_newest_of_them() {
        let start = Instant::now();
        let whole = ticking().chain(stream::iter([Ok(event("success", None))]));
        let told: Vec<_> = coalesce(whole).map(|event| (start.elapsed(), event.unwrap())).collect().await;
        let (last, progress) = told.split_last().unwrap();
        assert_eq!((last.0, last.1.step.as_str()), (Duration::from_secs(6), "success"));
        assert_eq!(progress[0].1.completed, Some(0), "the first one waits for nothing");
        for pair in progress.windows(2) {
            assert!(pair[1].0 - pair[0].0 >= TELL_EVERY, "{pair:?}");
            assert!(pair[1].1.completed > pair[0].1.completed, "{pair:?}");
        }
        assert_eq!(progress.len(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_and_an_early_end_are_the_last_word() {
        let failing = ticking().take(1).chain(stream::iter([Err(Error::DiskFull), Ok(event("success", None))]));
        let told: Vec<_> = coalesce(failing).collect().await;
        assert_eq!(told.last(), Some(&Err(Error::DiskFull)));
        let told: Vec<_> = coalesce(stream::iter([Ok(event("pulling manifest", None))])).collect().await;
        assert_eq!(told.last(), Some(&Err(Error::PullFailed)));
    }

    #[test]
    fn errors_are_told_apart_and_not_quoted() {
        for (body, error) in [
            (r#"{"error":"pull model manifest: file does not exist"}"#, Error::NotInRegistry),
            (r#"{"error":"write /home/ada/.ollama/models/blobs/x: no space left on device"}"#, Error::DiskFull),
            (r#"{"error":"dial tcp: lookup registry.ollama.ai: no such host"}"#, Error::RegistryUnreachable),
            (r#"{"error":"digest mismatch, file must be downloaded again: want x, got y"}"#, Error::PullFailed),
            ("<html>", Error::NotOllama),
            ("{}", Error::NotOllama),
        ] {
            assert_eq!(failed(&OllamaError::Other(body.to_owned())), error, "{body}");
        }
    }
}
