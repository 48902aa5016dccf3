//! What an answer used, in one form for all providers.
//!
//! `Some(0)` is a provider's word, `None` its silence: a silence may be filled by an estimate, a word may not. The fields do not
//! overlap, so that each token is paid for once, whatever a provider counts inside what.

/// The usage of one whole answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// All of it, or what the provider gives as its sum.
    pub whole: TokenUsage,
    /// Anthropic's `usage.iterations`: where there are any, each is paid for by itself and `whole` is for information.
    pub iterations: Vec<Iteration>,
}

/// One turn inside an answer, maybe of another model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Iteration {
    /// The provider's name of the model, where it says one.
    pub model: Option<String>,
    /// What the turn used.
    pub tokens: TokenUsage,
}

/// Counts of tokens and calls, and what their price depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// Prompt tokens of text that were neither read from nor written to a cache.
    pub input: Option<u64>,
    /// Prompt tokens read from a cache.
    pub cached: Option<u64>,
    /// Prompt tokens written to the short-lived cache (5 minutes, or 30 at OpenAI).
    pub cache_write_short: Option<u64>,
    /// Prompt tokens written to the long-lived cache (1 hour, or 12 at OpenAI).
    pub cache_write_long: Option<u64>,
    /// Prompt tokens of audio.
    pub input_audio: Option<u64>,
    /// Prompt tokens of images, where they are priced by themselves.
    pub input_image: Option<u64>,
    /// Answer tokens of text, reasoning included.
    pub output: Option<u64>,
    /// Those of them that were reasoning; for information.
    pub reasoning: Option<u64>,
    /// Answer tokens of audio.
    pub output_audio: Option<u64>,
    /// Answer tokens of images.
    pub output_image: Option<u64>,
    /// Searches and other calls of the provider's own tools, which are paid for one by one.
    pub searches: Option<u64>,
    /// What the answer says that it costs, in pico-USD; goes before any price of ours where it is the provider's word.
    pub upstream_cost_pico: Option<u64>,
    /// Which class of service the provider says that it gave.
    pub tier: Option<Tier>,
    /// Anthropic's `speed: fast`.
    pub fast: bool,
    /// Anthropic's `inference_geo: us`.
    pub us_only: bool,
}

/// A class of service, which has prices of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The usual one: `default`, `standard`, `auto`.
    Standard,
    /// Slower and cheaper.
    Flex,
    /// Faster and dearer: `priority`, `fast`.
    Priority,
    /// OpenAI's fastest, and by far the dearest.
    Ultrafast,
    /// Later and cheaper.
    Batch,
    /// Paid in advance: `scale`.
    Scale,
}

impl TokenUsage {
    /// All prompt tokens; `None` when nobody counted any.
    #[must_use]
    pub fn input_tokens(&self) -> Option<u64> {
        sum([self.input, self.cached, self.cache_write_short, self.cache_write_long, self.input_audio, self.input_image])
    }

    /// All answer tokens; `None` when nobody counted any.
    #[must_use]
    pub fn output_tokens(&self) -> Option<u64> {
        sum([self.output, self.output_audio, self.output_image])
    }
}

fn sum<const N: usize>(counts: [Option<u64>; N]) -> Option<u64> {
    counts.into_iter().flatten().reduce(u64::saturating_add)
}
