//! Gemini's own `streamGenerateContent`.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{Piece, decimal, object, text};
use crate::lab::prompt::{Prompt, Said, Stop, Turn};

/// Before what is given back word by word, so that no other provider is ever given it.
const ECHO: &str = "gemini:";
/// What Google documents for calls that another model made: it insists on a signature for the first call of a turn.
const OF_ANOTHER: &str = "skip_thought_signature_validator";

pub(super) fn body(prompt: &Prompt, limit: u64) -> Value {
    let contents = prompt.turns.iter().filter_map(|turn| {
        let (role, said) = match turn {
            Turn::User(said) => ("user", said),
            Turn::Assistant(said) => ("model", said),
        };
        let mut parts: Vec<Value> = said.iter().filter_map(part).collect();
        if let Some(first) = parts.iter_mut().find(|part| part["functionCall"].is_object())
            && first["thoughtSignature"].is_null()
        {
            first["thoughtSignature"] = OF_ANOTHER.into();
        }
        (!parts.is_empty()).then(|| json!({ "role": role, "parts": parts }))
    });
    let mut body = json!({
        "contents": contents.collect::<Vec<_>>(),
        "generationConfig": { "maxOutputTokens": limit },
    });
    if let Some(system) = &prompt.system {
        body["systemInstruction"] = json!({ "parts": [{ "text": system }] });
    }
    if let Some(temperature) = prompt.choice.temperature {
        body["generationConfig"]["temperature"] = decimal(temperature);
    }
    if !prompt.tools.is_empty() {
        let declarations = prompt
            .tools
            .iter()
            .map(|tool| json!({ "name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters }));
        body["tools"] = json!([{ "functionDeclarations": declarations.collect::<Vec<_>>() }]);
    }
    body
}

fn part(said: &Said) -> Option<Value> {
    Some(match said {
        Said::Text(text) if text.is_empty() => return None,
        Said::Text(text) => json!({ "text": text }),
        Said::Image { media_type, data } => json!({ "inlineData": { "mimeType": media_type, "data": BASE64.encode(data) } }),
        Said::ToolCall { tool, arguments, echo, .. } => {
            let mut part = json!({ "functionCall": { "name": tool, "args": object(arguments) } });
            if let Some(signature) = echo.as_deref().and_then(|echo| echo.strip_prefix(ECHO)) {
                part["thoughtSignature"] = signature.into();
            }
            part
        }
        Said::ToolResult { tool, text, ok, .. } => {
            let response = if *ok { json!({ "output": text }) } else { json!({ "error": text }) };
            json!({ "functionResponse": { "name": tool, "response": response } })
        }
    })
}

pub(super) fn read(message: &Value, say: &mut impl FnMut(Piece)) {
    if message["error"].is_object() {
        return say(Piece::Failed);
    }
    if message["promptFeedback"]["blockReason"].is_string() {
        say(Piece::Stop(Stop::Refused));
    }
    let candidate = &message["candidates"][0];
    let mut calls = false;
    for part in candidate["content"]["parts"].as_array().into_iter().flatten() {
        let call = &part["functionCall"];
        if call.is_object() {
            calls = true;
            say(Piece::Call {
                id: text(&call["id"]).map(str::to_owned),
                tool: call["name"].as_str().unwrap_or_default().to_owned(),
                arguments: if call["args"].is_null() { json!({}) } else { call["args"].clone() },
                echo: text(&part["thoughtSignature"]).map(|signature| format!("{ECHO}{signature}")),
            });
        } else if let Some(words) = text(&part["text"]) {
            let is_thought = part["thought"] == true;
            say(if is_thought { Piece::Reasoning(words.to_owned()) } else { Piece::Text(words.to_owned()) });
        }
    }
    if let Some(reason) = candidate["finishReason"].as_str() {
        say(Piece::Stop(match reason {
            "STOP" if calls => Stop::ToolCalls,
            "STOP" | "FINISH_REASON_UNSPECIFIED" => Stop::Finished,
            "MAX_TOKENS" => Stop::Length,
            // A call that it made badly is an answer that says nothing; the agent asks again.
            "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "OTHER" => Stop::Finished,
            _ => Stop::Refused,
        }));
    }
}
