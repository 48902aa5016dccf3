//! What a provider told, and what that comes to in one form for all of them.
//!
//! Of most shapes the last usage counts, so it is kept as it came and looked into once. Anthropic's is told in two halves, each of
//! which may leave out what the other has, and those are laid over one another field by field.

use serde_json::Value;

use super::{Shape, shapes::Slot};
use crate::{Iteration, Tier, TokenUsage, Usage};

/// An answer of more turns than this is priced by its sum: a usage is bounded, and so must be what it is turned into.
const ITERATIONS: usize = 256;

pub(super) struct Told {
    pub(super) shape: Shape,
    /// The last usage that was an object, as it came.
    usage: Vec<u8>,
    pub(super) tier: Option<Tier>,
    anthropic: Anthropic,
    /// Web searches of OpenAI's.
    searches: u64,
    event: EventSoFar,
}

#[derive(Default)]
struct EventSoFar {
    kind: Kind,
    searches: u64,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// None was said, as in a document.
    #[default]
    Unsaid,
    /// One that means nothing here.
    Other,
    /// One thing of a response is whole.
    Item,
    /// The end.
    End,
    /// The end of a response, with all that was put out. It may have failed.
    Response { failed: bool },
    /// An error.
    Error,
}

/// What an event means for the whole answer.
pub(super) struct Meaning {
    pub(super) ends: bool,
    pub(super) fails: bool,
}

impl Told {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, usage: Vec::new(), tier: None, anthropic: Anthropic::default(), searches: 0, event: EventSoFar::default() }
    }

    pub(super) fn string(&mut self, slot: Slot, raw: &[u8]) {
        match slot {
            Slot::Tier => self.tier = tier(raw).or(self.tier),
            Slot::Kind => {
                self.event.kind = match raw {
                    b"error" => Kind::Error,
                    b"message_stop" | b"image_generation.completed" | b"image_edit.completed" => Kind::End,
                    b"response.output_item.done" => Kind::Item,
                    b"response.completed" | b"response.incomplete" => Kind::Response { failed: false },
                    b"response.failed" => Kind::Response { failed: true },
                    _ => Kind::Other,
                }
            }
            Slot::Item if raw == b"web_search_call" => self.event.searches += 1,
            _ => {}
        }
    }

    pub(super) fn value(&mut self, slot: Slot, raw: &[u8]) {
        match slot {
            Slot::Opening | Slot::Usage if !raw.starts_with(b"{") => {}
            Slot::Opening => self.anthropic.lay_over(raw, true),
            Slot::Usage if self.shape == Shape::Anthropic => self.anthropic.lay_over(raw, false),
            Slot::Usage => {
                self.usage.clear();
                self.usage.extend_from_slice(raw);
            }
            _ => {}
        }
    }

    /// An event, or the document, is over.
    pub(super) fn event(&mut self) -> Meaning {
        let event = std::mem::take(&mut self.event);
        match event.kind {
            Kind::Item => self.searches = self.searches.saturating_add(event.searches),
            // What was counted one by one is in there again.
            Kind::Response { .. } => self.searches = event.searches,
            Kind::Unsaid => self.searches = self.searches.max(event.searches),
            _ => {}
        }
        Meaning {
            ends: matches!(event.kind, Kind::End | Kind::Response { .. }),
            fails: matches!(event.kind, Kind::Error | Kind::Response { failed: true }),
        }
    }

    /// What was told so far.
    pub(super) fn usage(&self, streamed: bool, ended: bool) -> Option<Usage> {
        if self.shape == Shape::Anthropic {
            return self.anthropic.usage(streamed, ended);
        }
        let value: Value = serde_json::from_slice(&self.usage).ok()?;
        let told = Fields(&value);
        let mut whole = match self.shape {
            Shape::OpenaiChat => openai(told, &CHAT),
            Shape::OpenaiResponses => {
                let searches = told.searches().or(Some(self.searches));
                TokenUsage { searches, ..openai(told, &RESPONSES) }
            }
            Shape::OpenaiImages => openai(told, &RESPONSES),
            Shape::OpenaiEmbeddings => TokenUsage { output: None, ..openai(told, &CHAT) },
            Shape::Gemini => gemini(told, ended),
            Shape::Anthropic | Shape::Silent => return None,
        };
        whole.tier = whole.tier.or(self.tier);
        Some(Usage { whole, iterations: Vec::new() })
    }
}

/// A class of service, in anybody's words.
fn tier(raw: &[u8]) -> Option<Tier> {
    [
        (&b"default"[..], Tier::Standard),
        (b"standard", Tier::Standard),
        (b"auto", Tier::Standard),
        (b"flex", Tier::Flex),
        (b"priority", Tier::Priority),
        (b"fast", Tier::Priority),
        (b"ultrafast", Tier::Ultrafast),
        (b"batch", Tier::Batch),
        (b"scale", Tier::Scale),
    ]
    .into_iter()
    .find_map(|(name, tier)| raw.eq_ignore_ascii_case(name).then_some(tier))
}

/// The members of a usage, each of which may be missing or of another kind than expected.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn inner(self, name: &str) -> Self {
        Self(self.0.get(name).unwrap_or(&Value::Null))
    }

    fn count(self, name: &str) -> Option<u64> {
        let value = self.0.get(name)?;
        // Some write whole numbers as `12.0`.
        value.as_u64().or_else(|| value.as_f64().filter(|n| (0.0..1e15).contains(n)).map(|n| n as u64))
    }

    fn text(self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str()
    }

    fn tier(self, name: &str) -> Option<Tier> {
        self.text(name).and_then(|text| tier(text.as_bytes()))
    }

    /// xAI's calls of its own tools.
    fn searches(self) -> Option<u64> {
        let tools = self.inner("server_side_tool_usage_details").0.as_object();
        let calls = tools.map(|tools| tools.values().filter_map(Value::as_u64).fold(0, u64::saturating_add));
        calls.or_else(|| self.count("num_sources_used"))
    }

    /// The tokens of one modality in one of Gemini's lists.
    fn modality(self, list: &str, modality: &str) -> Option<u64> {
        let list = self.0.get(list)?.as_array()?;
        let of_it =
            list.iter().map(Fields).filter(|entry| entry.text("modality").is_some_and(|m| m.eq_ignore_ascii_case(modality)));
        of_it.filter_map(|entry| entry.count("tokenCount")).reduce(u64::saturating_add)
    }
}

/// A sum out of which parts are taken. A part is at most what is left, so that no token is counted twice, whatever was told.
struct Left(u64);

impl Left {
    fn take(&mut self, part: Option<u64>) -> Option<u64> {
        let part = part?.min(self.0);
        self.0 -= part;
        Some(part)
    }
}

/// What OpenAI's fields are called: there are two sets of names for the same things.
struct Names {
    input: &'static str,
    input_details: &'static str,
    output: &'static str,
    output_details: &'static str,
}

const CHAT: Names = Names {
    input: "prompt_tokens",
    input_details: "prompt_tokens_details",
    output: "completion_tokens",
    output_details: "completion_tokens_details",
};
const RESPONSES: Names = Names {
    input: "input_tokens",
    input_details: "input_tokens_details",
    output: "output_tokens",
    output_details: "output_tokens_details",
};

/// OpenAI's usage: the details are parts of the sums.
fn openai(told: Fields<'_>, names: &Names) -> TokenUsage {
    let (input, output, total) = (told.count(names.input), told.count(names.output), told.count("total_tokens"));
    let (of_input, of_output) = (told.inner(names.input_details), told.inner(names.output_details));
    let reasoning = of_output.count("reasoning_tokens");
    // xAI and some others leave reasoning out of the answer's count, and only the total tells.
    let beside = match (input, output, reasoning, total) {
        (Some(input), Some(output), Some(reasoning @ 1..), Some(total))
            if input.checked_add(output).and_then(|sum| sum.checked_add(reasoning)) == Some(total) =>
        {
            reasoning
        }
        _ => 0,
    };
    let mut left = Left(input.unwrap_or_default());
    let cached = left.take(of_input.count("cached_tokens"));
    let writes = of_input.inner("cache_write_tokens_details");
    let long = left.take(writes.count("ttl_12h_tokens"));
    let short = match of_input.count("cache_write_tokens") {
        Some(all) => left.take(Some(all.saturating_sub(long.unwrap_or_default()))),
        None => left.take(writes.count("ttl_30m_tokens")),
    };
    let input_audio = left.take(of_input.count("audio_tokens"));
    let input_image = left.take(of_input.count("image_tokens"));
    let mut answer = Left(output.unwrap_or_default().saturating_add(beside));
    let output_audio = answer.take(of_output.count("audio_tokens"));
    let output_image = answer.take(of_output.count("image_tokens"));
    TokenUsage {
        input: input.map(|_| left.0),
        cached,
        cache_write_short: short,
        cache_write_long: long,
        input_audio,
        input_image,
        output: output.map(|_| answer.0),
        reasoning,
        output_audio,
        output_image,
        searches: told.searches(),
        // A tick is a ten-thousand-millionth of a dollar: 100 pico-USD.
        upstream_cost_pico: told.count("cost_in_usd_ticks").map(|ticks| ticks.saturating_mul(100)),
        tier: None,
        fast: false,
        us_only: false,
    }
}

/// Gemini's usage: what is cached is a part of the prompt, thoughts are beside the answer, and what is absent is zero.
fn gemini(told: Fields<'_>, ended: bool) -> TokenUsage {
    let count = |name: &str| told.count(name).unwrap_or_default();
    let mut left = Left(count("promptTokenCount").saturating_add(count("toolUsePromptTokenCount")));
    let cached = left.take(Some(count("cachedContentTokenCount")));
    let uncached = |modality: &str| {
        let cached = told.modality("cacheTokensDetails", modality).unwrap_or_default();
        told.modality("promptTokensDetails", modality).map(|tokens| tokens.saturating_sub(cached))
    };
    let input_audio = left.take(uncached("AUDIO"));
    let input_image = left.take(uncached("IMAGE"));
    let (candidates, thoughts) = (told.count("candidatesTokenCount"), told.count("thoughtsTokenCount"));
    // Before its end, an answer of which nothing is told is one that was not counted yet.
    let known = ended || candidates.is_some() || thoughts.is_some();
    let mut answer = Left(candidates.unwrap_or_default());
    let output_audio = answer.take(told.modality("candidatesTokensDetails", "AUDIO"));
    let output_image = answer.take(told.modality("candidatesTokensDetails", "IMAGE"));
    TokenUsage {
        input: Some(left.0),
        cached,
        input_audio,
        input_image,
        output: known.then(|| answer.0.saturating_add(thoughts.unwrap_or_default())),
        reasoning: thoughts,
        output_audio,
        output_image,
        tier: told.tier("serviceTier"),
        ..TokenUsage::default()
    }
}

/// Anthropic's usage, as far as it was told. Each field keeps the last value that was not null.
#[derive(Default)]
struct Anthropic {
    told: bool,
    input: Option<u64>,
    cached: Option<u64>,
    written: Option<u64>,
    written_short: Option<u64>,
    written_long: Option<u64>,
    /// What the first event says of the answer, before there is one.
    placeholder: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
    searches: Option<u64>,
    tier: Option<Tier>,
    fast: Option<bool>,
    us_only: Option<bool>,
    iterations: Vec<Iteration>,
}

impl Anthropic {
    fn lay_over(&mut self, raw: &[u8], opening: bool) {
        let Ok(value) = serde_json::from_slice::<Value>(raw) else { return };
        let told = Fields(&value);
        self.told = true;
        self.lay_over_fields(told);
        if opening {
            self.placeholder = self.output.take();
        }
        let turns = value.get("iterations").and_then(Value::as_array).filter(|turns| turns.len() <= ITERATIONS);
        if let Some(turns) = turns {
            self.iterations = turns.iter().map(|turn| self.turn(Fields(turn))).collect();
        }
    }

    fn lay_over_fields(&mut self, told: Fields<'_>) {
        fn over<T>(field: &mut Option<T>, told: Option<T>) {
            if told.is_some() {
                *field = told;
            }
        }
        let written = told.inner("cache_creation");
        over(&mut self.input, told.count("input_tokens"));
        over(&mut self.cached, told.count("cache_read_input_tokens"));
        over(&mut self.written, told.count("cache_creation_input_tokens"));
        over(&mut self.written_short, written.count("ephemeral_5m_input_tokens"));
        over(&mut self.written_long, written.count("ephemeral_1h_input_tokens"));
        over(&mut self.output, told.count("output_tokens"));
        over(&mut self.thinking, told.inner("output_tokens_details").count("thinking_tokens"));
        // Fetches of web pages are free.
        over(&mut self.searches, told.inner("server_tool_use").count("web_search_requests"));
        over(&mut self.tier, told.tier("service_tier"));
        over(&mut self.fast, told.text("speed").map(|speed| speed == "fast"));
        over(&mut self.us_only, told.text("inference_geo").map(|geo| geo == "us"));
    }

    /// One turn of several, which has the class of service of the whole unless it says otherwise.
    fn turn(&self, told: Fields<'_>) -> Iteration {
        let mut turn = Self { tier: self.tier, fast: self.fast, us_only: self.us_only, ..Self::default() };
        turn.lay_over_fields(told);
        Iteration { model: told.text("model").map(str::to_owned), tokens: turn.tokens(turn.output) }
    }

    fn tokens(&self, output: Option<u64>) -> TokenUsage {
        // All that was written and is not said to be for long is for short.
        let rest = self.written.map(|all| all.saturating_sub(self.written_long.unwrap_or_default()));
        TokenUsage {
            input: self.input,
            cached: self.cached,
            cache_write_short: rest.or(self.written_short),
            cache_write_long: self.written_long,
            output,
            reasoning: self.thinking,
            searches: self.searches,
            tier: self.tier,
            fast: self.fast.unwrap_or_default(),
            us_only: self.us_only.unwrap_or_default(),
            ..TokenUsage::default()
        }
    }

    fn usage(&self, streamed: bool, ended: bool) -> Option<Usage> {
        // A placeholder is no count, unless the answer ended and nothing else was said.
        let output = self.output.or(self.placeholder.filter(|_| ended || !streamed));
        self.told.then(|| Usage { whole: self.tokens(output), iterations: self.iterations.clone() })
    }
}
