//! What is asked, whichever of the six surfaces it came by.

use std::time::Duration;

use serde_json::Value;

use super::json::{Fields, member};
use super::models::KeepAlive;
use super::shape::{self, Shape, check_options};
use super::text;
use crate::scripted::Played;

/// Which API a generation was asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    /// `/api/chat`
    Chat,
    /// `/api/generate`
    Generate,
    /// `/v1/chat/completions`
    OpenAiChat,
    /// `/v1/completions`
    OpenAiCompletion,
    /// `/v1/responses`
    Responses,
    /// `/v1/messages`
    Messages,
}

impl Surface {
    pub(super) const fn is_native(self) -> bool {
        matches!(self, Self::Chat | Self::Generate)
    }

    /// What its requests are read into.
    pub(super) const fn shape(self) -> &'static Shape {
        match self {
            Self::Chat => &shape::CHAT,
            Self::Generate => &shape::GENERATE,
            Self::OpenAiChat => &shape::OPENAI_CHAT,
            Self::OpenAiCompletion => &shape::OPENAI_COMPLETION,
            Self::Responses => &shape::RESPONSES,
            Self::Messages => &shape::MESSAGES,
        }
    }
}

/// A generation that was asked for.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) surface: Surface,
    /// The name as it came.
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    pub(super) raw: bool,
    /// What was asked, summed up.
    pub(super) talk: Talk,
    pub(super) tools: Vec<Tool>,
    /// Whether a tool would make Ollama itself search the web.
    pub(super) web_search: bool,
    pub(super) format: Format,
    pub(super) think: Option<bool>,
    /// What Ollama says of an option of a wrong type, when it comes to load the model.
    pub(super) bad_option: Option<String>,
    /// Most tokens of the answer.
    pub(super) cap: Option<u32>,
    pub(super) keep_alive: Keep,
    /// The parts of a Responses request that come back in the answer.
    pub(super) echo: Value,
}

/// The messages, as far as the fake looks at them.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The text of the last message from the user or from a tool.
    pub(super) question: String,
    /// Whether the last message is a tool's.
    pub(super) answers_a_tool: bool,
    /// Bytes of text in all messages.
    bytes: usize,
    /// Bytes of text and roles, by which a stream of `/v1/messages` guesses its input.
    estimate: usize,
    images: usize,
    /// A number that depends on all images.
    pub(super) image_seed: u64,
    /// How many messages there are.
    pub(super) messages: usize,
    /// What they hold of a part that is played.
    pub(super) played: Played,
}

impl Talk {
    /// What the prompt counts for: four bytes a token, and 256 tokens an image.
    pub(super) fn prompt_tokens(&self) -> u64 {
        (self.bytes.div_ceil(4) + 256 * self.images).max(1) as u64
    }

    /// What `/v1/messages` guesses before it knows.
    pub(super) fn estimated_tokens(&self) -> u64 {
        (self.estimate / 4).max(1) as u64
    }

    /// Counts what a part's steps depend on.
    fn count(&mut self, message: &Value) {
        let items = |name: &str| member(message, name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let blocks = |kind: &str| items("content").iter().filter(|block| member(block, "type") == Some(&kind.into())).count();
        let role = role(message);
        self.played.results += usize::from(role == "tool") + blocks("tool_result");
        let calls = !items("tool_calls").is_empty() || blocks("tool_use") > 0;
        self.played.answers += usize::from(role == "assistant" && !calls);
    }

    fn add(&mut self, role: &str, words: String, images: &[&str]) {
        self.messages += 1;
        self.bytes += words.len();
        self.estimate += role.len() + words.len();
        self.images += images.len();
        for image in images {
            self.image_seed = text::seed(&[&self.image_seed.to_le_bytes(), image.as_bytes()]);
        }
        self.answers_a_tool = role == "tool";
        if role == "user" || role == "tool" {
            self.question = words;
        }
    }
}

/// A function that the model may call.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) parameters: Value,
}

/// What the answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Format {
    Text,
    Json,
    Schema(Value),
    /// Something else, at which the runner fails.
    Unknown(Value),
}

/// What becomes of the model afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Loaded(KeepAlive),
    Unload,
}

/// A request that is answered 400 before any model is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Invalid(pub(super) String);

impl Invalid {
    fn new(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Ask {
    /// Reads a request by the rules of its surface.
    pub(super) fn parse(surface: Surface, fields: &Fields) -> Result<Self, Invalid> {
        let mut talk = Talk::default();
        match surface {
            Surface::Chat => native_messages(fields, &mut talk),
            Surface::Generate => native_prompt(fields, &mut talk),
            Surface::OpenAiChat => openai_messages(fields, &mut talk)?,
            Surface::OpenAiCompletion => {
                let prompt = string(fields, "prompt");
                if !prompt.is_empty() {
                    talk.add("user", prompt.to_owned(), &[]);
                }
            }
            Surface::Responses => response_items(fields, &mut talk)?,
            Surface::Messages => anthropic_messages(fields, &mut talk)?,
        }
        let options = fields.get("options");
        let cap = match surface {
            Surface::Chat | Surface::Generate => options.and_then(|options| options.get("num_predict")),
            Surface::OpenAiChat => fields.get("max_tokens").or_else(|| fields.get("max_completion_tokens")),
            Surface::OpenAiCompletion | Surface::Messages => fields.get("max_tokens"),
            Surface::Responses => fields.get("max_output_tokens"),
        };
        let (tools, web_search) = tools(surface, fields);
        let stream = fields.get("stream").and_then(Value::as_bool).unwrap_or(surface.is_native());
        Ok(Self {
            surface,
            model: string(fields, "model").to_owned(),
            stream,
            include_usage: fields.get("stream_options").and_then(|options| member(options, "include_usage"))
                == Some(&Value::Bool(true)),
            raw: fields.get("raw") == Some(&Value::Bool(true)),
            talk,
            tools,
            web_search,
            format: format(surface, fields),
            think: think(surface, fields)?,
            bad_option: if surface.is_native() { check_options(options).err() } else { None },
            // Zero and below mean "as many as there are".
            cap: cap.and_then(Value::as_i64).filter(|cap| *cap > 0).map(|cap| u32::try_from(cap).unwrap_or(u32::MAX)),
            // The other surfaces do not know of it.
            keep_alive: if surface.is_native() { keep_alive(fields)? } else { Keep::Loaded(KeepAlive::Default) },
            echo: if surface == Surface::Responses { echo(fields) } else { Value::Null },
        })
    }
}

/// A text field that may be absent.
pub(super) fn string<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.text(name).unwrap_or_default()
}

/// How long to keep the model, or that it is to go.
pub(super) fn keep_alive(fields: &Fields) -> Result<Keep, Invalid> {
    let seconds = match fields.get("keep_alive") {
        None => return Ok(Keep::Loaded(KeepAlive::Default)),
        Some(Value::Number(seconds)) => seconds.as_f64().unwrap_or_default(),
        Some(other) => {
            let text = other.as_str().unwrap_or_default();
            go_duration(text).ok_or_else(|| Invalid(format!("time: invalid duration {text:?}")))?
        }
    };
    Ok(if seconds == 0.0 {
        Keep::Unload
    } else if seconds < 0.0 {
        Keep::Loaded(KeepAlive::Forever)
    } else {
        Keep::Loaded(Duration::try_from_secs_f64(seconds).map_or(KeepAlive::Forever, KeepAlive::For))
    })
}

/// Seconds of a Go duration such as `5m`, `1h30m` or `-1s`.
fn go_duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    if rest == "0" {
        return Some(0.0);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.trim_start_matches('-').is_empty()).then_some(sign * seconds)
}

fn think(surface: Surface, fields: &Fields) -> Result<Option<bool>, Invalid> {
    let effort = |effort: Option<&Value>| match effort.and_then(Value::as_str) {
        None | Some("") => Ok(None),
        Some("none") => Ok(Some(false)),
        Some("minimal" | "low" | "medium" | "high" | "xhigh" | "ultra" | "max") => Ok(Some(true)),
        Some(other) => Err(Invalid(format!(
            "invalid reasoning value: {other:?} (must be \"minimal\", \"low\", \"medium\", \"high\", \"xhigh\", \"ultra\", \"max\", or \"none\")"
        ))),
    };
    let nested = || fields.get("reasoning").and_then(|reasoning| member(reasoning, "effort"));
    match surface {
        Surface::Chat | Surface::Generate => match fields.get("think") {
            None => Ok(None),
            Some(Value::Bool(think)) => Ok(Some(*think)),
            Some(Value::String(level)) if matches!(level.as_str(), "low" | "medium" | "high" | "max") => Ok(Some(true)),
            Some(Value::String(other)) => Err(Invalid(format!(
                "invalid think value: {other:?} (must be \"high\", \"medium\", \"low\", \"max\", true, or false)"
            ))),
            Some(_) => {
                Err(Invalid::new("think must be a boolean or string (\"high\", \"medium\", \"low\", \"max\", true, or false)"))
            }
        },
        Surface::OpenAiChat => effort(nested().or_else(|| fields.get("reasoning_effort"))),
        Surface::Responses => effort(nested()),
        Surface::OpenAiCompletion => Ok(None),
        Surface::Messages => {
            let kind = fields.get("thinking").and_then(|thinking| member(thinking, "type")).and_then(Value::as_str);
            Ok(match kind {
                Some("enabled") => Some(true),
                Some("disabled") => Some(false),
                _ => None,
            })
        }
    }
}

fn format(surface: Surface, fields: &Fields) -> Format {
    let schema = |schema: Option<&Value>| schema.cloned().map_or(Format::Text, Format::Schema);
    match surface {
        Surface::Chat | Surface::Generate => match fields.get("format") {
            Some(Value::String(json)) if json == "json" => Format::Json,
            Some(object @ Value::Object(_)) => Format::Schema(object.clone()),
            None => Format::Text,
            Some(Value::String(text)) if text.is_empty() => Format::Text,
            Some(other) => Format::Unknown(other.clone()),
        },
        Surface::OpenAiChat => {
            let wanted = fields.get("response_format");
            match wanted.and_then(|wanted| member(wanted, "type")).and_then(Value::as_str) {
                Some("json_object") => Format::Json,
                Some("json_schema") => schema(wanted.and_then(|wanted| member(member(wanted, "json_schema")?, "schema"))),
                _ => Format::Text,
            }
        }
        Surface::Responses => {
            let wanted = fields.get("text").and_then(|text| member(text, "format"));
            match wanted.and_then(|wanted| member(wanted, "type")).and_then(Value::as_str) {
                Some("json_schema") => schema(wanted.and_then(|wanted| member(wanted, "schema"))),
                _ => Format::Text,
            }
        }
        Surface::OpenAiCompletion | Surface::Messages => Format::Text,
    }
}

/// The functions offered, and whether the vendor's search is among them.
fn tools(surface: Surface, fields: &Fields) -> (Vec<Tool>, bool) {
    let items = fields.items("tools");
    let kind = |tool: &Value| member(tool, "type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let text = |tool: &Value, name: &str| member(tool, name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let part = |tool: &Value, name: &str| member(tool, name).cloned().unwrap_or_default();
    let web_search =
        matches!(surface, Surface::Responses | Surface::Messages) && items.iter().any(|tool| kind(tool).starts_with("web_search"));
    let tools = items.iter().map(|tool| match surface {
        Surface::Responses => Tool { name: text(tool, "name"), parameters: part(tool, "parameters") },
        Surface::Messages => Tool { name: text(tool, "name"), parameters: part(tool, "input_schema") },
        _ => {
            let function = part(tool, "function");
            Tool { name: text(&function, "name"), parameters: part(&function, "parameters") }
        }
    });
    (tools.collect(), web_search)
}

fn role(message: &Value) -> String {
    member(message, "role").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase()
}

fn native_messages(fields: &Fields, talk: &mut Talk) {
    for message in fields.items("messages") {
        let words = member(message, "content").and_then(Value::as_str).unwrap_or_default();
        let images: Vec<&str> =
            member(message, "images").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        talk.add(&role(message), words.to_owned(), &images);
        talk.count(message);
    }
}

fn native_prompt(fields: &Fields, talk: &mut Talk) {
    let (system, prompt) = (fields.text("system").unwrap_or_default(), fields.text("prompt").unwrap_or_default());
    if prompt.is_empty() {
        return;
    }
    if !system.is_empty() {
        talk.add("system", system.to_owned(), &[]);
    }
    let images: Vec<&str> = fields.items("images").iter().filter_map(Value::as_str).collect();
    talk.add("user", prompt.to_owned(), &images);
}

fn openai_messages(fields: &Fields, talk: &mut Talk) -> Result<(), Invalid> {
    if fields.items("messages").is_empty() {
        return Err(Invalid::new("[] is too short - 'messages'"));
    }
    for message in fields.items("messages") {
        let (mut words, mut images) = (String::new(), Vec::new());
        match member(message, "content") {
            Some(Value::String(text)) => words.push_str(text),
            Some(Value::Array(parts)) => {
                for part in parts {
                    match member(part, "type").and_then(Value::as_str) {
                        Some("text") => words.push_str(member(part, "text").and_then(Value::as_str).ok_or_else(bad_message)?),
                        Some("image_url") => {
                            let url = member(part, "image_url").ok_or_else(bad_message)?;
                            let url = member(url, "url").unwrap_or(url).as_str().ok_or_else(bad_message)?;
                            images.push(image_of(url)?);
                        }
                        _ => return Err(bad_message()),
                    }
                }
            }
            _ if member(message, "tool_calls").is_some() => {}
            _ => return Err(Invalid::new("invalid message content type: <nil>")),
        }
        talk.add(&role(message), words, &images);
        talk.count(message);
    }
    Ok(())
}

fn bad_message() -> Invalid {
    Invalid::new("invalid message format")
}

/// The base64 of a data URL.
fn image_of(url: &str) -> Result<&str, Invalid> {
    ["", "image/jpeg", "image/jpg", "image/png", "image/webp"]
        .iter()
        .find_map(|kind| url.strip_prefix(&format!("data:{kind};base64,")))
        .ok_or_else(|| Invalid::new("invalid image input"))
}

fn anthropic_messages(fields: &Fields, talk: &mut Talk) -> Result<(), Invalid> {
    if string(fields, "model").is_empty() {
        return Err(Invalid::new("model is required"));
    }
    if fields.get("max_tokens").and_then(Value::as_i64).unwrap_or_default() <= 0 {
        return Err(Invalid::new("max_tokens is required and must be positive"));
    }
    if fields.items("messages").is_empty() {
        return Err(Invalid::new("messages is required"));
    }
    if let Some(system) = fields.get("system") {
        let words = block_text(system);
        talk.bytes += words.len();
        talk.estimate += words.len();
    }
    for message in fields.items("messages") {
        let content = member(message, "content").cloned().unwrap_or_default();
        let blocks = content.as_array().map_or(&[][..], Vec::as_slice);
        let mut images = Vec::new();
        for block in blocks.iter().filter(|block| member(block, "type").and_then(Value::as_str) == Some("image")) {
            let source = member(block, "source").ok_or_else(|| Invalid::new("invalid image source"))?;
            match member(source, "type").and_then(Value::as_str) {
                Some("base64") => images.push(member(source, "data").and_then(Value::as_str).unwrap_or_default()),
                other => {
                    let kind = other.unwrap_or_default();
                    return Err(Invalid(format!("invalid image source type: {kind}. Only base64 images are supported.")));
                }
            }
        }
        let result = blocks.iter().find(|block| member(block, "type").and_then(Value::as_str) == Some("tool_result"));
        match result {
            Some(result) => talk.add("tool", member(result, "content").map(block_text).unwrap_or_default(), &images),
            None => talk.add(&role(message), block_text(&content), &images),
        }
        talk.count(message);
    }
    Ok(())
}

/// The text of a string, or of the text blocks of an array.
fn block_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => blocks.iter().filter_map(|block| member(block, "text").and_then(Value::as_str)).collect(),
        _ => String::new(),
    }
}

fn response_items(fields: &Fields, talk: &mut Talk) -> Result<(), Invalid> {
    let instructions = string(fields, "instructions");
    if !instructions.is_empty() {
        talk.add("system", instructions.to_owned(), &[]);
    }
    match fields.get("input") {
        Some(Value::String(text)) if !text.is_empty() => talk.add("user", text.clone(), &[]),
        Some(Value::Array(items)) => {
            for item in items {
                response_item(item, talk)?;
            }
        }
        Some(Value::String(_)) | None => {}
        Some(other) => {
            let found = match other {
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                _ => "object",
            };
            let text = format!("json: cannot unmarshal {found} into Go value of type []json.RawMessage");
            return Err(Invalid(format!("input must be a string or array: {text}")));
        }
    }
    Ok(())
}

fn response_item(item: &Value, talk: &mut Talk) -> Result<(), Invalid> {
    let kind = member(item, "type").and_then(Value::as_str).unwrap_or("message");
    let content = |name: &str| -> Result<(String, Vec<&str>), Invalid> {
        let content = member(item, name);
        let parts = content.and_then(Value::as_array).into_iter().flatten();
        let images = parts.filter(|part| member(part, "type").and_then(Value::as_str) == Some("input_image"));
        let images: Result<_, _> = images.filter_map(|part| member(part, "image_url")?.as_str()).map(image_of).collect();
        Ok((content.map(block_text).unwrap_or_default(), images?))
    };
    match kind {
        "message" => {
            let (words, images) = content("content")?;
            talk.add(&role(item), words, &images);
        }
        "function_call_output" => {
            let (words, images) = content("output")?;
            talk.add("tool", words, &images);
            talk.played.results += 1;
        }
        "function_call" | "reasoning" | "web_search_call" => {}
        other => return Err(Invalid(format!("input[0]: unknown input item type: {other:?}"))),
    }
    Ok(())
}

/// The parts of a Responses request that its answer repeats.
fn echo(fields: &Fields) -> Value {
    let names =
        ["instructions", "truncation", "tools", "text", "reasoning", "top_p", "temperature", "max_output_tokens", "background"];
    let parts = names.into_iter().filter_map(|name| Some((name.to_owned(), fields.get(name)?.clone())));
    Value::Object(parts.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(surface: Surface, body: &Value) -> Result<Ask, Invalid> {
        Ask::parse(surface, &Fields::parse(body.to_string().as_bytes(), surface.shape()).unwrap())
    }

    #[test]
    fn the_last_question_is_found_on_every_surface() {
        let cases = [
            (Surface::Chat, json!({"messages": [{"role": "User", "content": "où ?", "images": ["aaaa"]}]})),
            (Surface::Generate, json!({"prompt": "où ?", "images": ["aaaa"]})),
            (
                Surface::OpenAiChat,
                json!({"messages": [{"role": "user", "content": [
                    {"type": "text", "text": "où ?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}]}]}),
            ),
            (
                Surface::Responses,
                json!({"input": [{"role": "user", "content": [
                    {"type": "input_text", "text": "où ?"}, {"type": "input_image", "image_url": "data:image/png;base64,aaaa"}]}]}),
            ),
            (
                Surface::Messages,
                json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [
                    {"type": "text", "text": "où ?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aaaa"}}]}]}),
            ),
        ];
        for (surface, body) in cases {
            let ask = ask(surface, &body).unwrap();
            assert_eq!(ask.talk.question, "où ?", "{surface:?}");
            assert_eq!(ask.talk.prompt_tokens(), 2 + 256, "{surface:?}");
            assert_eq!(ask.stream, surface.is_native(), "{surface:?}");
            assert_ne!(ask.talk.image_seed, 0, "{surface:?}");
        }
    }

    #[test]
    fn keep_alive_is_read_as_a_go_duration() {
        let keep =
            |value: Value| keep_alive(&Fields::parse(json!({"keep_alive": value}).to_string().as_bytes(), &shape::CHAT).unwrap());
        assert_eq!(keep(json!("1h30m")), Ok(Keep::Loaded(KeepAlive::For(Duration::from_secs(5400)))));
        assert_eq!(keep(json!(30)), Ok(Keep::Loaded(KeepAlive::For(Duration::from_secs(30)))));
        assert_eq!(keep(json!("-1s")), Ok(Keep::Loaded(KeepAlive::Forever)));
        assert_eq!(keep(json!(0)), Ok(Keep::Unload));
        assert_eq!(keep(json!("0")), Ok(Keep::Unload));
        for bad in [json!("soon"), json!(""), json!("5")] {
            assert!(keep(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        let refused = |surface, body: Value| ask(surface, &body).unwrap_err().0;
        assert_eq!(
            refused(Surface::Generate, json!({"think": "hard"})),
            "invalid think value: \"hard\" (must be \"high\", \"medium\", \"low\", \"max\", true, or false)"
        );
        assert_eq!(refused(Surface::OpenAiChat, json!({})), "[] is too short - 'messages'");
        assert_eq!(
            refused(Surface::Messages, json!({"model": "m", "messages": []})),
            "max_tokens is required and must be positive"
        );
    }
}
