//! The few fields of a body that decide where it goes, how its answer looks and what it can cost at most.
//!
//! The body is walked once from end to end and nothing of it is kept but those: no tree is built. It is walked to the end because
//! readers differ on which of two equal keys counts; a body that says `model` or `stream` twice would be routed by one and run by the
//! other, so it is refused. Of a limit that stands there twice the larger counts: it only bounds what is set aside. Whatever else
//! is odd about a body is its provider's to judge. The walk's own errors are thrown away: their texts may quote the body.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{Endpoint, Protocol, Tier};

/// What a body asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `model`; `None` when absent or null.
    pub(crate) model: Option<String>,
    /// `stream`; `None` when absent or null.
    pub(crate) stream: Option<bool>,
    /// What bounds the answer and its price.
    pub(crate) terms: Terms,
}

/// What a body says of its answer's size and class of service, in the words of any of the protocols. Which of them count is the
/// endpoint's to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    max_tokens: Limit,
    max_completion_tokens: Limit,
    max_output_tokens: Limit,
    /// Gemini's `generationConfig.maxOutputTokens`.
    max_generated: Limit,
    /// `n`, `best_of` or Gemini's `candidateCount`.
    answers: Option<u64>,
    /// How many prompts an array of them holds.
    prompts: Option<u64>,
    /// `service_tier`; one that is not known here counts as [`Tier::Priority`], the dearest.
    pub(crate) tier: Option<Tier>,
    /// Anthropic's `speed: "fast"`.
    pub(crate) fast: bool,
    /// Anthropic's `inference_geo: "us"`.
    pub(crate) us_only: bool,
    /// `background: true` of the Responses API.
    pub(crate) background: bool,
    /// `stream_options.include_usage`: the caller wants the stream to tell its usage.
    pub(crate) include_usage: bool,
}

/// A limit on the answer's tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Limit {
    /// Not there.
    #[default]
    Unset,
    /// There, and none.
    Null,
    /// This many.
    Most(u64),
    /// There twice, or no number: readers differ on what it means, so it means nothing here.
    Open,
}

impl Limit {
    fn note(&mut self, json: &str) {
        *self = match (*self, count(json)) {
            (Self::Unset, Some(most @ 1..)) => Self::Most(most),
            (Self::Unset, None) if json == "null" => Self::Null,
            _ => Self::Open,
        };
    }

    /// Of two that mean the same the larger counts.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Open, _) | (_, Self::Open) => Self::Open,
            (Self::Most(one), Self::Most(two)) => Self::Most(one.max(two)),
            (Self::Most(one), _) | (_, Self::Most(one)) => Self::Most(one),
            (Self::Unset | Self::Null, Self::Unset | Self::Null) => Self::Null,
        }
    }
}

/// OpenAI's limit on `n`, which is the largest of anybody's.
const MOST_ANSWERS: u64 = 128;

impl Terms {
    /// Tokens of one answer at most, if the body limits them in the endpoint's own words.
    pub(crate) fn max_output(&self, endpoint: Endpoint) -> Option<u64> {
        let limit = match endpoint.protocol() {
            Protocol::Gemini => self.max_generated,
            Protocol::Openai if endpoint == Endpoint::OpenaiResponses => self.max_output_tokens,
            Protocol::Openai => self.max_tokens.or(self.max_completion_tokens),
            Protocol::Anthropic => self.max_tokens,
            Protocol::Ollama => Limit::Unset,
        };
        match limit {
            Limit::Most(most) => Some(most),
            Limit::Unset | Limit::Null | Limit::Open => None,
        }
    }

    /// How many answers there will be at most: as many to each prompt.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.unwrap_or(1).max(1).saturating_mul(self.prompts.unwrap_or(1).max(1))
    }
}

/// Why a body asks for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Not JSON, or JSON of another kind.
    #[error("the request's body is not a JSON object: send one that names a `model`")]
    NotAnObject,
    /// A field stands there twice.
    #[error("the request's body has `{0}` more than once: send it once")]
    Duplicate(&'static str),
    /// `model` is no text.
    #[error("`model` is not a string: send the name of a model")]
    ModelType,
    /// `stream` is no truth value.
    #[error("`stream` is neither true nor false: send one of them, or leave it out")]
    StreamType,
}

/// Reads those fields at the top level of a JSON object.
pub(crate) fn scan(body: &[u8]) -> Result<Asked, Unreadable> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let seen = Seen::deserialize(&mut json).map_err(|_| Unreadable::NotAnObject)?;
    json.end().map_err(|_| Unreadable::NotAnObject)?;
    if seen.folded && seen.model.is_some() {
        return Err(Unreadable::Duplicate("model"));
    }
    if let Some(field) = seen.duplicate {
        return Err(Unreadable::Duplicate(field));
    }
    let model = match seen.model {
        None | Some(Value::Null) => None,
        Some(Value::Text(text)) => Some(text),
        Some(Value::Bool(_) | Value::Other) => return Err(Unreadable::ModelType),
    };
    let stream = match seen.stream {
        None | Some(Value::Null) => None,
        Some(Value::Bool(stream)) => Some(stream),
        Some(Value::Text(_) | Value::Other) => return Err(Unreadable::StreamType),
    };
    Ok(Asked { model, stream, terms: seen.terms })
}

#[derive(Default)]
struct Seen {
    model: Option<Value>,
    stream: Option<Value>,
    duplicate: Option<&'static str>,
    /// There is a `Model` or `MODEL`.
    folded: bool,
    terms: Terms,
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SeenVisitor)
    }
}

struct SeenVisitor;

impl<'de> Visitor<'de> for SeenVisitor {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen, A::Error> {
        let mut seen = Seen::default();
        while let Some(key) = map.next_key::<Key>()? {
            let (slot, name) = match key {
                Key::Model => (&mut seen.model, "model"),
                Key::Stream => (&mut seen.stream, "stream"),
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                Key::FoldedModel => {
                    map.next_value::<IgnoredAny>()?;
                    seen.folded = true;
                    continue;
                }
                Key::Term(term) => {
                    seen.terms.note(term, map.next_value::<&RawValue>()?.get());
                    continue;
                }
            };
            if slot.replace(map.next_value()?).is_some() {
                seen.duplicate = Some(name);
            }
        }
        Ok(seen)
    }
}

enum Key {
    Model,
    /// `Model`: some readers, Go's above all, take it for `model`.
    FoldedModel,
    Stream,
    Term(Term),
    Other,
}

/// A field that bounds the answer or its price.
#[derive(Clone, Copy)]
enum Term {
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    Answers,
    Prompt,
    Tier,
    Speed,
    Geo,
    Background,
    StreamOptions,
    /// Gemini's object with two of them inside.
    Generation,
}

impl Term {
    fn named(key: &[u8]) -> Option<Self> {
        Some(match key {
            b"max_tokens" => Self::MaxTokens,
            b"max_completion_tokens" => Self::MaxCompletionTokens,
            b"max_output_tokens" => Self::MaxOutputTokens,
            b"n" | b"best_of" => Self::Answers,
            b"prompt" => Self::Prompt,
            b"service_tier" | b"serviceTier" => Self::Tier,
            b"speed" => Self::Speed,
            b"inference_geo" => Self::Geo,
            b"background" => Self::Background,
            b"stream_options" => Self::StreamOptions,
            b"generationConfig" | b"generation_config" => Self::Generation,
            _ => return None,
        })
    }
}

impl Terms {
    /// Takes a value as it stands in the body. One of another type says nothing here; its provider will refuse it.
    fn note(&mut self, term: Term, json: &str) {
        let word = || serde_json::from_str::<String>(json).unwrap_or_default();
        match term {
            Term::MaxTokens => self.max_tokens.note(json),
            Term::MaxCompletionTokens => self.max_completion_tokens.note(json),
            Term::MaxOutputTokens => self.max_output_tokens.note(json),
            Term::Answers => self.note_answers(json),
            Term::Prompt => self.prompts = self.prompts.max(Some(prompts(json))),
            Term::Tier => self.tier = tier(&word()).or(self.tier),
            Term::Speed => self.fast |= word() == "fast",
            Term::Geo => self.us_only |= word() == "us",
            Term::Background => self.background |= json == "true",
            Term::StreamOptions => {
                self.include_usage |= serde_json::from_str::<StreamOptions>(json).is_ok_and(|options| options.include_usage);
            }
            Term::Generation => match serde_json::from_str::<Generation<'_>>(json) {
                Ok(config) => {
                    if let Some(most) = config.max_output_tokens {
                        self.max_generated.note(most.get());
                    }
                    if let Some(answers) = config.candidate_count {
                        self.note_answers(answers.get());
                    }
                }
                // A field stands there twice, or it is no object.
                Err(_) => {
                    self.max_generated = Limit::Open;
                    self.answers = Some(MOST_ANSWERS);
                }
            },
        }
    }

    fn note_answers(&mut self, json: &str) {
        let count = if json == "null" { None } else { Some(count(json).unwrap_or(MOST_ANSWERS).min(MOST_ANSWERS)) };
        self.answers = self.answers.max(count);
    }
}

/// How many prompts a `prompt` is: an array may hold several, or the tokens of one.
fn prompts(json: &str) -> u64 {
    let is_one = |first: Option<char>| first.is_none_or(|first| first.is_ascii_digit() || first == '-' || first == ']');
    match json.strip_prefix('[') {
        Some(rest) if !is_one(rest.trim_start().chars().next()) => {
            serde_json::from_str::<Vec<IgnoredAny>>(json).map_or(1, |prompts| prompts.len() as u64)
        }
        _ => 1,
    }
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Generation<'a> {
    #[serde(borrow, alias = "max_output_tokens")]
    max_output_tokens: Option<&'a RawValue>,
    #[serde(borrow, alias = "candidate_count")]
    candidate_count: Option<&'a RawValue>,
}

/// A whole number, also one that was written as `1e3` or `"1000"`, as Gemini's readers take it.
fn count(json: &str) -> Option<u64> {
    let text = json.trim_matches('"');
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok().filter(|number| *number >= 0.0)?;
        // Saturates: more than any model gives.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is not negative, and saturates")]
        Some(number.ceil() as u64)
    })
}

fn tier(word: &str) -> Option<Tier> {
    Some(match word {
        "" => return None,
        "auto" | "default" | "standard" | "standard_only" => Tier::Standard,
        "flex" => Tier::Flex,
        "batch" => Tier::Batch,
        "scale" => Tier::Scale,
        "ultrafast" => Tier::Ultrafast,
        _ => Tier::Priority,
    })
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes: half of a surrogate pair is a key like any other in the readers of some providers, and no text here.
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E: Error>(self, key: &[u8]) -> Result<Key, E> {
        Ok(match key {
            b"model" => Key::Model,
            b"stream" => Key::Stream,
            _ if key.eq_ignore_ascii_case(b"model") => Key::FoldedModel,
            _ => Term::named(key).map_or(Key::Other, Key::Term),
        })
    }
}

enum Value {
    Text(String),
    Bool(bool),
    Null,
    Other,
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn asked(model: Option<&str>, stream: Option<bool>) -> Result<Asked, Unreadable> {
        Ok(Asked { model: model.map(str::to_owned), stream, terms: Terms::default() })
    }

    #[test]
    fn the_two_fields_are_found() {
        for (body, expected) in [
            (r#"{}"#, asked(None, None)),
            (r#"{"model":"a","stream":true}"#, asked(Some("a"), Some(true))),
            (r#" { "stream" : false , "model" : "a" } "#, asked(Some("a"), Some(false))),
            (r#"{"messages":[{"model":"no","stream":1,"x":"}\""}],"model":"a"}"#, asked(Some("a"), None)),
            (r#"{"mod\u0065l":"\u0061\/\ud83d\ude00"}"#, asked(Some("a/😀"), None)),
            (r#"{"model":null,"stream":null}"#, asked(None, None)),
            (r#"{"Model":"a","STREAM":3}"#, asked(None, None)),
            (r#"{"\ud800":1,"model":"a","\udc00":{"\ud800":"\udfff"}}"#, asked(Some("a"), None)),
        ] {
            assert_eq!(scan(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (body, why) in [
            ("", Unreadable::NotAnObject),
            ("[]", Unreadable::NotAnObject),
            ("\"model\"", Unreadable::NotAnObject),
            (r#"{"model":"a""#, Unreadable::NotAnObject),
            (r#"{"model":"a"}{}"#, Unreadable::NotAnObject),
            (r#"{"model":"a","x":[}"#, Unreadable::NotAnObject),
            (r#"{"model":"\ud800"}"#, Unreadable::NotAnObject),
            (r#"{"model":"a","x":1,"model":"a"}"#, Unreadable::Duplicate("model")),
            (r#"{"model":"a","mod\u0065l":"b"}"#, Unreadable::Duplicate("model")),
            (r#"{"stream":true,"model":"a","stream":true}"#, Unreadable::Duplicate("stream")),
            (r#"{"model":"cheap","Model":"dear"}"#, Unreadable::Duplicate("model")),
            (r#"{"MODEL":"dear","model":"cheap"}"#, Unreadable::Duplicate("model")),
            (r#"{"model":["a"]}"#, Unreadable::ModelType),
            (r#"{"model":{"a":{}}}"#, Unreadable::ModelType),
            (r#"{"model":1.5}"#, Unreadable::ModelType),
            (r#"{"stream":"true"}"#, Unreadable::StreamType),
            (r#"{"stream":-1}"#, Unreadable::StreamType),
        ] {
            assert_eq!(scan(body.as_bytes()), Err(why), "{body}");
        }
        let deep = format!("{{\"x\":{}{},\"model\":\"a\"}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(scan(deep.as_bytes()), asked(Some("a"), None));
    }

    #[test]
    fn what_bounds_an_answer_is_found_in_the_endpoints_own_words() {
        use Endpoint as E;
        for (endpoint, body, most, answers) in [
            (E::OpenaiChat, r#"{"max_tokens":10}"#, Some(10), 1),
            (E::OpenaiChat, r#"{"max_tokens":10,"max_completion_tokens":20,"n":3}"#, Some(20), 3),
            (E::OpenaiChat, r#"{"max_tokens":null,"max_completion_tokens":20,"n":null}"#, Some(20), 1),
            (E::OpenaiChat, r#"{"max_output_tokens":10,"generationConfig":{"maxOutputTokens":1}}"#, None, 1),
            (E::OpenaiResponses, r#"{"max_output_tokens":1e3,"max_tokens":1}"#, Some(1000), 1),
            (E::AnthropicMessages, r#"{"max_tokens":1e400}"#, Some(u64::MAX), 1),
            // Readers differ on which of two counts, and on what these mean: so nothing is limited.
            (E::OpenaiChat, r#"{"max_tokens":1,"max_tokens":null}"#, None, 1),
            (E::OpenaiChat, r#"{"max_tokens":null,"max_tokens":1}"#, None, 1),
            (E::OpenaiChat, r#"{"max_tokens":0}"#, None, 1),
            (E::OpenaiChat, r#"{"max_tokens":-1,"n":"x"}"#, None, 128),
            (E::OpenaiChat, r#"{"n":1e9}"#, None, 128),
            (E::OpenaiCompletions, r#"{"prompt":["a","b","c"],"best_of":2,"max_tokens":5}"#, Some(5), 6),
            (E::OpenaiCompletions, r#"{"prompt":[1,2,3]}"#, None, 1),
            (E::OpenaiCompletions, r#"{"prompt":[[1,2],[3]]}"#, None, 2),
            (E::OpenaiCompletions, r#"{"prompt":"[["}"#, None, 1),
            (E::GeminiGenerate, r#"{"generationConfig":{"maxOutputTokens":"64","candidateCount":2,"x":[1e400]}}"#, Some(64), 2),
            (E::GeminiGenerate, r#"{"generation_config":{"max_output_tokens":7}}"#, Some(7), 1),
            (E::GeminiGenerate, r#"{"generationConfig":{"candidateCount":1,"candidateCount":8}}"#, None, 128),
            (E::GeminiGenerate, r#"{"generationConfig":3,"max_tokens":1}"#, None, 128),
        ] {
            let terms = scan(body.as_bytes()).unwrap().terms;
            assert_eq!((terms.max_output(endpoint), terms.answers()), (most, answers), "{body}");
        }
    }

    #[test]
    fn the_class_of_service_is_found() {
        let plain = Terms::default();
        for (body, expected) in [
            (r#"{"service_tier":7,"speed":{},"background":1}"#, plain),
            (r#"{"service_tier":"flex"}"#, Terms { tier: Some(Tier::Flex), ..plain }),
            (r#"{"service_tier":"fast"}"#, Terms { tier: Some(Tier::Priority), ..plain }),
            (r#"{"speed":"\u0066ast","inference_geo":"us"}"#, Terms { fast: true, us_only: true, ..plain }),
            (r#"{"stream_options":{"include_usage":true,"x":1}}"#, Terms { include_usage: true, ..plain }),
            (r#"{"stream_options":{"include_usage":false}}"#, plain),
            (r#"{"stream_options":null}"#, plain),
            (r#"{"background":true}"#, Terms { background: true, ..plain }),
        ] {
            assert_eq!(scan(body.as_bytes()).unwrap().terms, expected, "{body}");
        }
    }

    #[test]
    fn what_is_odd_elsewhere_is_not_ours_to_judge() {
        for body in [
            r#"{"model":"a","x":1,"x":2}"#,
            r#"{"model":"a","x":1e400,"y":[-0.0,1E+999,123456789012345678901234567890]}"#,
            r#"{"model":"a","x":"\ud800","y":{"\udfff":"\u0000"}}"#,
            "\n\t {\r\n \"model\" :\t\"a\" } \n",
        ] {
            assert_eq!(scan(body.as_bytes()).map(|asked| asked.model), Ok(Some("a".into())), "{body}");
        }
    }

    /// Any JSON value, three levels deep, with keys that resemble the two.
    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(|b| json!(b)),
            any::<i64>().prop_map(|n| json!(n)),
            "\\PC{0,8}".prop_map(|s| json!(s)),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(|v| json!(v)),
                prop::collection::vec((any_key(), inner), 0..6).prop_map(|v| v.into_iter().collect()),
            ]
        })
    }

    fn any_key() -> impl Strategy<Value = String> {
        prop_oneof![Just("model".to_owned()), Just("stream".to_owned()), "\\PC{0,6}"]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_parser_that_builds_the_tree(value in any_json()) {
            let got = scan(&serde_json::to_vec(&value).unwrap());
            let field = |name: &str| value.get(name).filter(|v| !v.is_null());
            let expected = if !value.is_object() {
                Err(Unreadable::NotAnObject)
            } else if field("model").is_some_and(|v| !v.is_string()) {
                Err(Unreadable::ModelType)
            } else if field("stream").is_some_and(|v| !v.is_boolean()) {
                Err(Unreadable::StreamType)
            } else {
                asked(field("model").and_then(|v| v.as_str()), field("stream").and_then(|v| v.as_bool()))
            };
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), cut in 0_usize..64) {
            let _ = scan(&bytes);
            let body = br#"{"messages":[{"role":"user","content":"\ud83d\ude00"}],"model":"local/a:1","stream":true}"#;
            let cut = cut.min(body.len() - 1);
            prop_assert_eq!(scan(&body[..cut]), Err(Unreadable::NotAnObject));
        }
    }
}
