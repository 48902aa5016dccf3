//! What the texts of requests mean: the identity of something, or words.

use super::{Operation, Place, Text};
use getrandom::fill;
use http::Method;
use serde_json::Value;

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The identity of one of these.
    Identity(&'static str),
    /// Anything that its writer likes.
    Words,
    /// Nobody has said.
    Unknown,
}

/// Nouns by the word before their place in a path.
const PLACES: &[(&str, &str)] = &[
    ("projects", "project"),
    ("keys", "key"),
    ("requests", "request"),
    ("conversations", "conversation"),
    ("messages", "message"),
    ("folders", "folder"),
    ("files", "file"),
    ("tasks", "task"),
    ("runs", "run"),
    ("approvals", "approval"),
    ("rules", "rule"),
    ("tool-servers", "tool server"),
    ("devices", "device"),
    ("sessions", "session"),
    ("identities", "identity"),
];

/// Nouns by their names in queries and bodies.
const NAMES: &[(&str, &str)] = &[
    ("project", "project"),
    ("key", "key"),
    ("conversation", "conversation"),
    ("message", "message"),
    ("leaf", "message"),
    ("folder", "folder"),
    ("file", "file"),
    ("task", "task"),
    ("run", "run"),
    ("device", "device"),
];

/// What is words, by its name.
const WORDS: &[&str] = &[
    "address",
    "body",
    "by",
    "code",
    "confirm",
    "content",
    "cursor",
    "day",
    "definition",
    "delegate",
    "description",
    "error",
    "from",
    "instructions",
    "iss",
    "media_type",
    "model",
    "models",
    "month",
    "name",
    "path",
    "pattern",
    "provider",
    "q",
    "return_to",
    "state",
    "target",
    "text",
    "ticket",
    "title",
    "to",
    "token",
    "tool",
    "total",
    "url",
    "user_code",
    "value",
    "words",
    "x-1k4-path",
];

/// What a text of an operation is.
#[must_use]
pub fn meaning(operation: &Operation<'_>, text: &Text) -> Meaning {
    let found = |known: &[(&str, &'static str)], name: &str| known.iter().find(|(word, _)| *word == name).map(|(_, noun)| *noun);
    let last = text.name.rsplit('.').next().unwrap_or_default();
    let noun = match text.place {
        Place::Path => {
            let (before, _) = operation.path.split_once(&format!("/{{{}}}", text.name)).unwrap_or_default();
            found(PLACES, before.rsplit('/').next().unwrap_or_default())
        }
        // What stands above a folder is a folder, and above a message a message.
        Place::Query | Place::Header | Place::Body if last == "parent" => {
            Some(if operation.path.starts_with("/api/folders") { "folder" } else { "message" })
        }
        Place::Query | Place::Header | Place::Body => found(NAMES, last),
    };
    match noun {
        Some(noun) => Meaning::Identity(noun),
        None if WORDS.contains(&last) => Meaning::Words,
        None => Meaning::Unknown,
    }
}

/// What stands at such a place in a path.
#[must_use]
pub fn place_of(word: &str) -> Option<&'static str> {
    PLACES.iter().find(|(known, _)| *known == word).map(|(_, noun)| *noun)
}

/// What an operation makes a new one of.
#[must_use]
pub fn makes(operation: &Operation<'_>) -> Option<&'static str> {
    if operation.method == Method::PUT && operation.path.ends_with("/files/content") {
        return Some("file");
    }
    place_of(operation.path.rsplit('/').next()?).filter(|_| operation.method == Method::POST)
}

/// The identity of what was made, as an answer tells it.
#[must_use]
pub fn made(answer: &Value) -> Option<&str> {
    ["/id", "/kid", "/run/id", "/file/id", "/file"].iter().find_map(|place| answer.pointer(place)?.as_str())
}

/// A well-formed identity that nothing has.
///
/// # Panics
/// When the system has no randomness.
#[must_use]
pub fn guess(noun: &str) -> Option<String> {
    let prefix = match noun {
        "key" => return Some(letters(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", 12)),
        "project" => "prj_",
        "request" => "req_",
        "conversation" => "cnv_",
        "message" => "msg_",
        "folder" => "fld_",
        "file" => "fil_",
        "task" => "tsk_",
        "run" => "run_",
        "approval" => "apr_",
        "rule" => "rul_",
        "tool server" => "srv_",
        "session" => "ses_",
        "identity" => "idn_",
        "device" => "dev_",
        _ => return None,
    };
    // 26 digits of base 32 hold two bits more than an identity: the last digit is one of those that leave them 0.
    Some(format!("{prefix}{}{}", letters(b"0123456789abcdefghijklmnopqrstuv", 25), letters(b"048cgkos", 1)))
}

fn letters(alphabet: &[u8], count: usize) -> String {
    let mut random = vec![0; count];
    fill(&mut random).expect("randomness");
    random.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
}

#[test]
fn a_guess_is_well_formed() {
    for _ in 0..100 {
        guess("project").unwrap().parse::<wire::ProjectId>().expect("an identity");
    }
}
