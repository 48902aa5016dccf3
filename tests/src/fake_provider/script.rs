//! What will be said, and what it counts for.
//!
//! Both are functions of the request and nothing else. A token is four bytes of the prompt and one step of the answer; an image
//! counts for 256, a declared tool for 8, a tool call for 8.

use serde_json::{Value, json};

use super::ask::{Ask, Format, Thinking};
use super::behaviour::Behaviour;
use crate::{
    fake_ollama::text::{self, Voice},
    scripted::{self, Step},
};

/// Tokens of reasoning before an answer, where it is asked for.
const THOUGHTS: u32 = 6;
/// What a tool call counts for, in tokens.
const CALL_TOKENS: u64 = 8;

/// What will be said.
#[derive(Debug)]
pub(super) struct Script {
    /// What ids are made of.
    pub(super) seed: u64,
    /// Reasoning, token by token. Empty where it is not shown.
    pub(super) thoughts: Vec<String>,
    /// Each answer, token by token.
    pub(super) choices: Vec<Vec<String>>,
    pub(super) calls: Vec<Call>,
    pub(super) searches: bool,
    pub(super) reason: Reason,
    pub(super) count: Count,
}

/// A call of a tool.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    /// As text, which need not be JSON.
    pub(super) arguments: String,
}

impl Call {
    /// As a value, for providers that send one.
    pub(super) fn value(&self) -> Value {
        serde_json::from_str(&self.arguments).unwrap_or_else(|_| self.arguments.as_str().into())
    }
}

/// Why it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Stop,
    Length,
    Tool,
}

/// What it counts for, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    /// Of the whole prompt.
    pub(super) prompt: u64,
    /// Of these, out of the cache.
    pub(super) cached: u64,
    /// Of the prompt, written into the cache: for minutes, for hours.
    pub(super) written_short: u64,
    pub(super) written_long: u64,
    /// Of the answer without its reasoning, tool calls included.
    pub(super) answer: u64,
    pub(super) reasoning: u64,
}

impl Script {
    /// The step of a part that comes next.
    pub(super) fn of_part(part: &[Step], ask: &Ask, behaviour: &Behaviour) -> Option<Self> {
        let (number, step) = scripted::next(part, ask.talk.played)?;
        let seed = text::mix(ask.talk.seed(&ask.model), number as u64);
        let (thoughts, words) = (text::tokens_of(&step.thoughts), text::tokens_of(&step.text));
        let calls = step.calls.iter().enumerate().map(|(index, call)| Call {
            id: format!("{:016x}", text::mix(seed, index as u64)),
            name: call.tool.clone(),
            arguments: call.arguments.clone(),
        });
        let calls: Vec<_> = calls.collect();
        let count = Count {
            answer: words.len() as u64 + CALL_TOKENS * calls.len() as u64,
            reasoning: thoughts.len() as u64,
            ..prompt_count(ask, behaviour)
        };
        let reason = if calls.is_empty() { Reason::Stop } else { Reason::Tool };
        Some(Self { seed, thoughts, choices: vec![words], calls, searches: false, reason, count })
    }

    pub(super) fn write(ask: &Ask, behaviour: &Behaviour) -> Self {
        let seed = ask.talk.seed(&ask.model);
        let asked = if ask.thinking == Thinking::Off { 0 } else { THOUGHTS };
        let thinking = behaviour.reasoning.unwrap_or(asked).min(ask.cap.unwrap_or(u32::MAX));
        let size = behaviour.size.unwrap_or_default();
        let thoughts = Voice::Babel { seed: !seed, quote: String::new(), size };
        let shown = if ask.thinking == Thinking::Shown { thinking } else { 0 };
        let left = ask.cap.map_or(u32::MAX, |cap| cap - thinking.min(cap));
        let call = ask.tools.first().filter(|_| !ask.talk.answers_a_tool).map(|tool| Call {
            id: format!("{:016x}", text::mix(seed, 7)),
            name: tool.name.clone(),
            arguments: match text::satisfying(&tool.parameters, seed) {
                object @ Value::Object(_) => object.to_string(),
                _ => json!({}).to_string(),
            },
        });
        let mut reason = if call.is_some() { Reason::Tool } else { Reason::Stop };
        let choices: Vec<Vec<String>> = (0..ask.choices)
            .map(|choice| {
                if call.is_some() {
                    return Vec::new();
                }
                let mut tokens = words(ask, behaviour, if choice == 0 { seed } else { text::mix(seed, u64::from(choice)) });
                if tokens.len() > left as usize {
                    tokens.truncate(left as usize);
                    reason = Reason::Length;
                }
                tokens
            })
            .collect();
        let said: u64 = choices.iter().map(|tokens| tokens.len() as u64).sum();
        let calls = if call.is_some() { CALL_TOKENS * u64::from(ask.choices) } else { 0 };
        Self {
            seed,
            thoughts: tokens_of(&thoughts, shown),
            count: Count { answer: said + calls, reasoning: thinking.into(), ..prompt_count(ask, behaviour) },
            choices,
            calls: call.into_iter().collect(),
            searches: ask.searches,
            reason,
        }
    }
}

/// What the prompt alone counts for.
pub(super) fn prompt_count(ask: &Ask, behaviour: &Behaviour) -> Count {
    let prompt = ask.prompt_tokens();
    let cached = behaviour.cached.min(prompt);
    let written_long = (ask.talk.marked_long / 4).min(prompt - cached);
    let written_short = (behaviour.cache_write + ask.talk.marked_short / 4).min(prompt - cached - written_long);
    Count { prompt, cached, written_short, written_long, ..Count::default() }
}

fn words(ask: &Ask, behaviour: &Behaviour, seed: u64) -> Vec<String> {
    let structured = match &ask.format {
        Format::Text => None,
        Format::Json => Some(json!({"answer": text::quote(&ask.talk.question), "sure": true, "marks": ["é", "<b>", "東京", "🦀"]})),
        Format::Schema(schema) => Some(text::satisfying(schema, seed)),
    };
    if let Some(value) = structured {
        return text::tokens_of(&value.to_string());
    }
    // The load generator of the benchmark compares every byte with the name.
    let plain = ask.model.rsplit('/').next().is_some_and(|name| name.starts_with("fake"));
    let voice = if plain {
        Voice::Plain { size: behaviour.size.unwrap_or(6) }
    } else {
        Voice::Babel { seed, quote: text::quote(&ask.talk.question), size: behaviour.size.unwrap_or_default() }
    };
    tokens_of(&voice, behaviour.tokens)
}

fn tokens_of(voice: &Voice, count: u32) -> Vec<String> {
    let token = |index| {
        let mut out = String::new();
        voice.push(index, &mut out);
        out
    };
    (0..count).map(token).collect()
}

/// An embedding of a text: numbers that any float can hold.
pub(super) fn embedding(model: &str, text: &str, dimensions: u32) -> Vec<f32> {
    let seed = text::seed(&[model.as_bytes(), text.as_bytes()]);
    // 16 bits and a power of two: nothing is lost from f64 to f32 and back.
    (0..dimensions).map(|index| (text::mix(seed, index.into()) as i16) as f32 / 32_768.0).collect()
}
