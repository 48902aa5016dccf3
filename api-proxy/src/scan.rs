//! The two fields of a body that decide where it goes and how its answer looks.
//!
//! The body is walked once from end to end and nothing of it is kept but `model` and `stream`: no tree is built. It is walked to
//! the end because readers differ on which of two equal keys counts; a body that says `model` twice would be routed by one and
//! run by the other, so it is refused. The walk's own errors are thrown away: their texts may quote the body.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// What a body asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `model`; `None` when absent or null.
    pub(crate) model: Option<String>,
    /// `stream`; `None` when absent or null.
    pub(crate) stream: Option<bool>,
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

/// Reads `model` and `stream` at the top level of a JSON object.
pub(crate) fn scan(body: &[u8]) -> Result<Asked, Unreadable> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let seen = Seen::deserialize(&mut json).map_err(|_| Unreadable::NotAnObject)?;
    json.end().map_err(|_| Unreadable::NotAnObject)?;
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
    Ok(Asked { model, stream })
}

#[derive(Default)]
struct Seen {
    model: Option<Value>,
    stream: Option<Value>,
    duplicate: Option<&'static str>,
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
    Stream,
    Other,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            "model" => Key::Model,
            "stream" => Key::Stream,
            _ => Key::Other,
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
        Ok(Asked { model: model.map(str::to_owned), stream })
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
