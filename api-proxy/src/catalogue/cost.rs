//! From tokens to money: pure arithmetic in whole numbers.

use std::time::SystemTime;

use super::{
    Catalogue, Model,
    price::{self, Period, Service, Step},
};
use crate::{Tier, TokenUsage, Usage};

/// Nano-credits of one credit. A credit is one US dollar.
pub const NANO_PER_CREDIT: i64 = 1_000_000_000;

/// What a request can use at most, before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Prompt tokens.
    pub input: u64,
    /// Answer tokens, over all the answers that were asked for.
    pub output: u64,
    /// The class of service that was asked for.
    pub tier: Option<Tier>,
    /// Anthropic's `speed: fast` was asked for.
    pub fast: bool,
    /// Anthropic's `inference_geo: us` was asked for.
    pub us_only: bool,
}

impl Catalogue {
    /// What an answer costs, in nano-credits, rounded half up once at the end.
    ///
    /// Turns inside the answer are paid for one by one, each at the prices of the model that it names; one that is not known, or
    /// names none, at those of the model that was asked. What the answer says that it costs is left out: whether that is anybody's
    /// price, and not just a number, is for whoever knows who said it, and [`charged`] is that price then.
    #[must_use]
    pub fn cost(&self, model: &Model, at: SystemTime, usage: &Usage) -> i64 {
        let at = price::seconds(at);
        let whole = &usage.whole;
        if usage.iterations.is_empty() {
            return nano(fine(model, at, whole));
        }
        let mut sum: u128 = 0;
        for turn in &usage.iterations {
            let by = turn.model.as_deref().and_then(|name| self.find(name)).map_or(model, |found| found);
            // A turn that says nothing about its class had that of the answer.
            let tokens = TokenUsage {
                tier: turn.tokens.tier.or(whole.tier),
                fast: turn.tokens.fast || whole.fast,
                us_only: turn.tokens.us_only || whole.us_only,
                ..turn.tokens
            };
            sum = sum.saturating_add(fine(by, at, &tokens));
        }
        if usage.iterations.iter().all(|turn| turn.tokens.searches.is_none()) {
            let searches = TokenUsage { searches: whole.searches, ..TokenUsage::default() };
            sum = sum.saturating_add(fine(model, at, &searches));
        }
        nano(sum)
    }

    /// The most that a request within `bound` can cost, in nano-credits: every prompt token of the dearest kind, every answer token
    /// likewise, at the dearest size that the prompt may reach.
    ///
    /// A request that asks for a cheaper class may be served in the usual one. A dearer one counts as the dearest that the model
    /// has, so that one whose name is new is none too cheap. Searches, and turns of other models inside the answer, are not tokens
    /// of the request: they come on top.
    #[must_use]
    pub fn most(&self, model: &Model, at: SystemTime, bound: &Bound) -> i64 {
        let period = model.period(price::seconds(at));
        let is_asked = |service: Service| match bound.tier {
            Some(Tier::Priority | Tier::Ultrafast) => true,
            tier => service == Service::Standard || service == Service::of_tier(tier) || service == Service::Fast && bound.fast,
        };
        let steps = period.services.iter().filter(|rates| is_asked(rates.service)).flat_map(|rates| &rates.steps);
        let pico = |step: &Step| {
            let input = product(bound.input, step.rates.dearest_input());
            input.saturating_add(product(bound.output, step.rates.dearest_output()))
        };
        let dearest = steps.filter(|step| step.above == 0 || step.above < bound.input).map(pico).max().unwrap_or(0);
        nano(dearest.saturating_mul(model.permille(bound.us_only)))
    }
}

/// What a provider says that it charges, in nano-credits.
pub(crate) fn charged(pico: u64) -> i64 {
    nano(u128::from(pico) * FINE_PER_PICO)
}

/// Sums are kept in thousandths of a pico-USD, so that a multiplier of thousandths loses nothing.
const FINE_PER_PICO: u128 = 1000;

/// What tokens and searches cost at the prices of one model.
fn fine(model: &Model, at: u64, tokens: &TokenUsage) -> u128 {
    let period = model.period(at);
    let prompt = tokens.input_tokens().unwrap_or(0);
    let steps = period.of(tokens.fast, tokens.tier);
    let Some(step) = steps.iter().rev().find(|step| prompt > step.above).or_else(|| steps.first()) else { return 0 };
    let rates = &step.rates;
    let parts = [
        (tokens.input, rates.input),
        (tokens.cached, rates.cached),
        (tokens.cache_write_short, rates.cache_write_short),
        (tokens.cache_write_long, rates.cache_write_long),
        (tokens.input_audio, rates.input_audio),
        (tokens.input_image, rates.input_image),
        (tokens.output, rates.output),
        (tokens.output_audio, rates.output_audio),
        (tokens.output_image, rates.output_image),
    ];
    let pico = parts.iter().map(|&(count, rate)| product(count.unwrap_or(0), rate)).fold(0, u128::saturating_add);
    // The place of work has a price, a search has the same everywhere.
    let searches = product(tokens.searches.unwrap_or(0), period.search.unwrap_or(0));
    pico.saturating_mul(model.permille(tokens.us_only)).saturating_add(searches.saturating_mul(FINE_PER_PICO))
}

fn product(count: u64, rate: u64) -> u128 {
    u128::from(count) * u128::from(rate)
}

/// Half up, and no more than the type holds.
fn nano(fine: u128) -> i64 {
    const FINE_PER_NANO: u128 = FINE_PER_PICO * 1000;
    i64::try_from(fine.saturating_add(FINE_PER_NANO / 2) / FINE_PER_NANO).unwrap_or(i64::MAX)
}

impl Model {
    /// The prices of that time; where none holds, those that held last, or the first: what was used is never free.
    fn period(&self, at: u64) -> &Period {
        let begun = self.periods.iter().rev().find(|period| period.from.is_none_or(|from| from <= at));
        begun.unwrap_or(&self.periods[0])
    }

    fn permille(&self, us_only: bool) -> u128 {
        if us_only { u128::from(self.us_permille) } else { 1000 }
    }
}
