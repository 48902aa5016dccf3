//! Gemini's own endpoints.

use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use super::ask::{Ask, Thinking};
use super::behaviour::{Behaviour, UsageHabit};
use super::chat::names;
use super::kind::Kind;
use super::refusal::pretty;
use super::script::{Count, Reason, Script, embedding};
use super::tape::Tape;

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// With `alt=sse`: server-sent events, with Google's line ends.
    Events,
    /// Without: one JSON array, an element at a time.
    Array,
}

/// An answer in one piece.
pub(super) fn whole(ask: &Ask, script: &Script, behaviour: &Behaviour) -> Value {
    let candidates = script.choices.iter().enumerate().map(|(index, tokens)| {
        let mut parts = Vec::new();
        if !script.thoughts.is_empty() {
            parts.push(json!({"text": script.thoughts.concat(), "thought": true}));
        }
        if script.calls.is_empty() || !tokens.is_empty() {
            parts.push(json!({"text": tokens.concat()}));
        }
        parts.extend(calls(script));
        candidate(index, &parts, Some(script.reason))
    });
    answer(ask, script, behaviour, candidates.collect(), &script.count)
}

/// The same in pieces; each of them says what was used so far.
pub(super) fn stream(ask: &Ask, script: &Script, behaviour: &Behaviour, layout: Layout) -> Tape {
    let mut pieces = Vec::new();
    let mut said = Count { answer: 0, reasoning: 0, ..script.count };
    let hidden = ask.thinking == Thinking::Hidden;
    if hidden {
        said.reasoning = script.count.reasoning;
    }
    for thought in &script.thoughts {
        said.reasoning += 1;
        pieces.push((vec![candidate(0, &[json!({"text": thought, "thought": true})], None)], said));
    }
    let longest = script.choices.iter().map(Vec::len).max().unwrap_or_default();
    for step in 0..longest {
        for (index, tokens) in script.choices.iter().enumerate() {
            let Some(token) = tokens.get(step) else { continue };
            said.answer += 1;
            let last = (step + 1 == tokens.len() && script.calls.is_empty()).then_some(script.reason);
            pieces.push((vec![candidate(index, &[json!({"text": token})], last)], said));
        }
    }
    if !script.calls.is_empty() {
        let parts = calls(script);
        let candidates = (0..script.choices.len()).map(|index| candidate(index, &parts, Some(script.reason)));
        pieces.push((candidates.collect(), script.count));
    } else if longest == 0 {
        pieces.push((vec![candidate(0, &[], Some(script.reason))], script.count));
    }
    let mut tape = Tape::default();
    for (index, (candidates, count)) in pieces.into_iter().enumerate() {
        let value = answer(ask, script, behaviour, candidates, &count);
        tape.token(match layout {
            Layout::Events => event(&value),
            Layout::Array => Bytes::from(format!("{}{}", if index == 0 { "[" } else { ",\r\n" }, pretty(&value))),
        });
    }
    if layout == Layout::Array {
        tape.push("\n]\n");
    }
    tape
}

/// Calls, the first with what was thought before it. They have no ids.
fn calls(script: &Script) -> Vec<Value> {
    let calls = script.calls.iter().enumerate().map(|(index, call)| {
        let mut part = json!({"functionCall": {"name": call.name, "args": call.value()}});
        if index == 0 {
            part["thoughtSignature"] = BASE64.encode(&script.seed.to_le_bytes()).into();
        }
        part
    });
    calls.collect()
}

/// A server-sent event with Google's line ends.
pub(super) fn event(value: &Value) -> Bytes {
    format!("data: {value}\r\n\r\n").into()
}

fn candidate(index: usize, parts: &[Value], reason: Option<Reason>) -> Value {
    let mut content = Map::new();
    if !parts.is_empty() {
        content.insert("parts".to_owned(), parts.into());
    }
    content.insert("role".to_owned(), "model".into());
    let mut candidate = json!({"content": content});
    if let Some(reason) = reason {
        candidate["finishReason"] = if reason == Reason::Length { "MAX_TOKENS" } else { "STOP" }.into();
    }
    candidate["index"] = index.into();
    candidate
}

fn answer(ask: &Ask, script: &Script, behaviour: &Behaviour, candidates: Vec<Value>, count: &Count) -> Value {
    let mut answer = json!({"candidates": candidates});
    if behaviour.usage != UsageHabit::Silent {
        answer["usageMetadata"] = usage(count);
    }
    answer["modelVersion"] = ask.model.as_str().into();
    answer["responseId"] = format!("fake{:018x}", script.seed).into();
    answer
}

/// What is none is left out.
fn usage(count: &Count) -> Value {
    let mut usage = json!({"promptTokenCount": count.prompt});
    if count.answer > 0 {
        usage["candidatesTokenCount"] = count.answer.into();
    }
    usage["totalTokenCount"] = (count.prompt + count.answer + count.reasoning).into();
    if count.cached > 0 {
        usage["cachedContentTokenCount"] = count.cached.into();
        usage["cacheTokensDetails"] = json!([{"modality": "TEXT", "tokenCount": count.cached}]);
    }
    usage["promptTokensDetails"] = json!([{"modality": "TEXT", "tokenCount": count.prompt}]);
    if count.reasoning > 0 {
        usage["thoughtsTokenCount"] = count.reasoning.into();
    }
    usage
}

/// How many tokens a prompt has.
pub(super) fn count(ask: &Ask) -> Value {
    let tokens = ask.prompt_tokens();
    json!({"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]})
}

/// One vector. Nobody is told what it cost.
pub(super) fn embed(model: &str, behaviour: &Behaviour, body: &Value) -> Value {
    json!({"embedding": {"values": vector(model, behaviour, body)}})
}

/// Several.
pub(super) fn batch_embed(model: &str, behaviour: &Behaviour, body: &Value) -> Value {
    let requests = body["requests"].as_array().into_iter().flatten();
    let vectors = requests.map(|request| json!({"values": vector(model, behaviour, request)}));
    json!({"embeddings": vectors.collect::<Vec<_>>()})
}

fn vector(model: &str, behaviour: &Behaviour, request: &Value) -> Vec<f32> {
    let parts = request["content"]["parts"].as_array().into_iter().flatten();
    let text: String = parts.filter_map(|part| part["text"].as_str()).collect();
    let dimensions = request["outputDimensionality"].as_u64().map_or(behaviour.dimensions, |wanted| wanted.clamp(1, 8192) as u32);
    embedding(model, &text, dimensions)
}

/// The models that it lists.
pub(super) fn models() -> Value {
    json!({"models": names(Kind::Gemini).iter().map(|name| model(name)).collect::<Vec<_>>()})
}

/// One of them.
pub(super) fn model(name: &str) -> Value {
    let verbs: &[&str] = if name.contains("embedding") {
        &["embedContent", "countTokens"]
    } else {
        &["generateContent", "countTokens", "streamGenerateContent"]
    };
    json!({
        "name": format!("models/{name}"), "version": "001", "displayName": name, "description": "A model of the fake.",
        "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536, "supportedGenerationMethods": verbs,
        "temperature": 1, "topP": 0.95, "topK": 64, "maxTemperature": 2, "thinking": true,
    })
}
