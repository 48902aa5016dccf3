//! Rates: what each kind of token costs, by time, class of service and size of the prompt.
//!
//! A price list leaves out what follows from the rest. All of it is filled in when the catalogue is loaded, so that the arithmetic
//! has a rate for everything and none of them is 0 by omission.

use std::{str::FromStr, time::SystemTime};

use super::Model;
use crate::Tier;

/// A rate: pico-USD for one token, or for one search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(u64);

/// A text that is no [`Price`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrice {
    /// Not of the form.
    #[error("must be a decimal number of US dollars such as 0.125")]
    Form,
    /// More digits than are counted in.
    #[error("is finer than a pico-dollar per token")]
    TooFine,
    /// Above a dollar a token, which is a slip of the pen.
    #[error("is above a million dollars per million tokens, or per thousand searches")]
    TooLarge,
}

impl Price {
    /// Reads US dollars per million tokens, such as `0.125`.
    ///
    /// # Errors
    /// When the text is no decimal number, or out of range.
    pub fn per_million_tokens(usd: &str) -> Result<Self, InvalidPrice> {
        Self::read(usd, 6)
    }

    /// Reads US dollars per thousand searches, such as `10`.
    ///
    /// # Errors
    /// When the text is no decimal number, or out of range.
    pub fn per_thousand_searches(usd: &str) -> Result<Self, InvalidPrice> {
        Self::read(usd, 9)
    }

    pub(super) fn pico(self) -> u64 {
        self.0
    }

    /// The number times ten to the power of `places`, digit by digit: a binary fraction would be another number.
    fn read(usd: &str, places: usize) -> Result<Self, InvalidPrice> {
        let (whole, fraction) = usd.split_once('.').unwrap_or((usd, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) {
            return Err(InvalidPrice::Form);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > places {
            return Err(InvalidPrice::TooFine);
        }
        let digits = format!("{whole}{fraction:0<places$}");
        let pico = u64::from_str(&digits).map_err(|_| InvalidPrice::TooLarge)?;
        let limit = 10_u64.pow(6) * 10_u64.pow(u32::try_from(places).unwrap_or(0));
        if pico > limit { Err(InvalidPrice::TooLarge) } else { Ok(Self(pico)) }
    }
}

/// What a million tokens cost, as decimal US dollars: exact, and with no more digits than it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPrice {
    /// Of the prompt.
    pub input: String,
    /// Of the prompt, out of the provider's cache.
    pub cached: String,
    /// Of the answer.
    pub output: String,
}

impl ListPrice {
    pub(super) fn of(rates: Rates) -> Self {
        Self { input: per_million(rates.input), cached: per_million(rates.cached), output: per_million(rates.output) }
    }
}

/// Pico-dollars a token are micro-dollars a million.
fn per_million(pico: u64) -> String {
    let (whole, fraction) = (pico / 1_000_000, pico % 1_000_000);
    let text = format!("{whole}.{fraction:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The prices of a time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Period {
    /// The first second, since 1970; `None` for the prices that the list began with.
    pub(super) from: Option<u64>,
    /// The first second after it.
    pub(super) until: Option<u64>,
    /// The usual class first.
    pub(super) services: Box<[ServiceRates]>,
    /// For one search; filled in by [`fill_searches`] where the list is silent.
    pub(super) search: Option<u64>,
}

/// A class of service as it is priced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Standard,
    Flex,
    Batch,
    Priority,
    Ultrafast,
    /// Anthropic's `speed: fast`.
    Fast,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct ServiceRates {
    pub(super) service: Service,
    /// By size, the smallest first; never empty, and the first begins at 0.
    pub(super) steps: Box<[Step]>,
}

/// The rates of a whole request whose prompt has more tokens than `above`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    pub(super) above: u64,
    pub(super) rates: Rates,
}

/// Pico-USD for one token of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) input: u64,
    pub(super) cached: u64,
    pub(super) cache_write_short: u64,
    pub(super) cache_write_long: u64,
    pub(super) input_audio: u64,
    pub(super) input_image: u64,
    pub(super) output: u64,
    pub(super) output_audio: u64,
    pub(super) output_image: u64,
}

impl Rates {
    pub(super) fn dearest_input(&self) -> u64 {
        self.input
            .max(self.cached)
            .max(self.cache_write_short)
            .max(self.cache_write_long)
            .max(self.input_audio)
            .max(self.input_image)
    }

    pub(super) fn dearest_output(&self) -> u64 {
        self.output.max(self.output_audio).max(self.output_image)
    }
}

/// Rates as a price list says them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Listed {
    pub(super) input: Option<u64>,
    pub(super) cached: Option<u64>,
    pub(super) cache_write_short: Option<u64>,
    pub(super) cache_write_long: Option<u64>,
    pub(super) input_audio: Option<u64>,
    pub(super) input_image: Option<u64>,
    pub(super) output: Option<u64>,
    pub(super) output_audio: Option<u64>,
    pub(super) output_image: Option<u64>,
}

impl Listed {
    /// Each rate from here, or from `other` where this list is silent.
    fn or(&self, other: &Self) -> Self {
        Self {
            input: self.input.or(other.input),
            cached: self.cached.or(other.cached),
            cache_write_short: self.cache_write_short.or(other.cache_write_short),
            cache_write_long: self.cache_write_long.or(other.cache_write_long),
            input_audio: self.input_audio.or(other.input_audio),
            input_image: self.input_image.or(other.input_image),
            output: self.output.or(other.output),
            output_audio: self.output_audio.or(other.output_audio),
            output_image: self.output_image.or(other.output_image),
        }
    }

    /// What is not listed costs what it is a kind of; `None` without a price of the prompt.
    fn filled(&self) -> Option<Rates> {
        let input = self.input?;
        let cache_write_short = self.cache_write_short.unwrap_or(input);
        // What answers with pictures only has no price of text, and what answers with numbers has none at all.
        let output = self.output.or(self.output_image.max(self.output_audio)).unwrap_or(input);
        Some(Rates {
            input,
            cached: self.cached.unwrap_or(input),
            cache_write_short,
            cache_write_long: self.cache_write_long.unwrap_or(cache_write_short.max(input)),
            input_audio: self.input_audio.unwrap_or(input),
            input_image: self.input_image.unwrap_or(input),
            output,
            output_audio: self.output_audio.unwrap_or(output),
            output_image: self.output_image.unwrap_or(output),
        })
    }
}

/// All classes of service of one time, filled in. `None` when the usual class has no price of the prompt.
///
/// What a class does not list it takes from the usual one; what it lists without a size it charges at every size.
pub(super) fn services(rows: &[(Service, u64, Listed)]) -> Option<Box<[ServiceRates]>> {
    let mut sizes: Vec<u64> = rows.iter().map(|(_, above, _)| *above).chain([0]).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let listed = |service: Service, size: u64| {
        let mut of = rows.iter().filter(|(s, above, _)| *s == service && *above <= size).collect::<Vec<_>>();
        of.sort_by_key(|(_, above, _)| std::cmp::Reverse(*above));
        of.iter().fold(Listed::default(), |all, (_, _, row)| all.or(row))
    };
    let all = [Service::Standard, Service::Flex, Service::Batch, Service::Priority, Service::Ultrafast, Service::Fast];
    all.into_iter()
        .filter(|&service| service == Service::Standard || rows.iter().any(|(s, _, _)| *s == service))
        .map(|service| {
            let step = |&above: &u64| {
                let row = listed(service, above).or(&listed(Service::Standard, above));
                Some(Step { above, rates: row.filled()? })
            };
            let mut steps = sizes.iter().map(step).collect::<Option<Vec<_>>>()?;
            steps.dedup_by(|next, before| next.rates == before.rates);
            Some(ServiceRates { service, steps: steps.into() })
        })
        .collect()
}

impl Period {
    pub(super) fn holds(&self, at: u64) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }

    /// The rates of the class that was given; the usual ones where the model does not have it.
    pub(super) fn of(&self, fast: bool, tier: Option<Tier>) -> &[Step] {
        let has = |service: Service| self.services.iter().find(|rates| rates.service == service);
        let fastest = if fast { has(Service::Fast) } else { None };
        let rates = fastest.or_else(|| has(Service::of_tier(tier))).or_else(|| self.services.first());
        rates.map(|rates| &*rates.steps).unwrap_or_default()
    }
}

impl Service {
    pub(super) fn of_tier(tier: Option<Tier>) -> Self {
        match tier {
            // What is paid in advance has no price of its own in any list.
            None | Some(Tier::Standard | Tier::Scale) => Self::Standard,
            Some(Tier::Flex) => Self::Flex,
            Some(Tier::Priority) => Self::Priority,
            Some(Tier::Ultrafast) => Self::Ultrafast,
            Some(Tier::Batch) => Self::Batch,
        }
    }
}

/// Gives each model without a price of searches the dearest of its provider's, or of all: a call that was made is paid for.
pub(super) fn fill_searches(models: &mut [Model]) {
    let dearest = |models: &[Model], provider: Option<&str>| {
        let of = models.iter().filter(|model| provider.is_none_or(|name| model.provider.as_str() == name));
        of.flat_map(|model| &model.periods).filter_map(|period| period.search).max()
    };
    let of_all = dearest(models, None);
    for at in 0..models.len() {
        if models[at].periods.iter().any(|period| period.search.is_none()) {
            let price = dearest(models, Some(models[at].provider.as_str())).or(of_all);
            for period in &mut models[at].periods {
                period.search = period.search.or(price);
            }
        }
    }
}

/// Seconds since 1970; 0 for times before.
pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
