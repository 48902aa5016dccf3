//! Somebody who watches a run as a browser does: over server-sent events, coming again with the number of the last event.

use std::{io, time::Duration};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::caller::Caller;

/// How long to wait before coming again to a Lab that is not there, or that says that this address comes too often.
const AWAY: Duration = Duration::from_millis(100);

/// A watcher and everything that they have seen.
pub struct Watcher {
    caller: Caller,
    run: String,
    events: Vec<Value>,
    /// How often they came.
    pub visits: usize,
}

impl Watcher {
    /// Somebody who has seen nothing yet.
    #[must_use]
    pub fn new(caller: &Caller, run: &str) -> Self {
        Self { caller: caller.clone(), run: run.to_owned(), events: Vec::new(), visits: 0 }
    }

    /// Which run they watch.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// What they have seen, in the order of the events' numbers.
    #[must_use]
    pub fn events(&self) -> &[Value] {
        &self.events
    }

    /// Whether they have seen the end.
    #[must_use]
    pub fn has_seen_the_end(&self) -> bool {
        self.events.last().is_some_and(|event| event["type"] == "ended")
    }

    /// The words that they were told.
    #[must_use]
    pub fn text(&self) -> String {
        let words = self.events.iter().filter(|event| event["type"] == "text");
        words.filter_map(|event| event["text"].as_str()).collect()
    }

    /// Comes once and stays until `enough` new events are there, the stream ends or the connection breaks.
    ///
    /// # Errors
    /// When nobody is there, or goes in the middle, or lets nobody in who comes so often.
    ///
    /// # Panics
    /// When an event is missing, comes twice, or is not what its head says; when the Lab refuses.
    pub async fn visit(&mut self, enough: usize) -> io::Result<()> {
        let path = format!("/api/runs/{}/events", self.run);
        let last = self.events.len().to_string();
        let mut answer = self.caller.try_send(Method::GET, &path, &[("last-event-id", &last)], bytes::Bytes::new()).await?;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        assert_eq!(answer.status, StatusCode::OK, "the stream is refused");
        self.visits += 1;
        assert_eq!(answer.header("content-type"), "text/event-stream");
        let until = self.events.len().saturating_add(enough);
        let mut text = String::new();
        while self.events.len() < until {
            let Some(chunk) = answer.chunk().await.map_err(io::Error::other)? else { return Ok(()) };
            // JSON escapes nothing beyond ASCII, and a chunk is some whole events; a connection's end is an event's.
            text.push_str(std::str::from_utf8(&chunk).map_err(io::Error::other)?);
            while let Some((block, rest)) = text.split_once("\n\n") {
                self.take(block);
                text = rest.to_owned();
            }
        }
        Ok(())
    }

    /// Comes as often as it takes to see the end, each time for `enough()` events.
    ///
    /// # Panics
    /// As [`Self::visit`].
    pub async fn watch(&mut self, mut enough: impl FnMut() -> usize) {
        while !self.has_seen_the_end() {
            if self.visit(enough()).await.is_err() {
                tokio::time::sleep(AWAY).await;
            }
        }
    }

    fn take(&mut self, block: &str) {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let (Some(id), Some(kind), Some(data)) = (field("id"), field("event"), field("data")) else { return };
        let event: Value = serde_json::from_str(data).expect("a line of JSON");
        assert_eq!(event["type"], kind);
        assert_eq!(event["seq"].to_string(), id);
        assert_eq!(id.parse(), Ok(self.events.len() + 1), "an event is missing or comes twice");
        assert!(!self.has_seen_the_end(), "something follows the end");
        self.events.push(event);
    }
}

/// Starts a chat's answer in a conversation, below `parent`, and gives the run and the message that it makes.
///
/// # Panics
/// When the Lab refuses.
pub async fn start_run(page: &Caller, conversation: &str, parent: Option<&str>, model: &str) -> (String, String) {
    let says = json!([{"type": "text", "text": "tell me"}]);
    let body = json!({"conversation": conversation, "parent": parent, "says": says, "model": {"model": model}});
    let mut answer = page.post("/api/runs", &body).await;
    while answer.status == StatusCode::TOO_MANY_REQUESTS {
        tokio::time::sleep(AWAY).await;
        answer = page.post("/api/runs", &body).await;
    }
    let (status, started) = (answer.status, answer.json().await);
    assert_eq!(status, StatusCode::ACCEPTED, "{started}");
    let text = |name: &str| started["run"][name].as_str().expect("an identity").to_owned();
    (text("id"), text("message"))
}
