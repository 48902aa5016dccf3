//! The Go structs that bodies are read into: Ollama's errors quote their names, and a value of the wrong type is refused
//! before anything else is looked at.

use serde_json::Value;

use super::json::Fields;

/// A Go struct, as far as the fake checks it.
#[derive(Debug)]
pub(super) struct Shape {
    package: &'static str,
    name: &'static str,
    /// Its fields by their lower-case names; what is not listed may be anything.
    fields: &'static [(&'static str, Kind)],
}

/// What a field takes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Flag,
    Whole,
    Number,
    /// A number of single precision, in the error's words.
    Single,
    Map,
    /// An array of that type, of objects of that type.
    List(&'static str, &'static str),
    /// Ollama's own duration, which has an error of its own.
    Lifetime,
}

use Kind::{Flag, Lifetime, List, Map, Number, Single, Text, Whole};

/// `/api/chat`
pub(super) const CHAT: Shape = Shape {
    package: "api",
    name: "ChatRequest",
    fields: &[
        ("model", Text),
        ("messages", List("[]api.Message", "api.Alias")),
        ("stream", Flag),
        ("keep_alive", Lifetime),
        ("tools", List("api.Tools", "api.Tool")),
        ("options", Map),
        ("truncate", Flag),
        ("shift", Flag),
        ("logprobs", Flag),
        ("top_logprobs", Whole),
    ],
};

/// `/api/generate`
pub(super) const GENERATE: Shape = Shape {
    package: "api",
    name: "GenerateRequest",
    fields: &[
        ("model", Text),
        ("prompt", Text),
        ("suffix", Text),
        ("system", Text),
        ("template", Text),
        ("stream", Flag),
        ("raw", Flag),
        ("keep_alive", Lifetime),
        ("options", Map),
        ("truncate", Flag),
        ("shift", Flag),
        ("logprobs", Flag),
        ("top_logprobs", Whole),
    ],
};

/// `/v1/chat/completions`
pub(super) const OPENAI_CHAT: Shape = Shape {
    package: "openai",
    name: "ChatCompletionRequest",
    fields: &[
        ("model", Text),
        ("messages", List("[]openai.Message", "openai.Message")),
        ("stream", Flag),
        ("max_tokens", Whole),
        ("seed", Whole),
        ("temperature", Number),
        ("frequency_penalty", Number),
        ("presence_penalty", Number),
        ("top_p", Number),
        ("tools", List("[]api.Tool", "api.Tool")),
        ("reasoning_effort", Text),
        ("logprobs", Flag),
        ("top_logprobs", Whole),
    ],
};

/// `/v1/completions`
pub(super) const OPENAI_COMPLETION: Shape = Shape {
    package: "openai",
    name: "CompletionRequest",
    fields: &[
        ("model", Text),
        ("prompt", Text),
        ("frequency_penalty", Single),
        ("max_tokens", Whole),
        ("presence_penalty", Single),
        ("seed", Whole),
        ("stream", Flag),
        ("temperature", Single),
        ("top_p", Single),
        ("suffix", Text),
        ("logprobs", Whole),
    ],
};

/// `/v1/responses`
pub(super) const RESPONSES: Shape = Shape {
    package: "openai",
    name: "ResponsesRequest",
    fields: &[
        ("model", Text),
        ("background", Flag),
        ("instructions", Text),
        ("max_output_tokens", Whole),
        ("temperature", Number),
        ("top_p", Number),
        ("truncation", Text),
        ("stream", Flag),
    ],
};

/// `/v1/messages`
pub(super) const MESSAGES: Shape = Shape {
    package: "anthropic",
    name: "MessagesRequest",
    fields: &[
        ("model", Text),
        ("max_tokens", Whole),
        (
            "messages",
            List(
                "[]anthropic.MessageParam",
                r#"struct { Role string "json:\"role\""; Content json.RawMessage "json:\"content\"" }"#,
            ),
        ),
        ("stream", Flag),
        ("temperature", Number),
        ("top_p", Number),
        ("top_k", Whole),
        ("tools", List("[]anthropic.Tool", "anthropic.Tool")),
    ],
};

/// `/api/embed`
pub(super) const EMBED: Shape = Shape {
    package: "api",
    name: "EmbedRequest",
    fields: &[("model", Text), ("keep_alive", Lifetime), ("truncate", Flag), ("dimensions", Whole), ("options", Map)],
};

/// `/api/embeddings`
pub(super) const OLD_EMBEDDINGS: Shape = Shape {
    package: "api",
    name: "EmbeddingRequest",
    fields: &[("model", Text), ("prompt", Text), ("keep_alive", Lifetime), ("options", Map)],
};

/// `/v1/embeddings`
pub(super) const OPENAI_EMBEDDINGS: Shape =
    Shape { package: "openai", name: "EmbedRequest", fields: &[("model", Text), ("dimensions", Whole), ("encoding_format", Text)] };

/// `/api/show`
pub(super) const SHOW: Shape = Shape {
    package: "api",
    name: "ShowRequest",
    fields: &[("model", Text), ("name", Text), ("system", Text), ("template", Text), ("verbose", Flag), ("options", Map)],
};

/// `/api/pull`
pub(super) const PULL: Shape =
    Shape { package: "api", name: "PullRequest", fields: &[("model", Text), ("name", Text), ("insecure", Flag), ("stream", Flag)] };

/// `/api/delete`
pub(super) const DELETE: Shape = Shape { package: "api", name: "DeleteRequest", fields: &[("model", Text), ("name", Text)] };

impl Shape {
    /// What Go's decoder says of a body that is no object.
    pub(super) fn no_object(&self, body: &Value) -> String {
        format!("json: cannot unmarshal {} into Go value of type {}.{}", found(body), self.package, self.name)
    }

    /// What Go's decoder says of the first value that is not of its field's type.
    pub(super) fn check(&self, fields: &Fields) -> Result<(), String> {
        for (name, value) in fields.in_order() {
            let Some((name, kind)) = self.fields.iter().find(|(known, _)| *known == name) else { continue };
            if let Some(misfit) = kind.misses(value)? {
                let (found, place) = (found(misfit.value), format!("{}.{name}", self.name));
                return Err(format!("json: cannot unmarshal {found} into Go struct field {place} of type {}", misfit.kind));
            }
        }
        Ok(())
    }
}

/// A value that is not of the type of its place.
struct Misfit<'a> {
    value: &'a Value,
    kind: &'static str,
}

impl Kind {
    /// What does not fit here, if something does not. An explicit `null` fits everywhere.
    fn misses(self, value: &Value) -> Result<Option<Misfit<'_>>, String> {
        let fits = match self {
            Text => value.is_string(),
            Flag => value.is_boolean(),
            Whole => value.is_i64() || value.is_u64(),
            Number | Single => value.is_number(),
            Map => value.is_object(),
            List(_, item) => match value.as_array() {
                Some(items) => {
                    let odd = items.iter().find(|item| !item.is_object() && !item.is_null());
                    return Ok(odd.map(|value| Misfit { value, kind: item }));
                }
                None => false,
            },
            Lifetime => match value {
                Value::Bool(_) => return Err("Unsupported type: 'bool'".to_owned()),
                Value::Array(_) => return Err("Unsupported type: '[]interface {}'".to_owned()),
                Value::Object(_) => return Err("Unsupported type: 'map[string]interface {}'".to_owned()),
                _ => true,
            },
        };
        let kind = match self {
            Text => "string",
            Flag => "bool",
            Whole => "int",
            Number => "float64",
            Single => "float32",
            Map => "map[string]interface {}",
            List(list, _) => list,
            Lifetime => "api.Duration",
        };
        Ok((!fits && !value.is_null()).then_some(Misfit { value, kind }))
    }
}

/// What Go's decoder calls a value.
fn found(value: &Value) -> String {
    match value {
        Value::String(_) => "string".to_owned(),
        Value::Number(number) if number.is_f64() => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
        Value::Null => "null".to_owned(),
    }
}

/// What Ollama says of the first option that is not of its type; options that it does not know are not looked at.
pub(super) fn check_options(options: Option<&Value>) -> Result<(), String> {
    for (name, value) in options.and_then(Value::as_object).into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        let (fits, wanted) = match name.as_str() {
            "num_ctx" | "num_batch" | "num_gpu" | "main_gpu" | "num_thread" | "draft_num_predict" | "num_keep" | "seed"
            | "num_predict" | "top_k" | "repeat_last_n" => (value.is_number(), "type integer"),
            "top_p" | "min_p" | "typical_p" | "temperature" | "repeat_penalty" | "presence_penalty" | "frequency_penalty" => {
                (value.is_number(), "type float32")
            }
            "use_mmap" => (value.is_boolean(), "type boolean"),
            "stop" => match value.as_array() {
                Some(words) => (words.iter().all(Value::is_string), "an array of strings"),
                None => (false, "type array"),
            },
            _ => continue,
        };
        if !fits {
            return Err(format!("option {name:?} must be of {wanted}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(shape: &Shape, body: &str) -> String {
        shape.check(&Fields::parse(body.as_bytes(), shape).unwrap()).unwrap_err()
    }

    #[test]
    fn the_first_value_of_a_wrong_type_is_named_as_go_names_it() {
        for (shape, body, text) in [
            (&CHAT, r#"{"messages":3,"model":3}"#, "number into Go struct field ChatRequest.messages of type []api.Message"),
            (&CHAT, r#"{"messages":[{},3]}"#, "number into Go struct field ChatRequest.messages of type api.Alias"),
            (&CHAT, r#"{"Options":[]}"#, "array into Go struct field ChatRequest.options of type map[string]interface {}"),
            (&OPENAI_CHAT, r#"{"max_tokens":1.5}"#, "number 1.5 into Go struct field ChatCompletionRequest.max_tokens of type int"),
            (&MESSAGES, r#"{"stream":"no"}"#, "string into Go struct field MessagesRequest.stream of type bool"),
        ] {
            assert_eq!(refused(shape, body), format!("json: cannot unmarshal {text}"));
        }
        assert_eq!(refused(&EMBED, r#"{"keep_alive":[1]}"#), "Unsupported type: '[]interface {}'");
        assert_eq!(CHAT.check(&Fields::parse(br#"{"model":null,"unknown":3}"#, &CHAT).unwrap()), Ok(()));
        assert_eq!(SHOW.no_object(&json!([])), "json: cannot unmarshal array into Go value of type api.ShowRequest");
    }

    #[test]
    fn options_have_types() {
        let refused = |options: Value| check_options(Some(&options)).unwrap_err();
        assert_eq!(refused(json!({"unknown": 1, "num_ctx": "x"})), "option \"num_ctx\" must be of type integer");
        assert_eq!(refused(json!({"temperature": true})), "option \"temperature\" must be of type float32");
        assert_eq!(refused(json!({"stop": "x"})), "option \"stop\" must be of type array");
        assert_eq!(refused(json!({"stop": [1]})), "option \"stop\" must be of an array of strings");
        assert_eq!(check_options(Some(&json!({"num_ctx": 4096.0, "seed": null, "use_mmap": true}))), Ok(()));
    }
}
