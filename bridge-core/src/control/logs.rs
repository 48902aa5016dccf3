//! The last lines of the bridge's own log, in memory, for `1k4-bridge logs` and the tray.
//!
//! Only our own crates' lines are kept: what a dependency logs is not ours to vouch for (some print whole frames).

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, Filter},
};

use crate::status::now_ms;

/// How many lines are kept: an hour of a link that keeps failing, in a few hundred KiB.
const KEPT: usize = 1000;
/// How far one who follows may fall behind before lines are dropped for them.
const BEHIND: usize = 256;
/// The crates whose lines are ours. The last one is the binary's.
const OURS: [&str; 3] = ["bridge_core", "wire", "1k4_bridge"];

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// The module that wrote it.
    pub target: String,
    /// The message.
    pub message: String,
    /// What else was noted, as texts.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// The ring of the last 1,000 lines. Clones share it; one of them goes into the subscriber as a [`Layer`].
#[derive(Clone)]
pub struct LogRing(Arc<Inner>);

struct Inner {
    lines: Mutex<VecDeque<LogLine>>,
    news: broadcast::Sender<LogLine>,
}

impl LogRing {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner { lines: Mutex::new(VecDeque::with_capacity(KEPT)), news: broadcast::channel(BEHIND).0 }))
    }

    /// The layer for a subscriber, already filtered to our own lines.
    pub fn layer<S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        self.clone().with_filter(OwnLines)
    }

    /// What is kept, oldest first, and everything from here on, without a gap or a repetition between the two.
    pub(super) fn follow(&self) -> (Vec<LogLine>, broadcast::Receiver<LogLine>) {
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        (lines.iter().cloned().collect(), self.0.news.subscribe())
    }

    fn push(&self, line: LogLine) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line.clone());
        // Nobody follows: fine. Sent under the lock, so that `follow` sees each line exactly once.
        let _ = self.0.news.send(line);
    }
}

impl Default for LogRing {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Subscriber> Layer<S> for LogRing {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.push(LogLine {
            time_ms: now_ms(),
            level: level_name(*event.metadata().level()).to_owned(),
            target: event.metadata().target().to_owned(),
            message: fields.message,
            fields: fields.rest,
        });
    }
}

/// Lets our own crates' lines pass, whatever their level; levels are the subscriber's own affair.
#[derive(Debug, Clone, Copy)]
pub struct OwnLines;

impl<S> Filter<S> for OwnLines {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        is_ours(metadata.target())
    }
}

fn is_ours(target: &str) -> bool {
    OURS.iter().any(|ours| target.strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: serde_json::Map<String, serde_json::Value>,
}

impl Fields {
    fn keep(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
        } else {
            self.rest.insert(field.name().to_owned(), text.into());
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn line(message: &str) -> LogLine {
        LogLine { time_ms: 0, level: "info".into(), target: "wire".into(), message: message.into(), fields: serde_json::Map::new() }
    }

    #[test]
    fn only_our_own_lines_are_kept_with_their_fields() {
        let ring = LogRing::new();
        let subscriber = tracing_subscriber::registry().with(ring.layer());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(attempt = 3, lab = "https://lab.example.com", "dialling");
            tracing::warn!(target: "h2::codec", "a frame with somebody's words");
            tracing::warn!(target: "wireless", "a stranger with a similar name");
        });
        let (lines, _) = ring.follow();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!((lines[0].level.as_str(), lines[0].message.as_str()), ("info", "dialling"));
        assert_eq!(lines[0].target, module_path!());
        assert_eq!(
            serde_json::Value::from(lines[0].fields.clone()),
            serde_json::json!({"attempt": "3", "lab": "https://lab.example.com"})
        );
    }

    #[test]
    fn the_oldest_line_goes_first() {
        let ring = LogRing::new();
        for n in 0..=KEPT {
            ring.push(line(&n.to_string()));
        }
        let (lines, _) = ring.follow();
        assert_eq!((lines.len(), lines[0].message.as_str()), (KEPT, "1"));
    }

    #[test]
    fn who_follows_sees_each_line_once() {
        let ring = LogRing::new();
        ring.push(line("before"));
        let (lines, mut news) = ring.follow();
        ring.push(line("after"));
        assert_eq!(lines, [line("before")]);
        assert_eq!(news.try_recv().unwrap(), line("after"));
        assert!(news.try_recv().is_err());
    }
}
