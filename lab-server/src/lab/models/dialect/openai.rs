//! Chat completions, as OpenAI, xAI, Azure and all who are compatible speak them.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::{Piece, arguments, decimal, text};
use crate::lab::prompt::{Prompt, Said, Stop, Turn};

pub(super) fn body(prompt: &Prompt, limit_name: &str, limit: u64) -> Value {
    let mut messages = Vec::with_capacity(prompt.turns.len() + 1);
    if let Some(system) = &prompt.system {
        messages.push(json!({ "role": "system", "content": system }));
    }
    for turn in &prompt.turns {
        match turn {
            Turn::User(said) => user(said, &mut messages),
            Turn::Assistant(said) => messages.extend(assistant(said)),
        }
    }
    let mut body = json!({
        "model": prompt.choice.model,
        "messages": messages,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    body[limit_name] = limit.into();
    if let Some(temperature) = prompt.choice.temperature {
        body["temperature"] = decimal(temperature);
    }
    if !prompt.tools.is_empty() {
        let tools = prompt.tools.iter().map(|tool| {
            json!({
                "type": "function",
                "function": { "name": tool.name, "description": tool.description, "parameters": tool.parameters },
            })
        });
        body["tools"] = tools.collect();
    }
    body
}

/// Results of tools are messages of their own, and come before what the person says.
fn user(said: &[Said], messages: &mut Vec<Value>) {
    let mut content = Vec::new();
    for piece in said {
        match piece {
            Said::Text(text) => content.push(json!({ "type": "text", "text": text })),
            Said::Image { media_type, data } => {
                let url = format!("data:{media_type};base64,{}", BASE64.encode(data));
                content.push(json!({ "type": "image_url", "image_url": { "url": url } }));
            }
            Said::ToolResult { call, text, .. } => {
                messages.push(json!({ "role": "tool", "tool_call_id": call, "content": text }));
            }
            Said::ToolCall { .. } => {}
        }
    }
    match &content[..] {
        [] => {}
        // Servers of one's own often take nothing but a text.
        [only] if only["type"] == "text" => messages.push(json!({ "role": "user", "content": only["text"] })),
        _ => messages.push(json!({ "role": "user", "content": content })),
    }
}

fn assistant(said: &[Said]) -> Option<Value> {
    let (mut words, mut calls) = (String::new(), Vec::new());
    for piece in said {
        match piece {
            Said::Text(text) => words.push_str(text),
            Said::ToolCall { call, tool, arguments, .. } => {
                // What was no JSON goes back as it came.
                let arguments = arguments.as_str().map_or_else(|| arguments.to_string(), str::to_owned);
                calls.push(json!({ "id": call, "type": "function", "function": { "name": tool, "arguments": arguments } }));
            }
            Said::Image { .. } | Said::ToolResult { .. } => {}
        }
    }
    if words.is_empty() && calls.is_empty() {
        return None;
    }
    let content = if words.is_empty() { Value::Null } else { words.into() };
    let mut message = json!({ "role": "assistant", "content": content });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    Some(message)
}

/// Puts calls together that come in pieces.
#[derive(Default)]
pub(in crate::lab) struct Reader {
    calls: Vec<Begun>,
}

struct Begun {
    index: u64,
    id: Option<String>,
    tool: String,
    arguments: String,
}

impl Reader {
    pub(super) fn read(&mut self, message: &Value, say: &mut impl FnMut(Piece)) {
        if message.get("error").is_some_and(|error| !error.is_null()) {
            return say(Piece::Failed);
        }
        let choice = &message["choices"][0];
        let delta = &choice["delta"];
        let thoughts = text(&delta["reasoning_content"]).or_else(|| text(&delta["reasoning"]));
        if let Some(thoughts) = thoughts {
            say(Piece::Reasoning(thoughts.to_owned()));
        }
        if let Some(words) = text(&delta["content"]) {
            say(Piece::Text(words.to_owned()));
        }
        let refusal = text(&delta["refusal"]);
        if let Some(words) = refusal {
            say(Piece::Text(words.to_owned()));
            say(Piece::Stop(Stop::Refused));
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call);
        }
        match choice["finish_reason"].as_str() {
            None => {}
            Some(reason) => {
                self.finish(say);
                say(Piece::Stop(match reason {
                    "length" => Stop::Length,
                    "tool_calls" | "function_call" => Stop::ToolCalls,
                    "content_filter" => Stop::Refused,
                    _ => Stop::Finished,
                }));
            }
        }
    }

    /// A piece belongs to the call of its index. Who gives none, gives whole calls, or goes on with the last one.
    fn call(&mut self, piece: &Value) {
        let id = text(&piece["id"]);
        let index = piece["index"].as_u64().unwrap_or_else(|| {
            let last = self.calls.last().map_or(0, |last| last.index);
            if id.is_some() && !self.calls.is_empty() { last + 1 } else { last }
        });
        let at = match self.calls.iter().position(|call| call.index == index) {
            Some(at) => at,
            None => {
                self.calls.push(Begun { index, id: None, tool: String::new(), arguments: String::new() });
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[at];
        if let Some(id) = id {
            call.id.get_or_insert_with(|| id.to_owned());
        }
        let function = &piece["function"];
        if let Some(name) = text(&function["name"])
            && call.tool.is_empty()
        {
            name.clone_into(&mut call.tool);
        }
        match &function["arguments"] {
            Value::String(more) => call.arguments.push_str(more),
            Value::Object(whole) => call.arguments = Value::Object(Map::clone(whole)).to_string(),
            _ => {}
        }
    }

    pub(super) fn finish(&mut self, say: &mut impl FnMut(Piece)) {
        for Begun { id, tool, arguments: text, .. } in self.calls.drain(..) {
            say(Piece::Call { id, tool, arguments: arguments(&text), echo: None });
        }
    }
}
