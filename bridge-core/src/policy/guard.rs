//! What of a request's body reaches Ollama.
//!
//! The body comes over the link and is not trusted. Go's JSON decoder, which will read it, takes a field in any case and the last
//! of several, so two parsers can read two different models in one body. That is why the bytes that came are never passed on: the
//! body is taken apart into its fields, each name may stand there once and in one spelling, what the owner limits is limited, and
//! the result is written anew. Values that no limit concerns (messages, images, schemas) keep their exact bytes and order.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;
use wire::{
    LocalModel, ModelName,
    relay::{Dialect, MAX_BODY, Operation, Refusal, RefusalCode},
};

use super::Policy;

/// How deep arrays and objects may stand in each other. Schemas and tool calls of real callers stay below 20.
const MAX_DEPTH: usize = 64;
/// How many fields one guarded object may have: ten times what any operation knows, and few enough to compare each with each.
const MAX_FIELDS: usize = 256;
/// The longest name of a field, in bytes.
const MAX_FIELD_NAME: usize = 256;
/// How many tools a request may name.
const MAX_TOOLS: usize = 4096;
/// How deep tools may be grouped in `namespace` tools.
const MAX_NAMESPACES: usize = 4;

/// A model on this workstation, as far as the guard needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownModel {
    /// It runs here.
    Local,
    /// Its entry only points to another computer (`remote_host` in `/api/tags`).
    Remote,
}

/// A request that Ollama may be given.
#[derive(PartialEq, Eq)]
pub struct Guarded {
    /// Which model.
    pub model: ModelName,
    /// The body for Ollama.
    pub body: Bytes,
    /// Whether Ollama's answer will be a stream.
    pub streamed: bool,
    /// Whether the caller asked for the frame of usage that the guard always asks for on OpenAI's streams. `true` for every other
    /// request: nothing is asked for that would have to be taken out again.
    pub caller_wants_usage: bool,
}

/// Checks a request against the owner's policy and writes the body that Ollama gets.
///
/// The work is linear in the length of the body.
///
/// # Errors
/// With the bridge's own answer to the caller. It names fields of Ollama's API and never anything of the caller's.
pub fn guard(
    policy: &Policy,
    operation: Operation,
    body: &[u8],
    known: impl Fn(&ModelName) -> Option<KnownModel>,
) -> Result<Guarded, Refusal> {
    if !policy.operations.contains(&operation) {
        return Err(Refusal::new(
            RefusalCode::OperationNotShared,
            format!("the owner of this workstation does not share {operation}; use another operation or ask the owner"),
        ));
    }
    if body.len() > MAX_BODY {
        return Err(Refusal::new(
            RefusalCode::TooLarge,
            format!("the body is larger than {} MiB; send fewer or smaller images", MAX_BODY >> 20),
        ));
    }
    check_depth(body)?;
    let mut fields = Fields::parse(body, FIELDS).ok_or_else(|| {
        invalid(
            "the body is not a JSON object whose fields each stand there once, spelled as in Ollama's documentation; correct it",
        )
    })?;
    let model = model(policy, operation, &mut fields, known)?;
    refuse_ungranted(&mut fields)?;
    let streamed = can_stream(operation) && flag(&fields, "stream")?.unwrap_or(operation.streams_by_default());
    let caller_wants_usage = match operation {
        Operation::OllamaChat | Operation::OllamaGenerate => {
            limit_options(policy, &mut fields, Answer::Long)?;
            limit_keep_alive(policy, &mut fields)?;
            true
        }
        Operation::OllamaEmbed | Operation::OllamaShow => {
            limit_options(policy, &mut fields, Answer::None)?;
            limit_keep_alive(policy, &mut fields)?;
            true
        }
        Operation::OpenaiChat | Operation::OpenaiCompletions => {
            // Ollama reads `max_tokens` alone; the other spelling is limited for the version that will read it too.
            limit_tokens(&mut fields, "max_tokens", policy.num_predict, Unlimited::Limit)?;
            if fields.get("max_completion_tokens").is_some() {
                limit_tokens(&mut fields, "max_completion_tokens", policy.num_predict, Unlimited::Limit)?;
            }
            if streamed { ask_for_usage(&mut fields)? } else { true }
        }
        Operation::OpenaiResponses => {
            limit_tokens(&mut fields, "max_output_tokens", policy.num_predict, Unlimited::Echoed)?;
            remove_web_search(&mut fields, MAX_NAMESPACES)?;
            true
        }
        Operation::AnthropicMessages => {
            limit_tokens(&mut fields, "max_tokens", policy.num_predict, Unlimited::Refused)?;
            remove_web_search(&mut fields, MAX_NAMESPACES)?;
            true
        }
        Operation::OpenaiEmbeddings => true,
    };
    Ok(Guarded { model, body: fields.write(body.len()).into(), streamed, caller_wants_usage })
}

/// Every field of every operation at the top of a body. A name that Go would take for one of these is refused.
const FIELDS: &[&str] = &[
    "model",
    "name",
    "stream",
    "options",
    "keep_alive",
    "messages",
    "prompt",
    "suffix",
    "system",
    "template",
    "context",
    "raw",
    "format",
    "images",
    "tools",
    "think",
    "truncate",
    "shift",
    "logprobs",
    "top_logprobs",
    "_debug_render_only",
    "input",
    "dimensions",
    "encoding_format",
    "verbose",
    "remote_host",
    "insecure",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "seed",
    "stop",
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "response_format",
    "reasoning",
    "reasoning_effort",
    "instructions",
    "conversation",
    "background",
    "include",
    "text",
    "truncation",
    "stop_sequences",
    "tool_choice",
    "thinking",
    "metadata",
    "output_config",
    "width",
    "height",
    "steps",
];

/// Fields of `options` that decide how a model is loaded: changing one reloads it for everybody. Taken out, never refused, because
/// callers send them by habit.
const LOAD_OPTIONS: [&str; 6] = ["num_gpu", "main_gpu", "num_thread", "num_batch", "use_mmap", "draft_num_predict"];

/// Every field of `options`.
const OPTIONS: &[&str] = &[
    "num_ctx",
    "num_predict",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "num_batch",
    "use_mmap",
    "draft_num_predict",
    "num_keep",
    "seed",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_last_n",
    "temperature",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "stop",
];

fn model(
    policy: &Policy,
    operation: Operation,
    fields: &mut Fields<'_>,
    known: impl Fn(&ModelName) -> Option<KnownModel>,
) -> Result<ModelName, Refusal> {
    if operation.dialect() == Dialect::Ollama && fields.get("name").is_some() {
        // The old spelling. Where Ollama reads it, it stands in for an absent or empty `model`.
        if operation != Operation::OllamaShow || fields.get("model").is_some() {
            return Err(not_allowed("name"));
        }
        fields.rename("name", "model");
    }
    let text = fields
        .get("model")
        .and_then(|raw| serde_json::from_str::<String>(raw).ok())
        .ok_or_else(|| invalid("the field `model` must be the name of a model; add it"))?;
    let spelled = match LocalModel::parse(&text) {
        // Both spellings of the prefix end at the first slash.
        Some(Ok(_)) => text.split_once('/').map_or(text.as_str(), |(_, model)| model),
        Some(Err(why)) => return Err(invalid(format!("{why}; correct the field `model`"))),
        None => text.as_str(),
    };
    let model: ModelName = spelled.parse().map_err(|why| invalid(format!("{why}; correct the field `model`")))?;
    if model.is_cloud() {
        return Err(not_local());
    }
    if !policy.shares(&model) {
        return Err(not_shared());
    }
    match known(&model) {
        Some(KnownModel::Local) => {}
        Some(KnownModel::Remote) => return Err(not_local()),
        None => return Err(not_shared()),
    }
    // The characters of a model's name need no escapes.
    fields.set("model", format!("\"{spelled}\""));
    Ok(model)
}

/// Refuses what would show the owner's prompts, replace the owner's templates or reach another computer. Spelled out as "off", such
/// a field says nothing and is taken out: clients write down their defaults.
fn refuse_ungranted(fields: &mut Fields<'_>) -> Result<(), Refusal> {
    for name in ["_debug_render_only", "template", "raw", "remote_host", "insecure"] {
        match fields.get(name) {
            None => {}
            Some("null" | "false" | "\"\"") => fields.remove(name),
            Some(_) => return Err(not_allowed(name)),
        }
    }
    Ok(())
}

const fn can_stream(operation: Operation) -> bool {
    !matches!(operation, Operation::OllamaEmbed | Operation::OllamaShow | Operation::OpenaiEmbeddings)
}

/// Whether an operation makes text whose length has to be limited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Long,
    None,
}

fn limit_options(policy: &Policy, fields: &mut Fields<'_>, answer: Answer) -> Result<(), Refusal> {
    let raw = match fields.get("options") {
        None | Some("null") if answer == Answer::None => return Ok(()),
        None | Some("null") => "{}",
        Some(raw) => raw,
    };
    let mut options = Fields::parse(raw.as_bytes(), OPTIONS)
        .ok_or_else(|| invalid("the field `options` must be an object whose fields each stand there once; correct it"))?;
    for name in LOAD_OPTIONS {
        options.remove(name);
    }
    if let Some(asked) = whole_number(&options, "num_ctx")?
        && asked > i64::from(policy.num_ctx)
    {
        options.set("num_ctx", policy.num_ctx.to_string());
    }
    match answer {
        Answer::Long => limit_tokens(&mut options, "num_predict", policy.num_predict, Unlimited::Limit)?,
        Answer::None => {}
    }
    let written = options.write_text(raw.len());
    fields.set("options", written);
    Ok(())
}

/// What Ollama makes of a limit that is absent, zero or negative.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unlimited {
    /// It means "as long as you like": such a limit becomes the owner's.
    Limit,
    /// Ollama refuses it, in its own words: left as it is.
    Refused,
    /// Ollama repeats the field in its answer, which is to be what a direct call gets. The limit on time holds all the same.
    Echoed,
}

fn limit_tokens(fields: &mut Fields<'_>, name: &'static str, ceiling: u32, unlimited: Unlimited) -> Result<(), Refusal> {
    let is_beyond = match whole_number(fields, name)? {
        None => unlimited == Unlimited::Limit,
        Some(asked) => asked > i64::from(ceiling) || (asked <= 0 && unlimited == Unlimited::Limit),
    };
    if is_beyond {
        fields.set(name, ceiling.to_string());
    }
    Ok(())
}

fn limit_keep_alive(policy: &Policy, fields: &mut Fields<'_>) -> Result<(), Refusal> {
    let seconds = match fields.get("keep_alive") {
        None | Some("null") => return Ok(()),
        Some(raw) => keep_alive_seconds(raw),
    };
    let seconds = seconds.ok_or_else(|| {
        invalid("the field `keep_alive` must be a number of seconds or a duration such as \"5m\"; correct it or leave it out")
    })?;
    if seconds < 0.0 || seconds > Duration::from_secs(policy.keep_alive_s).as_secs_f64() {
        fields.set("keep_alive", policy.keep_alive_s.to_string());
    }
    Ok(())
}

/// A number of seconds, or a duration as Go writes it. Negative means for ever.
fn keep_alive_seconds(raw: &str) -> Option<f64> {
    if !raw.starts_with('"') {
        return serde_json::from_str::<f64>(raw).ok();
    }
    let text: String = serde_json::from_str(raw).ok()?;
    // "-1" has no unit and is no duration of Go's; people write it for "for ever".
    let is_negative_number = || text.strip_prefix('-').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    go_duration_seconds(&text).or_else(|| is_negative_number().then_some(-1.0))
}

/// Go's `time.ParseDuration`.
fn go_duration_seconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number_len = rest.bytes().position(|b| !b.is_ascii_digit() && b != b'.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_len);
        let unit_len = after.bytes().position(|b| b.is_ascii_digit() || b == b'.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let unit_seconds = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        // Rust reads "5." and ".5" as Go does; a lone "." or two of them are neither's.
        seconds += number.parse::<f64>().ok()? * unit_seconds;
        rest = after;
    }
    Some(sign * seconds)
}

/// Asks Ollama for the frame of usage, and tells whether the caller had asked for it.
fn ask_for_usage(fields: &mut Fields<'_>) -> Result<bool, Refusal> {
    let raw = match fields.get("stream_options") {
        None | Some("null") => "{}",
        Some(raw) => raw,
    };
    let mut options = Fields::parse(raw.as_bytes(), &["include_usage"])
        .ok_or_else(|| invalid("the field `stream_options` must be an object whose fields each stand there once; correct it"))?;
    let asked = flag(&options, "include_usage")?.unwrap_or(false);
    options.set("include_usage", "true".to_owned());
    let written = options.write_text(raw.len());
    fields.set("stream_options", written);
    Ok(asked)
}

/// Takes out the tools for which Ollama itself would go to its own service.
fn remove_web_search(fields: &mut Fields<'_>, namespaces: usize) -> Result<(), Refusal> {
    let invalid_tools = || invalid("the field `tools` must be a list of tools with one `type` each; correct it");
    let raw = match fields.get("tools") {
        None | Some("null") => return Ok(()),
        Some(raw) => raw,
    };
    let tools: Elements<'_> = serde_json::from_str(raw).map_err(|_| invalid_tools())?;
    let mut kept = Vec::with_capacity(tools.0.len());
    let mut is_changed = false;
    for tool in &tools.0 {
        let mut tool_fields = Fields::parse(tool.get().as_bytes(), &["type", "tools"]).ok_or_else(invalid_tools)?;
        let kind = match tool_fields.get("type") {
            None | Some("null") => String::new(),
            Some(kind) => serde_json::from_str::<String>(kind).map_err(|_| invalid_tools())?,
        };
        if kind.trim().to_ascii_lowercase().starts_with("web_search") {
            is_changed = true;
        } else if tool_fields.get("tools").is_some_and(|inner| inner != "null") {
            // A `namespace` groups tools under one name.
            remove_web_search(&mut tool_fields, namespaces.checked_sub(1).ok_or_else(invalid_tools)?)?;
            kept.push(Cow::Owned(tool_fields.write_text(tool.get().len())));
            is_changed = true;
        } else {
            kept.push(Cow::Borrowed(tool.get()));
        }
    }
    if is_changed {
        let written = format!("[{}]", kept.join(","));
        fields.set("tools", written);
    }
    Ok(())
}

fn flag(fields: &Fields<'_>, name: &'static str) -> Result<Option<bool>, Refusal> {
    match fields.get(name) {
        None | Some("null") => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(invalid(format!("the field `{name}` must be true or false; correct it"))),
    }
}

/// A number as Ollama takes it for a count: cut to a whole one. Beyond `i64` it stays at its end.
fn whole_number(fields: &Fields<'_>, name: &'static str) -> Result<Option<i64>, Refusal> {
    let raw = match fields.get(name) {
        None | Some("null") => return Ok(None),
        Some(raw) => raw,
    };
    let number = serde_json::from_str::<i64>(raw).ok().or_else(|| {
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and both ends are beyond every limit")]
        serde_json::from_str::<f64>(raw).ok().map(|n| n as i64)
    });
    match number {
        Some(number) => Ok(Some(number)),
        // A float that f64 cannot hold is a number to the grammar and to nobody else.
        None => Err(invalid(format!("the field `{name}` must be a whole number; correct it"))),
    }
}

fn check_depth(body: &[u8]) -> Result<(), Refusal> {
    let mut depth = 0_usize;
    let mut rest = body.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = rest.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(rest.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(invalid(format!("the body nests deeper than {MAX_DEPTH} levels; make it flatter")));
        }
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::InvalidBody, message)
}

fn not_allowed(field: &'static str) -> Refusal {
    Refusal::new(
        RefusalCode::FieldNotAllowed,
        format!("the owner of this workstation does not allow the field `{field}`; leave it out"),
    )
}

/// One sentence for a model that is not there and for one that is not shared: a caller cannot learn which.
fn not_shared() -> Refusal {
    Refusal::new(
        RefusalCode::ModelNotShared,
        "this workstation shares no model of that name; list the models to see which ones it shares",
    )
}

fn not_local() -> Refusal {
    Refusal::new(
        RefusalCode::ModelNotLocal,
        "this model would run on somebody else's computer and not on the workstation; choose a local model",
    )
}

/// The fields of one object in their order: what came, and what was written in its place.
struct Fields<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

enum Value<'a> {
    Came(&'a str),
    Written(String),
}

impl Value<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Came(text) => text,
            Self::Written(text) => text,
        }
    }
}

impl<'a> Fields<'a> {
    /// `None` when it is no object, when a name stands there twice, or when one would be taken for another of `known` by a decoder
    /// that ignores case.
    fn parse(json: &'a [u8], known: &[&str]) -> Option<Self> {
        let Members(members) = serde_json::from_slice(json).ok()?;
        let mut fields = Self(Vec::with_capacity(members.len() + 2));
        for (name, value) in members {
            let is_twice = fields.0.iter().any(|(earlier, _)| *earlier == name);
            let is_variant = known.iter().any(|known| name != *known && is_same_to_go(&name, known));
            if is_twice || is_variant {
                return None;
            }
            fields.0.push((name, Value::Came(value.get())));
        }
        Some(fields)
    }

    /// The JSON text of a field.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.text())
    }

    /// Writes a field in its place, or at the end.
    fn set(&mut self, name: &'static str, json: String) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, value)) => *value = Value::Written(json),
            None => self.0.push((Cow::Borrowed(name), Value::Written(json))),
        }
    }

    fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    fn rename(&mut self, from: &str, to: &'static str) {
        for (name, _) in &mut self.0 {
            if name == from {
                *name = Cow::Borrowed(to);
            }
        }
    }

    fn write(&self, about: usize) -> Vec<u8> {
        self.write_text(about).into_bytes()
    }

    fn write_text(&self, about: usize) -> String {
        let mut text = String::with_capacity(about + 128);
        text.push('{');
        for (at, (name, value)) in self.0.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            // `Value`'s `Display` is the compact JSON of a string with its escapes.
            text.push_str(&serde_json::Value::from(name.as_ref()).to_string());
            text.push(':');
            text.push_str(value.text());
        }
        text.push('}');
        text
    }
}

/// Whether Go's `encoding/json` takes `name` for the field `known`, which is lower-case ASCII. Two characters outside ASCII fold to
/// one inside it: the long s and the Kelvin sign.
fn is_same_to_go(name: &str, known: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    name.chars().map(fold).eq(known.chars())
}

/// The members of an object, their values unread.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    if members.len() == MAX_FIELDS || name.len() > MAX_FIELD_NAME {
                        return Err(de::Error::custom("too many fields, or too long a name of one"));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Visitor)
    }
}

/// The elements of a list, unread.
struct Elements<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Elements<'de>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if elements.len() == MAX_TOOLS {
                        return Err(de::Error::custom("too many"));
                    }
                    elements.push(element);
                }
                Ok(Elements(elements))
            }
        }

        deserializer.deserialize_seq(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The inventory of the tests: `far` points elsewhere, `hidden` is denied, `absent` is not there.
    fn known(model: &ModelName) -> Option<KnownModel> {
        match model.as_str() {
            "m:latest" | "m:1b" | "hidden:latest" | "ns/m:latest" => Some(KnownModel::Local),
            "far:latest" => Some(KnownModel::Remote),
            _ => None,
        }
    }

    fn policy() -> Policy {
        let mut policy = Policy { num_ctx: 8192, num_predict: 1000, keep_alive_s: 600, ..Policy::default() };
        policy.deny("hidden".parse().unwrap());
        policy
    }

    fn run(operation: Operation, body: impl AsRef<[u8]>) -> Result<Guarded, Refusal> {
        guard(&policy(), operation, body.as_ref(), known)
    }

    fn passes(operation: Operation, body: &str, expected: &str) -> Guarded {
        let guarded = match run(operation, body) {
            Ok(guarded) => guarded,
            Err(refusal) => panic!("{operation} {body}: {refusal}"),
        };
        assert_eq!(std::str::from_utf8(&guarded.body).unwrap(), expected, "{operation} {body}");
        guarded
    }

    fn refuses(operation: Operation, body: impl AsRef<[u8]>, code: RefusalCode) -> String {
        let body = body.as_ref();
        match run(operation, body) {
            Ok(_) => panic!("{operation} passes {}", String::from_utf8_lossy(body)),
            Err(refusal) => {
                assert_eq!(refusal.code, code, "{operation} {}", String::from_utf8_lossy(body));
                refusal.message
            }
        }
    }

    use Operation::{
        AnthropicMessages, OllamaChat, OllamaEmbed, OllamaGenerate, OllamaShow, OpenaiChat, OpenaiCompletions, OpenaiEmbeddings,
        OpenaiResponses,
    };

    #[test]
    fn each_operation_gets_the_owners_limits() {
        for (operation, body, expected) in [
            (OllamaChat, r#"{"model":"m"}"#, r#"{"model":"m","options":{"num_predict":1000}}"#),
            (OllamaGenerate, r#"{"model":"m","options":null}"#, r#"{"model":"m","options":{"num_predict":1000}}"#),
            (OllamaEmbed, r#"{"model":"m","input":"x"}"#, r#"{"model":"m","input":"x"}"#),
            (OllamaEmbed, r#"{"model":"m","options":null}"#, r#"{"model":"m","options":null}"#),
            (OllamaEmbed, r#"{"model":"m","options":{"num_gpu":1,"num_ctx":9000}}"#, r#"{"model":"m","options":{"num_ctx":8192}}"#),
            (OllamaShow, r#"{"model":"m"}"#, r#"{"model":"m"}"#),
            (OpenaiChat, r#"{"model":"m"}"#, r#"{"model":"m","max_tokens":1000}"#),
            (
                OpenaiChat,
                r#"{"model":"m","max_completion_tokens":-1}"#,
                r#"{"model":"m","max_completion_tokens":1000,"max_tokens":1000}"#,
            ),
            (OpenaiCompletions, r#"{"model":"m","max_tokens":5000}"#, r#"{"model":"m","max_tokens":1000}"#),
            (OpenaiCompletions, r#"{"max_tokens":null,"model":"m"}"#, r#"{"max_tokens":1000,"model":"m"}"#),
            (OpenaiCompletions, r#"{"model":"m","max_tokens":0}"#, r#"{"model":"m","max_tokens":1000}"#),
            (OpenaiCompletions, r#"{"model":"m","max_tokens":7}"#, r#"{"model":"m","max_tokens":7}"#),
            (OpenaiEmbeddings, r#"{"model":"m","input":["x"]}"#, r#"{"model":"m","input":["x"]}"#),
            (OpenaiResponses, r#"{"model":"m","input":"x"}"#, r#"{"model":"m","input":"x"}"#),
            (OpenaiResponses, r#"{"model":"m","max_output_tokens":0}"#, r#"{"model":"m","max_output_tokens":0}"#),
            (OpenaiResponses, r#"{"model":"m","max_output_tokens":1001}"#, r#"{"model":"m","max_output_tokens":1000}"#),
            (AnthropicMessages, r#"{"model":"m","max_tokens":4096}"#, r#"{"model":"m","max_tokens":1000}"#),
            // Ollama refuses these in its own words.
            (AnthropicMessages, r#"{"model":"m","max_tokens":-1}"#, r#"{"model":"m","max_tokens":-1}"#),
            (AnthropicMessages, r#"{"model":"m"}"#, r#"{"model":"m"}"#),
        ] {
            passes(operation, body, expected);
        }
    }

    #[test]
    fn options_are_limited_and_load_options_taken_out() {
        let check = |options: &str, expected: &str| {
            passes(
                OllamaChat,
                &format!(r#"{{"options":{options},"model":"m"}}"#),
                &format!(r#"{{"options":{expected},"model":"m"}}"#),
            );
        };
        check(r#"{ "num_predict" : 10 , "seed" : 1 }"#, r#"{"num_predict":10,"seed":1}"#);
        check(r#"{"num_ctx":4096}"#, r#"{"num_ctx":4096,"num_predict":1000}"#);
        check(r#"{"num_ctx":8193,"num_predict":1001}"#, r#"{"num_ctx":8192,"num_predict":1000}"#);
        check(r#"{"num_ctx":1e9,"num_predict":1e300}"#, r#"{"num_ctx":8192,"num_predict":1000}"#);
        check(r#"{"num_ctx":99999999999999999999}"#, r#"{"num_ctx":8192,"num_predict":1000}"#);
        check(r#"{"num_ctx":4096.5,"num_predict":12.5}"#, r#"{"num_ctx":4096.5,"num_predict":12.5}"#);
        check(r#"{"num_predict":-1}"#, r#"{"num_predict":1000}"#);
        check(r#"{"num_predict":-2}"#, r#"{"num_predict":1000}"#);
        // Ollama leaves a zero out on its way to the runner, which takes that for no limit.
        check(r#"{"num_predict":0}"#, r#"{"num_predict":1000}"#);
        check(r#"{"num_predict":0.9}"#, r#"{"num_predict":1000}"#);
        check(r#"{"num_predict":null,"num_ctx":null}"#, r#"{"num_predict":1000,"num_ctx":null}"#);
        check(
            r#"{"num_gpu":0,"main_gpu":1,"num_thread":64,"num_batch":4096,"use_mmap":false,"draft_num_predict":9,"stop":["a b"]}"#,
            r#"{"stop":["a b"],"num_predict":1000}"#,
        );
        for options in [r#"{"num_ctx":"1"}"#, r#"{"num_predict":true}"#, r#"{"num_predict":[1]}"#, "[]", "1", r#""""#] {
            refuses(OllamaChat, format!(r#"{{"model":"m","options":{options}}}"#), RefusalCode::InvalidBody);
        }
    }

    #[test]
    fn keep_alive_is_never_for_ever() {
        for (asked, given) in [
            ("0", "0"),
            ("600", "600"),
            ("599.5", "599.5"),
            ("601", "600"),
            ("-1", "600"),
            ("-0.5", "600"),
            ("1e300", "600"),
            ("null", "null"),
            (r#""5m""#, r#""5m""#),
            (r#""10m""#, r#""10m""#),
            (r#""10m1ns""#, "600"),
            (r#""1h30m""#, "600"),
            (r#""300ms""#, r#""300ms""#),
            (r#""1.5m""#, r#""1.5m""#),
            (r#""0""#, r#""0""#),
            (r#""-0""#, r#""-0""#),
            (r#""+5m""#, r#""+5m""#),
            (r#""7us""#, r#""7us""#),
            ("\"7\u{b5}s\"", "\"7\u{b5}s\""),
            ("\"7\u{3bc}s\"", "\"7\u{3bc}s\""),
            (r#""-1""#, "600"),
            (r#""-5m""#, "600"),
            (r#""999999999999h""#, "600"),
            (r#""\u0035m""#, r#""\u0035m""#),
        ] {
            for operation in [OllamaGenerate, OllamaEmbed] {
                let body = format!(r#"{{"model":"m","keep_alive":{asked},"options":{{"num_predict":1}}}}"#);
                let expected = format!(r#"{{"model":"m","keep_alive":{given},"options":{{"num_predict":1}}}}"#);
                passes(operation, &body, &expected);
            }
        }
        for asked in ["true", "[]", "{}", r#""""#, r#""5""#, r#""m""#, r#""5x""#, r#""5m3""#, r#""1..5m""#, r#"".m""#, r#""--1""#] {
            refuses(OllamaChat, format!(r#"{{"model":"m","keep_alive":{asked}}}"#), RefusalCode::InvalidBody);
        }
    }

    #[test]
    fn the_models_name_is_checked_and_written_as_the_caller_spelled_it() {
        for (asked, given, model) in [
            ("m", "m", "m:latest"),
            ("m:latest", "m:latest", "m:latest"),
            ("local/m:1b", "m:1b", "m:1b"),
            ("local@box/m", "m", "m:latest"),
            ("local@box/ns/m", "ns/m", "ns/m:latest"),
            (r"\u006d", "m", "m:latest"),
        ] {
            let guarded = passes(OpenaiEmbeddings, &format!(r#"{{"model":"{asked}"}}"#), &format!(r#"{{"model":"{given}"}}"#));
            assert_eq!(guarded.model.as_str(), model);
        }
        for asked in ["absent", "hidden", "HIDDEN", "local/hidden", "library/hidden", "hidden:1b", "m:local"] {
            for operation in Operation::ALL {
                let message = refuses(operation, format!(r#"{{"model":"{asked}"}}"#), RefusalCode::ModelNotShared);
                assert_eq!(message, not_shared().message);
            }
        }
        for asked in ["m:cloud", "m:CLOUD", "m:20b-cloud", "local/m:cloud", "local@box/m:x-Cloud", "far", "hidden:cloud"] {
            for operation in Operation::ALL {
                refuses(operation, format!(r#"{{"model":"{asked}"}}"#), RefusalCode::ModelNotLocal);
            }
        }
        for value in ["null", "1", r#""""#, r#"" m""#, r#""m ""#, r#""local/""#, r#""local@/m""#, r#""../m""#, r#""\ud800""#, "[]"]
        {
            for operation in Operation::ALL {
                refuses(operation, format!(r#"{{"model":{value}}}"#), RefusalCode::InvalidBody);
            }
        }
        refuses(OllamaChat, "{}", RefusalCode::InvalidBody);
    }

    #[test]
    fn an_unshared_remote_model_is_not_given_away() {
        let mut policy = policy();
        policy.deny("far".parse().unwrap());
        let refusal = guard(&policy, OllamaChat, br#"{"model":"far"}"#, known).err().unwrap();
        assert_eq!(refusal, not_shared());
    }

    #[test]
    fn the_old_name_of_model_is_taken_where_ollama_takes_it() {
        passes(OllamaShow, r#"{"name":"local/m","verbose":true}"#, r#"{"model":"m","verbose":true}"#);
        refuses(OllamaShow, r#"{"name":"hidden"}"#, RefusalCode::ModelNotShared);
        refuses(OllamaShow, r#"{"name":"m","model":"m"}"#, RefusalCode::FieldNotAllowed);
        refuses(OllamaShow, r#"{"name":"m","model":""}"#, RefusalCode::FieldNotAllowed);
        for operation in [OllamaChat, OllamaGenerate, OllamaEmbed] {
            refuses(operation, r#"{"name":"m"}"#, RefusalCode::FieldNotAllowed);
        }
        passes(OpenaiEmbeddings, r#"{"model":"m","name":"x"}"#, r#"{"model":"m","name":"x"}"#);
    }

    #[test]
    fn what_go_would_read_twice_is_refused() {
        for body in [
            r#"{"model":"m","model":"m"}"#,
            r#"{"model":"m","MODEL":"x:cloud"}"#,
            r#"{"MODEL":"m"}"#,
            r#"{"model":"m","mod\u0065l":"x:cloud"}"#,
            r#"{"model":"m","Mod\u0065l":"x:cloud"}"#,
            r#"{"model":"m","prompt":"a","prompt":"b"}"#,
            r#"{"model":"m","x":1,"x":2}"#,
            "{\"model\":\"m\",\"option\u{17f}\":{\"num_predict\":-1}}",
            "{\"model\":\"m\",\"me\u{17f}\u{17f}ages\":[]}",
            "{\"model\":\"m\",\"\u{212a}eep_alive\":-1}",
            r#"{"model":"m","\u212aeep_alive":-1}"#,
            r#"{"model":"m","Raw":true}"#,
            r#"{"model":"m","_DEBUG_RENDER_ONLY":true}"#,
            r#"{"model":"m","options":{"num_ctx":1,"num_ctx":2}}"#,
            r#"{"model":"m","options":{"Num_Predict":-1}}"#,
            "{\"model\":\"m\",\"options\":{\"u\u{17f}e_mmap\":true}}",
        ] {
            refuses(OllamaChat, body, RefusalCode::InvalidBody);
        }
        for body in [
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
            r#"{"model":"m","stream":true,"stream_options":{"Include_Usage":true}}"#,
            r#"{"model":"m","stream":true,"stream_options":[]}"#,
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":1}}"#,
            r#"{"model":"m","stream":1}"#,
            r#"{"model":"m","Stream":true}"#,
            r#"{"model":"m","Max_Tokens":1}"#,
        ] {
            refuses(OpenaiChat, body, RefusalCode::InvalidBody);
        }
        for body in [
            r#"{"model":"m","tools":[{"type":"function","type":"web_search"}]}"#,
            r#"{"model":"m","tools":[{"type":"function","Type":"web_search"}]}"#,
            r#"{"model":"m","Tools":[{"type":"web_search"}]}"#,
            r#"{"model":"m","tools":{"type":"web_search"}}"#,
            r#"{"model":"m","tools":["web_search"]}"#,
            r#"{"model":"m","tools":[{"type":1}]}"#,
        ] {
            for operation in [OpenaiResponses, AnthropicMessages] {
                refuses(operation, body, RefusalCode::InvalidBody);
            }
        }
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for body in [
            "",
            " ",
            "null",
            "[]",
            "\"m\"",
            "1",
            "{",
            "{\"model\":\"m\"",
            "{\"model\":\"m\"}x",
            "{\"model\":\"m\"}{}",
            "\u{feff}{}",
        ] {
            refuses(OllamaChat, body, RefusalCode::InvalidBody);
        }
        refuses(OllamaChat, b"{\"model\":\"m\",\"prompt\":\"\xff\"}", RefusalCode::InvalidBody);
        refuses(OllamaChat, b"{\"model\":\"m\",\"\xff\":1}", RefusalCode::InvalidBody);
        passes(OpenaiEmbeddings, " {\n \"model\" : \"m\" } \n", r#"{"model":"m"}"#);
    }

    #[test]
    fn sizes_are_bounded() {
        let nested = |depth: usize| format!(r#"{{"model":"m","input":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(run(OpenaiEmbeddings, nested(64)).is_ok());
        refuses(OpenaiEmbeddings, nested(65), RefusalCode::InvalidBody);
        refuses(OpenaiEmbeddings, "[".repeat(1 << 20), RefusalCode::InvalidBody);
        let brackets_in_text = format!(r#"{{"model":"m","input":"\\\"{}"}}"#, "[".repeat(1000));
        passes(OpenaiEmbeddings, &brackets_in_text, &brackets_in_text);

        let fields = |count: usize| {
            let more: String = (1..count).map(|n| format!(",\"x{n}\":1")).collect();
            format!(r#"{{"model":"m"{more}}}"#)
        };
        assert!(run(OpenaiEmbeddings, fields(256)).is_ok());
        refuses(OpenaiEmbeddings, fields(257), RefusalCode::InvalidBody);
        refuses(OpenaiEmbeddings, format!(r#"{{"model":"m","{}":1}}"#, "x".repeat(257)), RefusalCode::InvalidBody);

        let long = |len: usize| format!(r#"{{"model":"m","input":"{}"}}"#, "x".repeat(len - 24));
        assert_eq!(long(MAX_BODY).len(), MAX_BODY);
        assert!(run(OpenaiEmbeddings, long(MAX_BODY)).is_ok());
        refuses(OpenaiEmbeddings, long(MAX_BODY + 1), RefusalCode::TooLarge);
    }

    #[test]
    fn fields_that_are_not_granted_are_named() {
        for field in ["_debug_render_only", "template", "raw", "remote_host", "insecure"] {
            for operation in Operation::ALL {
                let message = refuses(operation, format!(r#"{{"model":"m","{field}":true}}"#), RefusalCode::FieldNotAllowed);
                assert_eq!(message, format!("the owner of this workstation does not allow the field `{field}`; leave it out"));
                refuses(operation, format!(r#"{{"model":"m","{field}":"x"}}"#), RefusalCode::FieldNotAllowed);
            }
            for off in ["null", "false", r#""""#] {
                passes(OpenaiEmbeddings, &format!(r#"{{"model":"m","{field}":{off}}}"#), r#"{"model":"m"}"#);
            }
        }
        passes(OpenaiEmbeddings, r#"{"model":"m","system":"be kind"}"#, r#"{"model":"m","system":"be kind"}"#);
    }

    #[test]
    fn an_operation_that_is_not_shared_is_refused_first() {
        let policy = Policy { operations: [OllamaChat].into(), ..policy() };
        for operation in Operation::ALL.into_iter().filter(|o| *o != OllamaChat) {
            let refusal = guard(&policy, operation, b"not json", known).err().unwrap();
            assert_eq!(refusal.code, RefusalCode::OperationNotShared);
        }
        assert!(guard(&policy, OllamaChat, br#"{"model":"m"}"#, known).is_ok());
    }

    #[test]
    fn whether_it_streams_is_known() {
        for operation in Operation::ALL {
            for (value, says) in [("true", Some(true)), ("false", Some(false)), ("null", None)] {
                let guarded = run(operation, format!(r#"{{"model":"m","stream":{value}}}"#)).ok().unwrap();
                let expected = match operation {
                    OllamaEmbed | OllamaShow | OpenaiEmbeddings => false,
                    OllamaChat | OllamaGenerate => says.unwrap_or(true),
                    OpenaiChat | OpenaiCompletions | OpenaiResponses | AnthropicMessages => says.unwrap_or(false),
                };
                assert_eq!(guarded.streamed, expected, "{operation} {value}");
            }
        }
    }

    #[test]
    fn usage_is_always_asked_for_on_openais_streams() {
        for (asked, given, wants) in [
            ("", r#","stream_options":{"include_usage":true}"#, false),
            (r#","stream_options":null"#, r#","stream_options":{"include_usage":true}"#, false),
            (r#","stream_options":{"x":1}"#, r#","stream_options":{"x":1,"include_usage":true}"#, false),
            (r#","stream_options":{"include_usage":false,"x":1}"#, r#","stream_options":{"include_usage":true,"x":1}"#, false),
            (r#","stream_options":{"include_usage":null}"#, r#","stream_options":{"include_usage":true}"#, false),
            (r#","stream_options":{"include_usage":true}"#, r#","stream_options":{"include_usage":true}"#, true),
        ] {
            for operation in [OpenaiChat, OpenaiCompletions] {
                let guarded = passes(
                    operation,
                    &format!(r#"{{"model":"m","max_tokens":1,"stream":true{asked}}}"#),
                    &format!(r#"{{"model":"m","max_tokens":1,"stream":true{given}}}"#),
                );
                assert_eq!(guarded.caller_wants_usage, wants);
            }
        }
        let guarded = passes(OpenaiChat, r#"{"model":"m","max_tokens":1}"#, r#"{"model":"m","max_tokens":1}"#);
        assert!(guarded.caller_wants_usage);
    }

    #[test]
    fn tools_that_search_the_web_are_taken_out() {
        let check = |tools: &str, expected: &str| {
            for (operation, limit) in [(OpenaiResponses, "max_output_tokens"), (AnthropicMessages, "max_tokens")] {
                passes(
                    operation,
                    &format!(r#"{{"model":"m","{limit}":1,"tools":{tools}}}"#),
                    &format!(r#"{{"model":"m","{limit}":1,"tools":{expected}}}"#),
                );
            }
        };
        check(r#"[{"type":"web_search"}]"#, "[]");
        check(r#"[{"type":"web_search_20250305","name":"web_search","max_uses":5}]"#, "[]");
        check(r#"[{"type":" Web_Search_preview "}, {"type" : "function"}]"#, r#"[{"type" : "function"}]"#);
        check(r#"[ {"name":"f","input_schema":{"b":1,"a":2}} ]"#, r#"[ {"name":"f","input_schema":{"b":1,"a":2}} ]"#);
        check(r#"[{"type":"custom","name":"web_search"}]"#, r#"[{"type":"custom","name":"web_search"}]"#);
        check(
            r#"[{"type":"namespace","name":"n","tools":[{"type":"web_search"},{"type":"function","name":"f"}]}]"#,
            r#"[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]}]"#,
        );
        check("null", "null");
        check("[]", "[]");
        let groups = |depth: usize| {
            format!(r#"{{"model":"m","tools":{}[]{}}}"#, r#"[{"type":"namespace","tools":"#.repeat(depth), "}]".repeat(depth))
        };
        assert!(run(OpenaiResponses, groups(4)).is_ok());
        refuses(OpenaiResponses, groups(5), RefusalCode::InvalidBody);
        refuses(OpenaiResponses, format!(r#"{{"model":"m","tools":[{}{{}}]}}"#, "{},".repeat(4096)), RefusalCode::InvalidBody);
    }

    #[test]
    fn what_no_limit_concerns_keeps_its_bytes() {
        let messages = r#"[ {"role":"user", "content":"<\u003cé\n> 1.0E+2", "images":["aGk="]}, {"Role":"x","Role":"y"} ]"#;
        let body = format!(
            r#"{{"messages":{messages},"format":{{"b":1, "a":2}},"model":"m","options":{{"temperature":0.10}},"new":1e2}}"#
        );
        let expected = format!(
            r#"{{"messages":{messages},"format":{{"b":1, "a":2}},"model":"m","options":{{"temperature":0.10,"num_predict":1000}},"new":1e2}}"#
        );
        passes(OllamaChat, &body, &expected);
        passes(OpenaiEmbeddings, r#"{"model":"m","a\"\u0001ü":1}"#, r#"{"model":"m","a\"\u0001ü":1}"#);
    }

    /// What Go's decoder would put into a struct's field: names in any case, the last one counts.
    fn go_reads(body: &[u8], field: &str) -> Option<serde_json::Value> {
        let Members(members) = serde_json::from_slice(body).unwrap();
        let last = members.into_iter().rfind(|(name, _)| is_same_to_go(name, field))?;
        Some(serde_json::from_str(last.1.get()).unwrap())
    }

    fn bodies() -> impl Strategy<Value = String> {
        let names = vec![
            "model",
            "MODEL",
            "Model",
            "mod\\u0065l",
            "name",
            "options",
            "Options",
            "option\u{17f}",
            "keep_alive",
            "\u{212a}eep_alive",
            "stream",
            "stream_options",
            "tools",
            "max_tokens",
            "raw",
            "template",
            "x",
            "messages",
        ];
        let values = vec![
            "\"m\"",
            "\"m:cloud\"",
            "\"local/m\"",
            "\"hidden\"",
            "\"far\"",
            "null",
            "true",
            "false",
            "0",
            "-1",
            "1e9",
            "\"5m\"",
            "\"-1\"",
            "{}",
            "[]",
            "{\"num_predict\":-1}",
            "{\"num_predict\":5,\"num_ctx\":1e6}",
            "{\"num_predict\":1,\"num_predict\":-1}",
            "[{\"type\":\"web_search\"}]",
            "\"caf\u{e9} \\ud83d\\ude00\"",
        ];
        let member = (prop::sample::select(names), prop::sample::select(values)).prop_map(|(n, v)| format!("\"{n}\":{v}"));
        (any::<bool>(), prop::collection::vec(member, 0..5)).prop_map(|(valid, mut members)| {
            if valid {
                members.insert(members.len() / 2, "\"model\":\"m\"".to_owned());
            }
            format!("{{{}}}", members.join(" , "))
        })
    }

    fn operations() -> impl Strategy<Value = Operation> {
        prop::sample::select(Operation::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(operation in operations(), body in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(run(operation, body));
        }

        #[test]
        fn ollama_reads_what_was_checked(operation in operations(), body in bodies()) {
            if let Ok(guarded) = run(operation, &body) {
                let out = &guarded.body;
                let spelled = go_reads(out, "model").unwrap();
                prop_assert_eq!(spelled.as_str().unwrap().parse::<ModelName>().unwrap(), guarded.model.clone());
                prop_assert_eq!(known(&guarded.model), Some(KnownModel::Local));
                prop_assert!(policy().shares(&guarded.model));
                prop_assert_eq!(go_reads(out, "raw"), None);
                prop_assert_eq!(go_reads(out, "template"), None);
                match operation {
                    OllamaChat | OllamaGenerate => {
                        prop_assert_eq!(go_reads(out, "name"), None);
                        let predict = go_reads(out, "options").unwrap()["num_predict"].as_f64().unwrap();
                        prop_assert!((1.0..=1000.0).contains(&predict));
                        if let Some(ctx) = go_reads(out, "options").unwrap()["num_ctx"].as_f64() {
                            prop_assert!(ctx <= 8192.0);
                        }
                        if let Some(keep_alive) = go_reads(out, "keep_alive").and_then(|k| k.as_f64()) {
                            prop_assert!((0.0..=600.0).contains(&keep_alive));
                        }
                    }
                    OpenaiChat | OpenaiCompletions => {
                        prop_assert!((1..=1000).contains(&go_reads(out, "max_tokens").unwrap().as_i64().unwrap()));
                        if guarded.streamed {
                            prop_assert_eq!(&go_reads(out, "stream_options").unwrap()["include_usage"], true);
                        }
                    }
                    OpenaiResponses | AnthropicMessages => {
                        let tools = go_reads(out, "tools").unwrap_or_default().to_string();
                        prop_assert!(!tools.contains("web_search"), "{}", tools);
                    }
                    OllamaEmbed | OllamaShow | OpenaiEmbeddings => {}
                }
                // A second look changes nothing.
                let again = run(operation, out).ok().unwrap();
                prop_assert_eq!(&again.body, out);
            }
        }
    }
}
