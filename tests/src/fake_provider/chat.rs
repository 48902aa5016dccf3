//! OpenAI's older endpoints, as OpenAI and those who follow it answer them: chat, completions, embeddings, images, models.

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::ask::Ask;
use super::behaviour::{Behaviour, UsageHabit};
use super::kind::Kind;
use super::script::{Count, Reason, Script, embedding};
use super::tape::{CREATED, Tape, data};

/// What an image costs that nobody asked to be large.
const IMAGE_TOKENS: u64 = 272;
/// A picture of one pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
/// xAI's prices, in ticks of 10⁻¹⁰ USD for a token: of the prompt, of the cache, of the answer.
const TICKS: [u64; 3] = [20_000, 5_000, 60_000];

/// The tier that an answer was served in, as the request's wish turns out.
pub(super) fn tier(ask: &Ask) -> &str {
    match ask.body["service_tier"].as_str() {
        Some("fast" | "priority") => "priority",
        Some(tier @ ("flex" | "scale")) => tier,
        _ => "default",
    }
}

/// An answer in one piece.
pub(super) fn chat(ask: &Ask, script: &Script, behaviour: &Behaviour) -> Value {
    let choices = script.choices.iter().enumerate().map(|(index, tokens)| {
        let content = if tokens.is_empty() && !script.calls.is_empty() { Value::Null } else { tokens.concat().into() };
        let mut message = json!({"role": "assistant", "content": content});
        if !script.thoughts.is_empty() {
            message["reasoning_content"] = script.thoughts.concat().into();
        }
        if !script.calls.is_empty() {
            let calls = script.calls.iter().map(|call| {
                json!({
                    "id": format!("call_{}", call.id), "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                })
            });
            message["tool_calls"] = calls.collect();
        }
        if matches!(ask.kind, Kind::Openai | Kind::Azure) {
            message["refusal"] = Value::Null;
            message["annotations"] = json!([]);
        }
        let mut choice = json!({"index": index, "message": message, "finish_reason": reason(script.reason)});
        match ask.kind {
            Kind::Openai => choice["logprobs"] = Value::Null,
            Kind::Azure => {
                choice["logprobs"] = Value::Null;
                choice["content_filter_results"] = filter_results();
            }
            _ => {}
        }
        choice
    });
    let mut answer = json!({
        "id": id("chatcmpl-", script), "object": "chat.completion", "created": CREATED, "model": ask.model,
        "choices": choices.collect::<Vec<_>>(),
    });
    if ask.kind == Kind::Azure {
        answer["prompt_filter_results"] = prompt_filter_results();
    }
    if behaviour.usage != UsageHabit::Silent {
        answer["usage"] = usage(ask.kind, &script.count);
    }
    sign(ask, &mut answer);
    answer
}

/// The same as server-sent events.
pub(super) fn chat_stream(ask: &Ask, script: &Script, behaviour: &Behaviour) -> Tape {
    let mut tape = Tape::default();
    let says_usage = ask.include_usage && behaviour.usage == UsageHabit::Documented;
    let mut noise = 0_u64;
    let mut chunk = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({
            "id": id("chatcmpl-", script), "object": "chat.completion.chunk", "created": CREATED, "model": ask.model,
        });
        sign(ask, &mut chunk);
        chunk["choices"] = choices;
        match usage {
            Some(usage) => chunk["usage"] = usage,
            None if says_usage => chunk["usage"] = Value::Null,
            None => {}
        }
        if ask.kind == Kind::Openai && ask.body["stream_options"]["include_obfuscation"] != false {
            // As long as it must be for all frames to be of a few lengths.
            noise += 1;
            chunk["obfuscation"] = "x7Kp2mQz"[..(noise % 8) as usize].into();
        }
        data(&chunk)
    };
    let choice = |index: usize, delta: Value, reason: Value| {
        let mut choice = json!({"index": index, "delta": delta, "finish_reason": reason});
        match ask.kind {
            Kind::Openai => choice["logprobs"] = Value::Null,
            Kind::Azure => {
                choice["logprobs"] = Value::Null;
                choice["content_filter_results"] = json!({});
            }
            _ => {}
        }
        json!([choice])
    };
    if ask.kind == Kind::Azure {
        // Before the model is asked: there is neither an id nor a model.
        let first = json!({
            "choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": prompt_filter_results(),
        });
        tape.push(data(&first));
    }
    for index in 0..script.choices.len() {
        let mut delta = json!({"role": "assistant", "content": ""});
        if matches!(ask.kind, Kind::Openai | Kind::Azure) {
            delta["refusal"] = Value::Null;
        }
        tape.push(chunk(choice(index, delta, Value::Null), None));
    }
    for thought in &script.thoughts {
        tape.token(chunk(choice(0, json!({"reasoning_content": thought}), Value::Null), None));
    }
    let longest = script.choices.iter().map(Vec::len).max().unwrap_or_default();
    for step in 0..longest {
        for (index, tokens) in script.choices.iter().enumerate() {
            if let Some(token) = tokens.get(step) {
                tape.token(chunk(choice(index, json!({"content": token}), Value::Null), None));
            }
        }
    }
    for (number, call) in script.calls.iter().enumerate() {
        for index in 0..script.choices.len() {
            let start = json!({"tool_calls": [{
                "index": number, "id": format!("call_{}", call.id), "type": "function", "function": {"name": call.name, "arguments": ""},
            }]});
            tape.token(chunk(choice(index, start, Value::Null), None));
            for piece in pieces(&call.arguments) {
                let more = json!({"tool_calls": [{"index": number, "function": {"arguments": piece}}]});
                tape.token(chunk(choice(index, more, Value::Null), None));
            }
        }
    }
    for index in 0..script.choices.len() {
        let is_last = index + 1 == script.choices.len();
        let with = is_last && behaviour.usage == UsageHabit::WithLastChoice;
        let usage = with.then(|| usage(ask.kind, &script.count));
        tape.push(chunk(choice(index, json!({}), reason(script.reason).into()), usage));
    }
    if ask.kind == Kind::Azure {
        // What the filter found out after the text had left; it has no delta.
        let offsets = json!({"check_offset": 0, "start_offset": 0, "end_offset": script.count.prompt * 4});
        let tail = json!([{
            "index": 0, "finish_reason": null, "content_filter_results": filter_results(), "content_filter_offsets": offsets,
        }]);
        tape.push(data(&json!({"id": "", "object": "", "created": 0, "model": "", "choices": tail})));
    }
    if says_usage {
        tape.push(chunk(json!([]), Some(usage(ask.kind, &script.count))));
    }
    tape.push("data: [DONE]\n\n");
    tape
}

/// A completion in one piece.
pub(super) fn completion(ask: &Ask, script: &Script, behaviour: &Behaviour) -> Value {
    let choices = script.choices.iter().enumerate().map(|(index, tokens)| {
        json!({"text": tokens.concat(), "index": index, "logprobs": null, "finish_reason": reason(script.reason)})
    });
    let mut answer = json!({
        "id": id("cmpl-", script), "object": "text_completion", "created": CREATED, "model": ask.model,
        "choices": choices.collect::<Vec<_>>(),
    });
    if behaviour.usage != UsageHabit::Silent {
        answer["usage"] = usage(ask.kind, &script.count);
    }
    answer
}

/// The same as server-sent events.
pub(super) fn completion_stream(ask: &Ask, script: &Script, behaviour: &Behaviour) -> Tape {
    let mut tape = Tape::default();
    let says_usage = ask.include_usage && behaviour.usage == UsageHabit::Documented;
    let chunk = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({
            "id": id("cmpl-", script), "object": "text_completion", "created": CREATED, "choices": choices, "model": ask.model,
        });
        match usage {
            Some(usage) => chunk["usage"] = usage,
            None if says_usage => chunk["usage"] = Value::Null,
            None => {}
        }
        data(&chunk)
    };
    for (index, tokens) in script.choices.iter().enumerate() {
        let choice = |text: &str, reason: Value| json!([{"text": text, "index": index, "logprobs": null, "finish_reason": reason}]);
        for token in tokens {
            tape.token(chunk(choice(token, Value::Null), None));
        }
        let with = behaviour.usage == UsageHabit::WithLastChoice && index + 1 == script.choices.len();
        let usage = with.then(|| usage(ask.kind, &script.count));
        tape.push(chunk(choice("", reason(script.reason).into()), usage));
    }
    if says_usage {
        tape.push(chunk(json!([]), Some(usage(ask.kind, &script.count))));
    }
    tape.push("data: [DONE]\n\n");
    tape
}

/// The vectors of one text or several.
pub(super) fn embeddings(ask: &Ask, behaviour: &Behaviour) -> Value {
    let input = &ask.body["input"];
    let texts = match input {
        Value::Array(items) if items.iter().any(|item| item.is_string() || item.is_array()) => items.clone(),
        // One text, or one in tokens.
        one => vec![one.clone()],
    };
    let dimensions = ask.body["dimensions"].as_u64().map_or(behaviour.dimensions, |wanted| wanted.clamp(1, 8192) as u32);
    let data = texts.iter().enumerate().map(|(index, text)| {
        let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
        let vector = embedding(&ask.model, &text, dimensions);
        let vector = match ask.body["encoding_format"].as_str() {
            Some("base64") => BASE64.encode(&vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>()).into(),
            _ => json!(vector),
        };
        json!({"object": "embedding", "index": index, "embedding": vector})
    });
    let mut answer = json!({"object": "list", "data": data.collect::<Vec<_>>(), "model": ask.model});
    if behaviour.usage != UsageHabit::Silent {
        let tokens = ask.prompt_tokens();
        answer["usage"] = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    }
    answer
}

/// Pictures in one piece.
pub(super) fn images(ask: &Ask, behaviour: &Behaviour) -> Value {
    let count = ask.body["n"].as_u64().unwrap_or(1).clamp(1, 10);
    let mut answer = json!({
        "created": CREATED, "background": "opaque",
        "data": (0..count).map(|_| json!({"b64_json": PNG})).collect::<Vec<_>>(),
        "output_format": "png", "quality": "low", "size": "1024x1024",
    });
    if behaviour.usage != UsageHabit::Silent {
        answer["usage"] = image_usage(ask, count);
    }
    answer
}

/// One picture, with a sketch of it before.
pub(super) fn images_stream(ask: &Ask, behaviour: &Behaviour) -> Tape {
    let mut tape = Tape::default();
    let event = |kind: &str| {
        json!({"type": kind, "b64_json": PNG, "created_at": CREATED, "size": "1024x1024", "quality": "low", "background": "opaque",
            "output_format": "png"})
    };
    let mut partial = event("image_generation.partial_image");
    partial["partial_image_index"] = 0.into();
    tape.token(super::tape::named(&partial));
    let mut completed = event("image_generation.completed");
    if behaviour.usage != UsageHabit::Silent {
        completed["usage"] = image_usage(ask, 1);
    }
    tape.push(super::tape::named(&completed));
    tape
}

fn image_usage(ask: &Ask, count: u64) -> Value {
    let (input, output) = (ask.prompt_tokens(), count * IMAGE_TOKENS);
    json!({
        "input_tokens": input, "input_tokens_details": {"image_tokens": 0, "text_tokens": input},
        "output_tokens": output, "output_tokens_details": {"image_tokens": output, "text_tokens": 0},
        "total_tokens": input + output,
    })
}

/// What a request counts for, as each provider says it in OpenAI's words.
pub(super) fn usage(kind: Kind, count: &Count) -> Value {
    let Count { prompt, cached, answer, reasoning, .. } = *count;
    let written = count.written_short + count.written_long;
    match kind {
        // Its compatible endpoint tells sums only.
        Kind::Anthropic => {
            let completion = answer + reasoning;
            json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
        }
        // Google's leaves reasoning out of the completion and puts it into the total.
        Kind::Gemini => {
            let mut usage = json!({
                "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer + reasoning,
            });
            if cached > 0 {
                usage["prompt_tokens_details"] = json!({"cached_tokens": cached});
            }
            if reasoning > 0 {
                usage["completion_tokens_details"] = json!({"reasoning_tokens": reasoning});
            }
            usage
        }
        // xAI too, and it says what it takes.
        Kind::Xai => {
            let [input, cache, output] = TICKS;
            json!({
                "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer + reasoning,
                "prompt_tokens_details": {"text_tokens": prompt, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": cached},
                "completion_tokens_details": {
                    "reasoning_tokens": reasoning, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
                },
                "num_sources_used": 0,
                "cost_in_usd_ticks": (prompt - cached) * input + cached * cache + (answer + reasoning) * output,
            })
        }
        Kind::Openai | Kind::Azure | Kind::Compatible => {
            let completion = answer + reasoning;
            let mut usage = json!({
                "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
                "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
                "completion_tokens_details": {
                    "reasoning_tokens": reasoning, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
                },
            });
            if written > 0 {
                usage["prompt_tokens_details"]["cache_write_tokens"] = written.into();
            }
            usage
        }
    }
}

/// The models that a provider lists.
pub(super) fn models(kind: Kind) -> Value {
    let data = names(kind).iter().map(|name| model(kind, name));
    json!({"object": "list", "data": data.collect::<Vec<_>>()})
}

/// One of them.
pub(super) fn model(kind: Kind, name: &str) -> Value {
    json!({"id": name, "object": "model", "created": CREATED, "owned_by": kind.name()})
}

/// What each provider's listing holds. Names that nobody lists are answered too.
pub(super) const fn names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Openai | Kind::Azure => &["gpt-fake", "gpt-fake-embedding", "gpt-fake-image"],
        Kind::Anthropic => &["claude-fake", "claude-fake-small"],
        Kind::Gemini => &["gemini-fake", "gemini-fake-embedding", "text-fake-embedding"],
        Kind::Xai => &["grok-fake"],
        Kind::Compatible => &["other-fake"],
    }
}

const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Stop => "stop",
        Reason::Length => "length",
        Reason::Tool => "tool_calls",
    }
}

fn id(prefix: &str, script: &Script) -> String {
    format!("{prefix}{:029x}", script.seed)
}

/// What tells one provider's answer from another's.
fn sign(ask: &Ask, answer: &mut Value) {
    match ask.kind {
        Kind::Openai => {
            answer["service_tier"] = tier(ask).into();
            answer["system_fingerprint"] = "fp_fake000000".into();
        }
        Kind::Azure | Kind::Xai => answer["system_fingerprint"] = "fp_fake000000".into(),
        Kind::Anthropic | Kind::Gemini | Kind::Compatible => {}
    }
}

/// Arguments in the pieces in which they are streamed.
pub(super) fn pieces(text: &str) -> Vec<String> {
    crate::fake_ollama::text::tokens_of(text)
}

fn filter_results() -> Value {
    let safe = json!({"filtered": false, "severity": "safe"});
    json!({"hate": safe, "self_harm": safe, "sexual": safe, "violence": safe})
}

fn prompt_filter_results() -> Value {
    json!([{"prompt_index": 0, "content_filter_results": filter_results()}])
}
