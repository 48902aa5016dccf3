//! A request as it is understood: what was asked, and in which form the answer is wanted. Wrong requests are refused in the words
//! of the provider.

use serde_json::Value;

use super::kind::{Endpoint, Kind};
use super::refusal::Refusal;
use crate::{fake_ollama::text, scripted::Played};

/// What an image counts for, in tokens.
const IMAGE_TOKENS: u64 = 256;
/// What a declared tool counts for, in tokens.
const TOOL_TOKENS: u64 = 8;
/// Answers to one question at most, as OpenAI has it.
const MOST_CHOICES: u64 = 128;

/// A request.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) kind: Kind,
    pub(super) model: String,
    pub(super) stream: bool,
    /// Whether a stream says usage.
    pub(super) include_usage: bool,
    pub(super) talk: Talk,
    pub(super) tools: Vec<Tool>,
    /// Whether a tool of the provider's own searches the web.
    pub(super) searches: bool,
    /// Tokens of the answer at most.
    pub(super) cap: Option<u32>,
    pub(super) format: Format,
    pub(super) thinking: Thinking,
    /// Answers to give.
    pub(super) choices: u32,
    /// Gemini only: whether a call came back without what was thought before it.
    pub(super) lacks_signature: bool,
    /// The request itself, for what an answer repeats.
    pub(super) body: Value,
}

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// The last thing that the user said.
    pub(super) question: String,
    /// Bytes of all text.
    bytes: u64,
    images: u64,
    /// Depends on all images, and is 0 without any.
    image_seed: u64,
    /// Whether the last word is a tool's.
    pub(super) answers_a_tool: bool,
    /// Bytes of the text that is marked to be cached for five minutes and for an hour: all text up to the last mark.
    pub(super) marked_short: u64,
    pub(super) marked_long: u64,
    /// What it holds of a part that is played.
    pub(super) played: Played,
}

/// A tool that the model may call.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) parameters: Value,
}

/// The form of the text.
#[derive(Debug)]
pub(super) enum Format {
    Text,
    Json,
    Schema(Value),
}

/// Whether the model reasons first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thinking {
    Off,
    /// It costs, and is not seen.
    Hidden,
    Shown,
}

impl Talk {
    /// Tokens of the prompt without tools: four bytes of text each, rounded up, and 256 for an image.
    fn tokens(&self) -> u64 {
        self.bytes.div_ceil(4) + self.images * IMAGE_TOKENS
    }

    fn add(&mut self, role: &str, words: &str, images: &[&str]) {
        self.bytes += words.len() as u64;
        self.images += images.len() as u64;
        for image in images {
            self.image_seed = text::seed(&[&self.image_seed.to_le_bytes(), image.as_bytes()]);
        }
        self.answers_a_tool = role == "tool";
        if role == "user" {
            words.clone_into(&mut self.question);
        }
    }

    /// Counts what a part's steps depend on.
    fn count(&mut self, role: Option<&str>, results: usize, calls: bool) {
        self.played.results += results;
        self.played.answers += usize::from(role == Some("assistant") && !calls);
    }

    /// A number that depends on the question and the images.
    pub(super) fn seed(&self, model: &str) -> u64 {
        text::seed(&[model.as_bytes(), self.question.as_bytes(), &self.image_seed.to_le_bytes()])
    }
}

impl Ask {
    /// Tokens of the whole prompt.
    pub(super) fn prompt_tokens(&self) -> u64 {
        self.talk.tokens() + self.tools.len() as u64 * TOOL_TOKENS
    }

    /// Understands the body of a request to an endpoint that says something.
    pub(super) fn read(kind: Kind, endpoint: &Endpoint, path_model: Option<&str>, body: Value) -> Result<Self, Refusal> {
        let model = match path_model {
            Some(model) => model.to_owned(),
            None => model_of(kind, &body)?.to_owned(),
        };
        let stream = *endpoint == Endpoint::StreamGenerate || body["stream"].as_bool().unwrap_or_default();
        let mut ask = Self {
            kind,
            model,
            stream,
            include_usage: body["stream_options"]["include_usage"].as_bool().unwrap_or_default(),
            talk: Talk::default(),
            tools: Vec::new(),
            searches: false,
            cap: None,
            format: Format::Text,
            thinking: Thinking::Off,
            choices: 1,
            lacks_signature: false,
            body: Value::Null,
        };
        match endpoint {
            Endpoint::Chat => ask.read_chat(&body)?,
            Endpoint::Completion => ask.read_completion(&body)?,
            Endpoint::Responses => ask.read_responses(&body)?,
            Endpoint::Messages | Endpoint::CountTokens => ask.read_messages(&body, *endpoint == Endpoint::Messages)?,
            Endpoint::Generate | Endpoint::StreamGenerate | Endpoint::GeminiCount => ask.read_gemini(&body)?,
            Endpoint::Embeddings => ask.read_input(&body["input"], "input")?,
            Endpoint::Images => ask.read_input(&body["prompt"], "prompt")?,
            // Nothing is said to these.
            _ => {}
        }
        ask.body = body;
        Ok(ask)
    }

    fn read_chat(&mut self, body: &Value) -> Result<(), Refusal> {
        if body.get("stream_options").is_some_and(|options| !options.is_null()) && !self.stream {
            return Err(Refusal::parameter(
                "stream_options",
                None,
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            ));
        }
        let messages = match &body["messages"] {
            Value::Array(messages) if !messages.is_empty() => messages,
            Value::Array(_) => {
                let text =
                    "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
                return Err(Refusal::parameter("messages", Some("empty_array"), text));
            }
            Value::Null => {
                return Err(Refusal::parameter(
                    "messages",
                    Some("missing_required_parameter"),
                    "Missing required parameter: 'messages'.",
                ));
            }
            other => {
                let text =
                    format!("Invalid type for 'messages': expected an array of objects, but got {} instead.", json_type(other));
                return Err(Refusal::parameter("messages", Some("invalid_type"), &text));
            }
        };
        for message in messages {
            let (words, images) = openai_content(&message["content"]);
            self.talk.add(message["role"].as_str().unwrap_or_default(), &words, &images);
            let calls = message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty());
            self.talk.count(message["role"].as_str(), usize::from(message["role"] == "tool"), calls);
        }
        self.tools = tools_of(&body["tools"], |tool| &tool["function"], "parameters");
        self.without_tools_if(body["tool_choice"] == "none");
        self.cap = cap(body, &["max_completion_tokens", "max_tokens"]);
        self.format = match body["response_format"]["type"].as_str() {
            Some("json_object") => Format::Json,
            Some("json_schema") => Format::Schema(body["response_format"]["json_schema"]["schema"].clone()),
            _ => Format::Text,
        };
        self.choices = body["n"].as_u64().unwrap_or(1).clamp(1, MOST_CHOICES) as u32;
        let effort = body["reasoning_effort"].as_str();
        if effort.is_some_and(|effort| effort != "none") {
            // xAI shows what it thinks; OpenAI only charges for it.
            self.thinking = if self.kind == Kind::Xai { Thinking::Shown } else { Thinking::Hidden };
        }
        Ok(())
    }

    fn read_completion(&mut self, body: &Value) -> Result<(), Refusal> {
        self.read_input(&body["prompt"], "prompt")?;
        self.cap = cap(body, &["max_tokens"]);
        self.choices = body["n"].as_u64().unwrap_or(1).clamp(1, MOST_CHOICES) as u32;
        Ok(())
    }

    /// Text, several texts, or tokens by their numbers.
    fn read_input(&mut self, input: &Value, name: &str) -> Result<(), Refusal> {
        let items = match input {
            Value::String(text) => {
                self.talk.add("user", text, &[]);
                return Ok(());
            }
            Value::Array(items) if !items.is_empty() => items,
            Value::Null => {
                let text = format!("Missing required parameter: '{name}'.");
                return Err(Refusal::parameter(name, Some("missing_required_parameter"), &text));
            }
            _ => return Err(Refusal::parameter(name, None, &format!("Invalid '{name}': expected a string or an array."))),
        };
        for item in items {
            match item {
                Value::String(text) => self.talk.add("user", text, &[]),
                Value::Array(tokens) => self.talk.bytes += tokens.len() as u64 * 4,
                _ => self.talk.bytes += 4,
            }
        }
        Ok(())
    }

    fn read_responses(&mut self, body: &Value) -> Result<(), Refusal> {
        if let Some(words) = body["instructions"].as_str() {
            self.talk.add("system", words, &[]);
        }
        match &body["input"] {
            Value::String(words) => self.talk.add("user", words, &[]),
            Value::Array(items) => {
                for item in items {
                    match item["type"].as_str().unwrap_or("message") {
                        "message" => {
                            let (words, images) = openai_content(&item["content"]);
                            self.talk.add(item["role"].as_str().unwrap_or_default(), &words, &images);
                            self.talk.count(item["role"].as_str(), 0, false);
                        }
                        "function_call_output" => {
                            self.talk.add("tool", item["output"].as_str().unwrap_or_default(), &[]);
                            self.talk.played.results += 1;
                        }
                        _ => {}
                    }
                }
            }
            _ => {
                return Err(Refusal::parameter(
                    "input",
                    Some("missing_required_parameter"),
                    "Missing required parameter: 'input'.",
                ));
            }
        }
        self.tools = tools_of(&body["tools"], |tool| tool, "parameters");
        self.searches = has_search(&body["tools"]);
        self.without_tools_if(body["tool_choice"] == "none");
        self.cap = cap(body, &["max_output_tokens"]);
        let format = &body["text"]["format"];
        self.format = match format["type"].as_str() {
            Some("json_object") => Format::Json,
            Some("json_schema") => Format::Schema(format["schema"].clone()),
            _ => Format::Text,
        };
        if body["reasoning"]["effort"].as_str().is_some_and(|effort| effort != "none") {
            self.thinking = if body["reasoning"]["summary"].is_string() { Thinking::Shown } else { Thinking::Hidden };
        }
        Ok(())
    }

    fn read_messages(&mut self, body: &Value, must_be_capped: bool) -> Result<(), Refusal> {
        self.cap = cap(body, &["max_tokens"]);
        if self.cap.is_none() && must_be_capped {
            return Err(Refusal::bad("max_tokens: Field required"));
        }
        let Some(messages) = body["messages"].as_array() else { return Err(Refusal::bad("messages: Field required")) };
        if messages.is_empty() {
            return Err(Refusal::bad("messages: at least one message is required"));
        }
        self.read_blocks("system", &body["system"]);
        for message in messages {
            self.read_blocks(message["role"].as_str().unwrap_or_default(), &message["content"]);
        }
        self.tools = tools_of(&body["tools"], |tool| tool, "input_schema");
        self.searches = has_search(&body["tools"]);
        self.without_tools_if(body["tool_choice"]["type"] == "none");
        if body["output_config"]["format"]["type"] == "json_schema" {
            self.format = Format::Schema(body["output_config"]["format"]["schema"].clone());
        }
        self.thinking = match body["thinking"]["type"].as_str() {
            Some("enabled" | "adaptive") => Thinking::Shown,
            _ => Thinking::Off,
        };
        Ok(())
    }

    /// Anthropic's content: a string, or blocks that may carry a mark for the cache.
    fn read_blocks(&mut self, role: &str, content: &Value) {
        let count = |kind: &str| content.as_array().into_iter().flatten().filter(|block| block["type"] == kind).count();
        self.talk.count(Some(role), count("tool_result"), count("tool_use") > 0);
        if let Value::String(words) = content {
            return self.talk.add(role, words, &[]);
        }
        let blocks = content.as_array().map_or(&[][..], Vec::as_slice);
        let (mut words, mut images, mut is_tool) = (String::new(), Vec::new(), false);
        for block in blocks {
            match block["type"].as_str() {
                Some("image") => {
                    images.push(block["source"]["data"].as_str().or(block["source"]["url"].as_str()).unwrap_or_default())
                }
                Some("tool_result") => {
                    is_tool = true;
                    words.push_str(&openai_content(&block["content"]).0);
                }
                _ => words.push_str(block["text"].as_str().unwrap_or_default()),
            }
            if block["cache_control"].is_object() {
                let upto = self.talk.bytes + words.len() as u64 - self.talk.marked_short - self.talk.marked_long;
                match block["cache_control"]["ttl"].as_str() {
                    Some("1h") => self.talk.marked_long += upto,
                    _ => self.talk.marked_short += upto,
                }
            }
        }
        self.talk.add(if is_tool { "tool" } else { role }, &words, &images);
    }

    fn read_gemini(&mut self, body: &Value) -> Result<(), Refusal> {
        // countTokens takes a whole request too.
        let body = if body["generateContentRequest"].is_object() { &body["generateContentRequest"] } else { body };
        let Some(contents) = body["contents"].as_array().filter(|contents| !contents.is_empty()) else {
            return Err(Refusal::bad("* GenerateContentRequest.contents: contents is not specified\n"));
        };
        let system = either(body, "systemInstruction", "system_instruction");
        for (role, content) in std::iter::once(("system", system)).chain(contents.iter().map(|content| {
            let role = content["role"].as_str().unwrap_or("user");
            (role, content)
        })) {
            let parts = content["parts"].as_array().map_or(&[][..], Vec::as_slice);
            let words: String = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            let images: Vec<&str> =
                parts.iter().filter_map(|part| either(part, "inlineData", "inline_data")["data"].as_str()).collect();
            let count = |name: &str| parts.iter().filter(|part| part[name].is_object()).count();
            self.talk.count((role == "model").then_some("assistant"), count("functionResponse"), count("functionCall") > 0);
            // What it thought comes back with the first call of an answer, and it insists on it.
            let first = parts.iter().find(|part| part["functionCall"].is_object());
            self.lacks_signature |= first.is_some_and(|part| !part["thoughtSignature"].is_string());
            let is_tool = parts.iter().any(|part| part["functionResponse"].is_object());
            self.talk.add(if is_tool { "tool" } else { role }, &words, &images);
        }
        let declared = body["tools"].as_array().into_iter().flatten();
        let declared = declared
            .flat_map(|tool| either(tool, "functionDeclarations", "function_declarations").as_array().into_iter().flatten());
        self.tools = declared
            .map(|tool| {
                let schema = either(tool, "parametersJsonSchema", "parameters_json_schema");
                let schema = if schema.is_object() { schema } else { &tool["parameters"] };
                Tool { name: tool["name"].as_str().unwrap_or_default().to_owned(), parameters: lower_types(schema.clone()) }
            })
            .collect();
        self.without_tools_if(body["toolConfig"]["functionCallingConfig"]["mode"] == "NONE");
        let config = &body["generationConfig"];
        self.cap = cap(config, &["maxOutputTokens"]);
        self.choices = config["candidateCount"].as_u64().unwrap_or(1).clamp(1, 8) as u32;
        if config["responseMimeType"] == "application/json" {
            let schema = either(config, "responseJsonSchema", "responseSchema");
            self.format = if schema.is_object() { Format::Schema(lower_types(schema.clone())) } else { Format::Json };
        }
        let thinking = &config["thinkingConfig"];
        if thinking.is_object() && thinking["thinkingBudget"] != 0 {
            let shown = thinking["includeThoughts"].as_bool().unwrap_or_default();
            self.thinking = if shown { Thinking::Shown } else { Thinking::Hidden };
        }
        Ok(())
    }

    fn without_tools_if(&mut self, none: bool) {
        if none {
            self.tools.clear();
        }
    }
}

/// The model that a body names.
pub(super) fn model_of(kind: Kind, body: &Value) -> Result<&str, Refusal> {
    body["model"].as_str().filter(|model| !model.is_empty()).ok_or_else(|| match kind {
        Kind::Anthropic => Refusal::bad("model: Field required"),
        _ => Refusal::bad("you must provide a model parameter"),
    })
}

/// The words and images of OpenAI's content: a string, or parts.
fn openai_content(content: &Value) -> (String, Vec<&str>) {
    let (mut words, mut images) = (String::new(), Vec::new());
    match content {
        Value::String(text) => words.push_str(text),
        Value::Array(parts) => {
            for part in parts {
                words.push_str(part["text"].as_str().unwrap_or_default());
                images.extend(part["image_url"]["url"].as_str().or(part["image_url"].as_str()));
            }
        }
        _ => {}
    }
    (words, images)
}

fn tools_of(tools: &Value, function: impl Fn(&Value) -> &Value, schema: &str) -> Vec<Tool> {
    let tools = tools.as_array().into_iter().flatten().map(function);
    tools
        .filter(|tool| tool[schema].is_object())
        .map(|tool| Tool { name: tool["name"].as_str().unwrap_or_default().to_owned(), parameters: tool[schema].clone() })
        .collect()
}

fn has_search(tools: &Value) -> bool {
    tools.as_array().into_iter().flatten().any(|tool| tool["type"].as_str().is_some_and(|kind| kind.starts_with("web_search")))
}

fn cap(body: &Value, names: &[&str]) -> Option<u32> {
    let cap = names.iter().find_map(|name| body[*name].as_u64())?;
    Some(u32::try_from(cap).unwrap_or(u32::MAX))
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Google takes a member's name in either spelling, and its own clients use both.
fn either<'v>(value: &'v Value, camel: &str, snake: &str) -> &'v Value {
    if value[camel].is_null() { &value[snake] } else { &value[camel] }
}

/// Gemini writes the types of a schema in capitals.
fn lower_types(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(members) => {
            for (name, member) in members {
                *member = match (name.as_str(), member.take()) {
                    ("type", Value::String(kind)) => kind.to_ascii_lowercase().into(),
                    (_, member) => lower_types(member),
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = lower_types(item.take())),
        _ => {}
    }
    schema
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(kind: Kind, endpoint: &Endpoint, body: Value) -> Ask {
        let model = matches!(endpoint, Endpoint::Generate).then_some("m");
        Ask::read(kind, endpoint, model, body).unwrap()
    }

    #[test]
    fn the_last_question_is_found_in_every_shape() {
        let url = "data:image/png;base64,aaaa";
        for (kind, endpoint, body) in [
            (
                Kind::Openai,
                Endpoint::Chat,
                json!({"model": "m", "messages": [{"role": "user", "content": [
                    {"type": "text", "text": "où ?"}, {"type": "image_url", "image_url": {"url": url}}]}]}),
            ),
            (
                Kind::Openai,
                Endpoint::Responses,
                json!({"model": "m", "input": [{"role": "user", "content": [
                    {"type": "input_text", "text": "où ?"}, {"type": "input_image", "image_url": url}]}]}),
            ),
            (
                Kind::Anthropic,
                Endpoint::Messages,
                json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [
                    {"type": "text", "text": "où ?"}, {"type": "image", "source": {"type": "base64", "data": "aaaa"}}]}]}),
            ),
            (
                Kind::Gemini,
                Endpoint::Generate,
                json!({"contents": [{"parts": [{"text": "où ?"}, {"inlineData": {"mimeType": "image/png", "data": "aaaa"}}]}]}),
            ),
        ] {
            let ask = ask(kind, &endpoint, body);
            assert_eq!(ask.talk.question, "où ?", "{endpoint:?}");
            assert_eq!(ask.prompt_tokens(), 2 + 256, "{endpoint:?}");
            assert_ne!(ask.talk.image_seed, 0, "{endpoint:?}");
        }
    }

    #[test]
    fn marks_count_all_text_before_them() {
        let body = json!({"model": "m", "max_tokens": 5,
            "system": [{"type": "text", "text": "eight by", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "four", "cache_control": {"type": "ephemeral"}}]}]});
        let ask = ask(Kind::Anthropic, &Endpoint::Messages, body);
        assert_eq!((ask.talk.marked_long, ask.talk.marked_short), (8, 4));
    }

    #[test]
    fn a_geminis_schema_is_a_schema() {
        let schema = lower_types(json!({"type": "OBJECT", "properties": {"type": {"type": "STRING"}}}));
        assert_eq!(schema, json!({"type": "object", "properties": {"type": {"type": "string"}}}));
    }
}
