//! Anthropic's Messages.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{Piece, arguments, decimal, object, text};
use crate::lab::prompt::{Prompt, Said, Stop, Turn};

/// Before what is given back word by word, so that no other provider is ever given it.
const ECHO: &str = "anthropic:";

pub(super) fn body(prompt: &Prompt, limit: u64) -> Value {
    let messages = prompt.turns.iter().filter_map(|turn| {
        let (role, said) = match turn {
            Turn::User(said) => ("user", said),
            Turn::Assistant(said) => ("assistant", said),
        };
        let blocks: Vec<Value> = said.iter().flat_map(blocks).collect();
        (!blocks.is_empty()).then(|| json!({ "role": role, "content": blocks }))
    });
    let mut body = json!({
        "model": prompt.choice.model,
        "max_tokens": limit,
        "messages": messages.collect::<Vec<_>>(),
        "stream": true,
    });
    if let Some(system) = &prompt.system {
        body["system"] = system.as_str().into();
    }
    if let Some(temperature) = prompt.choice.temperature {
        // Its scale ends where others' is in the middle.
        body["temperature"] = decimal(temperature.min(1.0));
    }
    if !prompt.tools.is_empty() {
        let tools = prompt
            .tools
            .iter()
            .map(|tool| json!({ "name": tool.name, "description": tool.description, "input_schema": tool.parameters }));
        body["tools"] = tools.collect();
    }
    body
}

fn blocks(said: &Said) -> Vec<Value> {
    match said {
        Said::Text(text) if text.is_empty() => Vec::new(),
        Said::Text(text) => vec![json!({ "type": "text", "text": text })],
        Said::Image { media_type, data } => {
            let source = json!({ "type": "base64", "media_type": media_type, "data": BASE64.encode(data) });
            vec![json!({ "type": "image", "source": source })]
        }
        Said::ToolCall { call, tool, arguments, echo } => {
            // What it thought before its first call stands before that.
            let thoughts = echo.as_deref().and_then(|echo| echo.strip_prefix(ECHO));
            let mut blocks: Vec<Value> = thoughts.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            blocks.push(json!({ "type": "tool_use", "id": call, "name": tool, "input": object(arguments) }));
            blocks
        }
        Said::ToolResult { call, text, ok, .. } => {
            vec![json!({ "type": "tool_result", "tool_use_id": call, "content": text, "is_error": !ok })]
        }
    }
}

/// Puts blocks together.
#[derive(Default)]
pub(in crate::lab) struct Reader {
    call: Option<Begun>,
    /// The block of thoughts that is coming.
    thought: Option<Value>,
    /// Whole blocks of thoughts that no call has taken along yet.
    thoughts: Vec<Value>,
}

struct Begun {
    id: Option<String>,
    tool: String,
    arguments: String,
}

impl Reader {
    pub(super) fn read(&mut self, message: &Value, say: &mut impl FnMut(Piece)) {
        match message["type"].as_str() {
            Some("content_block_start") => self.start(&message["content_block"], say),
            Some("content_block_delta") => self.delta(&message["delta"], say),
            Some("content_block_stop") => self.finish(say),
            Some("message_delta") => {
                let reason = match message["delta"]["stop_reason"].as_str() {
                    None => return,
                    Some("max_tokens" | "model_context_window_exceeded") => Stop::Length,
                    Some("tool_use") => Stop::ToolCalls,
                    Some("refusal") => Stop::Refused,
                    Some(_) => Stop::Finished,
                };
                self.finish(say);
                say(Piece::Stop(reason));
            }
            Some("error") => say(Piece::Failed),
            _ => {}
        }
    }

    fn start(&mut self, block: &Value, say: &mut impl FnMut(Piece)) {
        self.finish(say);
        match block["type"].as_str() {
            Some("tool_use") => {
                let input = block["input"].as_object().filter(|input| !input.is_empty());
                self.call = Some(Begun {
                    id: text(&block["id"]).map(str::to_owned),
                    tool: block["name"].as_str().unwrap_or_default().to_owned(),
                    arguments: input.map(|_| block["input"].to_string()).unwrap_or_default(),
                });
            }
            Some("thinking" | "redacted_thinking") => self.thought = Some(block.clone()),
            Some("text") => {
                if let Some(words) = text(&block["text"]) {
                    say(Piece::Text(words.to_owned()));
                }
            }
            _ => {}
        }
    }

    fn delta(&mut self, delta: &Value, say: &mut impl FnMut(Piece)) {
        let append = |thought: &mut Option<Value>, name: &str, more: &str| {
            let thought = thought.get_or_insert_with(|| json!({ "type": "thinking", "thinking": "", "signature": "" }));
            let whole = format!("{}{more}", thought[name].as_str().unwrap_or_default());
            thought[name] = whole.into();
        };
        match delta["type"].as_str() {
            Some("text_delta") => {
                if let Some(words) = text(&delta["text"]) {
                    say(Piece::Text(words.to_owned()));
                }
            }
            Some("thinking_delta") => {
                if let Some(words) = text(&delta["thinking"]) {
                    append(&mut self.thought, "thinking", words);
                    say(Piece::Reasoning(words.to_owned()));
                }
            }
            Some("signature_delta") => append(&mut self.thought, "signature", delta["signature"].as_str().unwrap_or_default()),
            Some("input_json_delta") => {
                if let Some(call) = &mut self.call {
                    call.arguments.push_str(delta["partial_json"].as_str().unwrap_or_default());
                }
            }
            _ => {}
        }
    }

    /// The block that was coming is whole.
    pub(super) fn finish(&mut self, say: &mut impl FnMut(Piece)) {
        self.thoughts.extend(self.thought.take());
        let Some(Begun { id, tool, arguments: input }) = self.call.take() else { return };
        let thoughts = std::mem::take(&mut self.thoughts);
        let echo = (!thoughts.is_empty()).then(|| format!("{ECHO}{}", Value::Array(thoughts)));
        say(Piece::Call { id, tool, arguments: arguments(&input), echo });
    }
}
