//! OpenAI's Responses.

use serde_json::{Value, json};

use super::ask::{Ask, Thinking};
use super::behaviour::{Behaviour, UsageHabit};
use super::chat::{pieces, tier};
use super::script::{Count, Reason, Script};
use super::tape::{CREATED, Tape, named};

/// An answer in one piece.
pub(super) fn whole(ask: &Ask, script: &Script, behaviour: &Behaviour) -> Value {
    let usage = if behaviour.usage == UsageHabit::Silent { Value::Null } else { usage(&script.count) };
    response(ask, script, end(script), &output(ask, script), &usage)
}

/// The same as server-sent events, numbered from 0. None of them says that the stream ends.
pub(super) fn stream(ask: &Ask, script: &Script, behaviour: &Behaviour) -> Tape {
    let mut writer = Writer { tape: Tape::default(), number: 0 };
    let begun = response(ask, script, "in_progress", &[], &Value::Null);
    writer.event(json!({"type": "response.created", "response": begun}));
    writer.event(json!({"type": "response.in_progress", "response": begun}));
    let output = output(ask, script);
    for (index, item) in output.iter().enumerate() {
        writer.item(index, item, script);
    }
    let name = if script.reason == Reason::Length { "response.incomplete" } else { "response.completed" };
    let ended = whole(ask, script, behaviour);
    writer.event(json!({"type": name, "response": ended}));
    writer.tape
}

/// The event with which a stream says that it failed; `number` is what comes next.
pub(super) fn failure(number: u64, error: &Value) -> Value {
    json!({
        "type": "error", "code": "server_error", "message": error["error"]["message"], "param": null, "sequence_number": number,
    })
}

/// Writes numbered events.
struct Writer {
    tape: Tape,
    number: u64,
}

impl Writer {
    fn event(&mut self, event: Value) {
        let event = self.numbered(event);
        self.tape.push(named(&event));
    }

    fn token(&mut self, event: Value) {
        let event = self.numbered(event);
        self.tape.token(named(&event));
    }

    fn numbered(&mut self, mut event: Value) -> Value {
        event["sequence_number"] = self.number.into();
        self.number += 1;
        event
    }

    fn item(&mut self, index: usize, item: &Value, script: &Script) {
        let id = &item["id"];
        let mut begun = item.clone();
        if begun["status"].is_string() {
            begun["status"] = "in_progress".into();
        }
        let at = |kind: &str| json!({"type": kind, "item_id": id, "output_index": index});
        let with = |kind: &str, more: Value| {
            let mut event = at(kind);
            if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
                event.extend(more);
            }
            event
        };
        match item["type"].as_str() {
            Some("reasoning") => {
                begun["summary"] = json!([]);
                self.event(json!({"type": "response.output_item.added", "output_index": index, "item": begun}));
                if !script.thoughts.is_empty() {
                    let part = |text: &str| json!({"summary_index": 0, "part": {"type": "summary_text", "text": text}});
                    self.event(with("response.reasoning_summary_part.added", part("")));
                    for thought in &script.thoughts {
                        let delta = json!({"summary_index": 0, "delta": thought});
                        self.token(with("response.reasoning_summary_text.delta", delta));
                    }
                    let text = script.thoughts.concat();
                    self.event(with("response.reasoning_summary_text.done", json!({"summary_index": 0, "text": text})));
                    self.event(with("response.reasoning_summary_part.done", part(&text)));
                }
            }
            Some("web_search_call") => {
                self.event(json!({"type": "response.output_item.added", "output_index": index, "item": begun}));
                for step in ["in_progress", "searching", "completed"] {
                    self.event(at(&format!("response.web_search_call.{step}")));
                }
            }
            Some("function_call") => {
                let arguments = item["arguments"].as_str().unwrap_or_default();
                begun["arguments"] = "".into();
                self.event(json!({"type": "response.output_item.added", "output_index": index, "item": begun}));
                for piece in pieces(arguments) {
                    self.token(with("response.function_call_arguments.delta", json!({"delta": piece})));
                }
                let done = json!({"arguments": arguments, "name": item["name"]});
                self.event(with("response.function_call_arguments.done", done));
            }
            _ => {
                begun["content"] = json!([]);
                self.event(json!({"type": "response.output_item.added", "output_index": index, "item": begun}));
                self.event(with("response.content_part.added", json!({"content_index": 0, "part": text_part("")})));
                for token in script.choices.first().into_iter().flatten() {
                    let delta = json!({"content_index": 0, "delta": token, "logprobs": []});
                    self.token(with("response.output_text.delta", delta));
                }
                let text = item["content"][0]["text"].as_str().unwrap_or_default();
                let done = json!({"content_index": 0, "text": text, "logprobs": []});
                self.event(with("response.output_text.done", done));
                self.event(with("response.content_part.done", json!({"content_index": 0, "part": text_part(text)})));
            }
        }
        self.event(json!({"type": "response.output_item.done", "output_index": index, "item": item}));
    }
}

fn output(ask: &Ask, script: &Script) -> Vec<Value> {
    let seed = script.seed;
    let mut items = Vec::new();
    if ask.thinking != Thinking::Off {
        let summary = if script.thoughts.is_empty() {
            json!([])
        } else {
            json!([{"type": "summary_text", "text": script.thoughts.concat()}])
        };
        items.push(json!({"id": format!("rs_{seed:048x}"), "type": "reasoning", "summary": summary}));
    }
    if script.searches {
        items.push(json!({
            "id": format!("ws_{seed:048x}"), "type": "web_search_call", "status": "completed",
            "action": {"type": "search", "query": crate::fake_ollama::text::quote(&ask.talk.question)},
        }));
    }
    let text = script.choices.first().map(|tokens| tokens.concat()).unwrap_or_default();
    if script.calls.is_empty() || !text.is_empty() {
        items.push(json!({
            "id": format!("msg_{seed:048x}"), "type": "message", "status": end(script), "content": [text_part(&text)],
            "role": "assistant",
        }));
    }
    for (index, call) in script.calls.iter().enumerate() {
        items.push(json!({
            "id": format!("fc_{:048x}", seed.wrapping_add(index as u64)), "type": "function_call", "status": "completed",
            "arguments": call.arguments, "call_id": format!("call_{}", call.id), "name": call.name,
        }));
    }
    items
}

const fn end(script: &Script) -> &'static str {
    match script.reason {
        Reason::Length => "incomplete",
        Reason::Stop | Reason::Tool => "completed",
    }
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text})
}

fn response(ask: &Ask, script: &Script, status: &str, output: &[Value], usage: &Value) -> Value {
    let echo = |name: &str, default: Value| match &ask.body[name] {
        Value::Null => default,
        said => said.clone(),
    };
    let is_over = status != "in_progress";
    json!({
        "id": format!("resp_{:048x}", script.seed),
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "background": false,
        "completed_at": if status == "completed" { CREATED.into() } else { Value::Null },
        "error": null,
        "incomplete_details": if status == "incomplete" { json!({"reason": "max_output_tokens"}) } else { Value::Null },
        "instructions": echo("instructions", Value::Null),
        "max_output_tokens": echo("max_output_tokens", Value::Null),
        "max_tool_calls": null,
        "model": ask.model,
        "output": output,
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "prompt_cache_key": null,
        "reasoning": echo("reasoning", json!({"effort": null, "summary": null})),
        "safety_identifier": null,
        "service_tier": if is_over { tier(ask) } else { "auto" },
        "store": echo("store", true.into()),
        "temperature": echo("temperature", json!(1.0)),
        "text": echo("text", json!({"format": {"type": "text"}, "verbosity": "medium"})),
        "tool_choice": echo("tool_choice", "auto".into()),
        "tools": echo("tools", json!([])),
        "top_logprobs": 0,
        "top_p": echo("top_p", json!(1.0)),
        "truncation": "disabled",
        "usage": usage,
        "user": null,
        "metadata": echo("metadata", json!({})),
    })
}

fn usage(count: &Count) -> Value {
    let (written, output) = (count.written_short + count.written_long, count.answer + count.reasoning);
    let mut details = json!({"cached_tokens": count.cached});
    if written > 0 {
        details["cache_write_tokens"] = written.into();
        details["cache_write_tokens_details"] =
            json!({"ttl_30m_tokens": count.written_short, "ttl_12h_tokens": count.written_long});
    }
    json!({
        "input_tokens": count.prompt, "input_tokens_details": details, "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": count.reasoning}, "total_tokens": count.prompt + output,
    })
}
