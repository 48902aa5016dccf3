//! Ollama's own `/api/chat`: on its OpenAI surface the text of an error in mid-stream is lost, and how long loading took is not told.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{Piece, decimal, object, text};
use crate::lab::prompt::{Prompt, Said, Stop, Turn};

pub(super) fn body(prompt: &Prompt, context: Option<u64>) -> Value {
    let mut messages = Vec::with_capacity(prompt.turns.len() + 1);
    if let Some(system) = &prompt.system {
        messages.push(json!({ "role": "system", "content": system }));
    }
    for turn in &prompt.turns {
        let (role, said) = match turn {
            Turn::User(said) => ("user", said),
            Turn::Assistant(said) => ("assistant", said),
        };
        let (mut words, mut images, mut calls) = (String::new(), Vec::new(), Vec::new());
        for piece in said {
            match piece {
                Said::Text(text) => words.push_str(text),
                Said::Image { data, .. } => images.push(BASE64.encode(data)),
                Said::ToolCall { call, tool, arguments, .. } => {
                    calls.push(json!({ "id": call, "function": { "name": tool, "arguments": object(arguments) } }));
                }
                Said::ToolResult { call, tool, text, .. } => {
                    messages.push(json!({ "role": "tool", "tool_name": tool, "tool_call_id": call, "content": text }));
                }
            }
        }
        if words.is_empty() && images.is_empty() && calls.is_empty() {
            continue;
        }
        let mut message = json!({ "role": role, "content": words });
        if !images.is_empty() {
            message["images"] = images.into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        messages.push(message);
    }
    let mut body = json!({ "model": prompt.choice.model, "messages": messages, "stream": true });
    if let Some(context) = context {
        body["options"]["num_ctx"] = context.into();
    }
    // A limit only where the person says one: the answer costs nobody money.
    if let Some(limit) = prompt.choice.max_output_tokens {
        body["options"]["num_predict"] = limit.into();
    }
    if let Some(temperature) = prompt.choice.temperature {
        body["options"]["temperature"] = decimal(temperature);
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

pub(super) fn read(message: &Value, say: &mut impl FnMut(Piece)) {
    if message.get("error").is_some() {
        return say(Piece::Failed);
    }
    let said = &message["message"];
    if let Some(thoughts) = text(&said["thinking"]) {
        say(Piece::Reasoning(thoughts.to_owned()));
    }
    if let Some(words) = text(&said["content"]) {
        say(Piece::Text(words.to_owned()));
    }
    for call in said["tool_calls"].as_array().into_iter().flatten() {
        let function = &call["function"];
        say(Piece::Call {
            id: text(&call["id"]).map(str::to_owned),
            tool: function["name"].as_str().unwrap_or_default().to_owned(),
            arguments: if function["arguments"].is_null() { json!({}) } else { function["arguments"].clone() },
            echo: None,
        });
    }
    if message["done"] == true {
        if let Some(nanos) = message["load_duration"].as_u64() {
            say(Piece::Loaded(nanos));
        }
        say(Piece::Stop(if message["done_reason"] == "length" { Stop::Length } else { Stop::Finished }));
    }
}
