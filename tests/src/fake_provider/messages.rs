//! Anthropic's Messages, and its list of models.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::ask::Ask;
use super::behaviour::{Behaviour, UsageHabit};
use super::chat::{names, pieces};
use super::kind::Kind;
use super::script::{Reason, Script};
use super::tape::{CREATED_AT, Tape, named};

/// An answer in one piece.
pub(super) fn whole(ask: &Ask, script: &Script, behaviour: &Behaviour) -> Value {
    let mut message = message(ask, script, blocks(ask, script));
    message["stop_reason"] = reason(script.reason).into();
    if behaviour.usage == UsageHabit::Silent {
        if let Some(message) = message.as_object_mut() {
            message.remove("usage");
        }
    } else {
        message["usage"] = usage(ask, script, script.count.answer + script.count.reasoning);
    }
    message
}

/// The same as server-sent events.
pub(super) fn stream(ask: &Ask, script: &Script, behaviour: &Behaviour) -> Tape {
    let mut tape = Tape::default();
    let mut first = message(ask, script, Vec::new());
    if behaviour.usage == UsageHabit::Silent {
        // The client libraries want the member; that there is nothing in it is what is meant.
        first["usage"] = json!({"input_tokens": 0, "output_tokens": 0});
    } else {
        // How long the answer becomes is not known yet.
        first["usage"] = usage(ask, script, 1);
    }
    tape.push(named(&json!({"type": "message_start", "message": first})));
    for (index, block) in blocks(ask, script).iter().enumerate() {
        let delta = |delta: Value| named(&json!({"type": "content_block_delta", "index": index, "delta": delta}));
        let start = |block: Value| named(&json!({"type": "content_block_start", "index": index, "content_block": block}));
        let ping = |tape: &mut Tape| {
            if index == 0 {
                tape.push(named(&json!({"type": "ping"})));
            }
        };
        match block["type"].as_str() {
            Some("thinking") => {
                tape.push(start(json!({"type": "thinking", "thinking": "", "signature": ""})));
                ping(&mut tape);
                for thought in &script.thoughts {
                    tape.token(delta(json!({"type": "thinking_delta", "thinking": thought})));
                }
                tape.push(delta(json!({"type": "signature_delta", "signature": block["signature"]})));
            }
            Some("text") => {
                tape.push(start(json!({"type": "text", "text": ""})));
                ping(&mut tape);
                for token in script.choices.first().into_iter().flatten() {
                    tape.token(delta(json!({"type": "text_delta", "text": token})));
                }
            }
            Some("tool_use" | "server_tool_use") => {
                let mut begun = block.clone();
                begun["input"] = json!({});
                tape.push(start(begun));
                ping(&mut tape);
                tape.token(delta(json!({"type": "input_json_delta", "partial_json": ""})));
                let call = script.calls.iter().find(|call| block["id"] == format!("toolu_{}", call.id));
                let input = call.map_or_else(|| block["input"].to_string(), |call| call.arguments.clone());
                for piece in pieces(&input) {
                    tape.token(delta(json!({"type": "input_json_delta", "partial_json": piece})));
                }
            }
            _ => {
                tape.push(start(block.clone()));
                ping(&mut tape);
            }
        }
        tape.push(named(&json!({"type": "content_block_stop", "index": index})));
    }
    let mut end = json!({
        "type": "message_delta", "delta": {"stop_reason": reason(script.reason), "stop_sequence": null},
    });
    end["usage"] = if behaviour.usage == UsageHabit::Silent {
        json!({"output_tokens": 0})
    } else {
        let mut all = usage(ask, script, script.count.answer + script.count.reasoning);
        // What cannot change any more is said at the start only.
        if let Some(all) = all.as_object_mut() {
            for name in ["cache_creation", "service_tier", "inference_geo", "speed"] {
                all.remove(name);
            }
        }
        all
    };
    tape.push(named(&end));
    tape.push(named(&json!({"type": "message_stop"})));
    tape
}

fn message(ask: &Ask, script: &Script, content: Vec<Value>) -> Value {
    json!({
        "model": ask.model, "id": format!("msg_{:024x}", script.seed), "type": "message", "role": "assistant",
        "content": content, "stop_reason": null, "stop_sequence": null, "usage": null,
    })
}

fn blocks(ask: &Ask, script: &Script) -> Vec<Value> {
    let mut blocks = Vec::new();
    if !script.thoughts.is_empty() {
        let signature = BASE64.encode(&script.seed.to_le_bytes());
        blocks.push(json!({"type": "thinking", "thinking": script.thoughts.concat(), "signature": signature}));
    }
    if script.searches {
        let id = format!("srvtoolu_{:024x}", script.seed);
        let query = crate::fake_ollama::text::quote(&ask.talk.question);
        blocks.push(json!({"type": "server_tool_use", "id": id, "name": "web_search", "input": {"query": query}}));
        blocks.push(json!({"type": "web_search_tool_result", "tool_use_id": id, "content": []}));
    }
    let text = script.choices.first().map(|tokens| tokens.concat()).unwrap_or_default();
    if script.calls.is_empty() || !text.is_empty() {
        blocks.push(json!({"type": "text", "text": text}));
    }
    for call in &script.calls {
        let id = format!("toolu_{}", call.id);
        blocks.push(json!({"type": "tool_use", "id": id, "name": call.name, "input": call.value()}));
    }
    blocks
}

/// The cache's share stands beside the input, not in it.
fn usage(ask: &Ask, script: &Script, output: u64) -> Value {
    let count = &script.count;
    let written = count.written_short + count.written_long;
    let mut usage = json!({
        "input_tokens": count.prompt - count.cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": count.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": count.written_short, "ephemeral_1h_input_tokens": count.written_long},
        "output_tokens": output,
        "service_tier": "standard",
        "inference_geo": ask.body["inference_geo"].as_str().unwrap_or("not_available"),
    });
    if count.reasoning > 0 && output > 1 {
        usage["output_tokens_details"] = json!({"thinking_tokens": count.reasoning});
    }
    if script.searches {
        usage["server_tool_use"] = json!({"web_search_requests": 1, "web_fetch_requests": 0});
    }
    if let Some(speed) = ask.body["speed"].as_str() {
        usage["speed"] = speed.into();
    }
    usage
}

const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Stop => "end_turn",
        Reason::Length => "max_tokens",
        Reason::Tool => "tool_use",
    }
}

/// The models that it lists.
pub(super) fn models() -> Value {
    let names = names(Kind::Anthropic);
    json!({
        "data": names.iter().map(|name| model(name)).collect::<Vec<_>>(), "has_more": false,
        "first_id": names.first(), "last_id": names.last(),
    })
}

/// One of them.
pub(super) fn model(name: &str) -> Value {
    json!({"type": "model", "id": name, "display_name": name, "created_at": CREATED_AT})
}
