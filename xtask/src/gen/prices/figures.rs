//! Both sets' figures in one form: whole pico-USD by class of service, prompt size and kind of token.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, bail, ensure};

use super::{Genai, GenaiFigure, Litellm};

/// Figures of one model at one time.
pub(super) type Figures = BTreeMap<Key, u64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) service: Service,
    /// For prompts of more tokens than this, for the whole request.
    pub(super) above: u64,
    pub(super) dimension: Dimension,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Service {
    Standard,
    Flex,
    Batch,
    Priority,
    Ultrafast,
    /// Anthropic's `speed: fast`.
    Fast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dimension {
    Input,
    Cached,
    CacheWriteShort,
    CacheWriteLong,
    InputAudio,
    InputImage,
    Output,
    OutputAudio,
    OutputImage,
    /// For one search, not for a token.
    Search,
}

impl Service {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Flex => "flex",
            Self::Batch => "batch",
            Self::Priority => "priority",
            Self::Ultrafast => "ultrafast",
            Self::Fast => "fast",
        }
    }
}

impl Dimension {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Cached => "cached",
            Self::CacheWriteShort => "cache_write_short",
            Self::CacheWriteLong => "cache_write_long",
            Self::InputAudio => "input_audio",
            Self::InputImage => "input_image",
            Self::Output => "output",
            Self::OutputAudio => "output_audio",
            Self::OutputImage => "output_image",
            Self::Search => "search",
        }
    }

    pub(super) fn is_answer(self) -> bool {
        matches!(self, Self::Output | Self::OutputAudio | Self::OutputImage)
    }
}

/// As decisions name it.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service.name())?;
        if self.above > 0 {
            write!(f, " >{}", self.above)?;
        }
        write!(f, " {}", self.dimension.name())
    }
}

/// What a set charges there: a kind of token without a price of its own for a size has that of the next smaller one.
pub(super) fn effective(figures: &Figures, key: Key) -> Option<u64> {
    figures.range(Key { above: 0, ..key }..=key).rfind(|(k, _)| k.dimension == key.dimension).map(|(_, &pico)| pico)
}

/// LiteLLM's figures: USD per token, all dimensions in the name of the key.
pub(super) fn of_litellm(model: &Litellm) -> anyhow::Result<Figures> {
    let mut figures = Figures::new();
    let mut reasoning = Figures::new();
    for (name, text) in &model.figures {
        let pico = scaled(text, 12).with_context(|| format!("LiteLLM's {name}"))?;
        let services = [
            ("_flex", Service::Flex),
            ("_batches", Service::Batch),
            ("_priority", Service::Priority),
            ("_ultrafast", Service::Ultrafast),
        ];
        let (rest, service) = services
            .iter()
            .find_map(|&(end, service)| Some((name.strip_suffix(end)?, service)))
            .unwrap_or((name, Service::Standard));
        let (kind, above) = size(rest, &model.provider)?;
        let dimension = match kind {
            "input_cost_per_token" => Dimension::Input,
            "output_cost_per_token" => Dimension::Output,
            "cache_read_input_token_cost" => Dimension::Cached,
            "cache_creation_input_token_cost" => Dimension::CacheWriteShort,
            "cache_creation_input_token_cost_above_1hr" | "cache_creation_input_token_cost_above_12hr" => Dimension::CacheWriteLong,
            "input_cost_per_audio_token" => Dimension::InputAudio,
            "input_cost_per_image_token" => Dimension::InputImage,
            "output_cost_per_audio_token" => Dimension::OutputAudio,
            "output_cost_per_image_token" => Dimension::OutputImage,
            "search_context_cost_per_query" => Dimension::Search,
            "output_cost_per_reasoning_token" => {
                reasoning.insert(Key { service, above, dimension: Dimension::Output }, pico);
                continue;
            }
            _ => bail!("LiteLLM's {name} is of a kind that is not known here"),
        };
        figures.insert(Key { service, above, dimension }, pico);
    }
    // A usage here counts reasoning among the answer's text.
    ensure!(reasoning.iter().all(|(key, pico)| figures.get(key) == Some(pico)), "reasoning has a price of its own");
    if let Some(text) = model.multipliers.get("fast") {
        let permille = scaled(text, 3)?;
        let fast: Figures = figures
            .iter()
            .filter(|(key, _)| key.service == Service::Standard && key.dimension != Dimension::Search)
            .map(|(key, pico)| (Key { service: Service::Fast, ..*key }, pico * permille / 1000))
            .collect();
        figures.extend(fast);
    }
    Ok(figures)
}

/// `KIND_above_272k_tokens`, taken apart.
fn size<'a>(name: &'a str, provider: &str) -> anyhow::Result<(&'a str, u64)> {
    let Some((kind, thousands)) = name.strip_suffix("k_tokens").and_then(|rest| rest.rsplit_once("_above_")) else {
        return Ok((name, 0));
    };
    let tokens = thousands.parse::<u64>().with_context(|| name.to_owned())? * 1000;
    // "Above" is a word of LiteLLM's: xAI's own table says "at or above", and genai-prices has it so.
    Ok((kind, if provider == "xai" { tokens - 1 } else { tokens }))
}

/// genai-prices' figures on a day: USD per million tokens, or per thousand searches.
pub(super) fn of_genai(model: &Genai, day: &str) -> anyhow::Result<Figures> {
    let holds = |from: &Option<String>| from.as_deref().is_none_or(|from| from <= day);
    let standard = model.prices.iter().rev().find(|price| holds(&price.from)).with_context(|| format!("no price on {day}"))?;
    let mut figures = Figures::new();
    put(&mut figures, Service::Standard, &standard.figures)?;
    for variant in model.variants.iter().filter(|variant| holds(&variant.from)) {
        let service = match (variant.when.as_str(), model.provider.as_str()) {
            ("default", _) if variant.figures.is_empty() => continue,
            ("flex", _) => Service::Flex,
            ("batch", _) => Service::Batch,
            // OpenAI answers a request for `fast` with `priority`.
            ("priority", _) | ("fast", "openai") => Service::Priority,
            ("fast", "anthropic") => Service::Fast,
            (other, _) => bail!("genai-prices' variant {other} is not known here"),
        };
        let mut found = Figures::new();
        put(&mut found, service, &variant.figures)?;
        if variant.when == "fast" && service == Service::Priority {
            ensure!(found.iter().all(|(key, pico)| figures.get(key) == Some(pico)), "`fast` and `priority` differ in genai-prices");
        }
        for (key, pico) in found {
            // The first that holds goes before the others.
            figures.entry(key).or_insert(pico);
        }
    }
    Ok(figures)
}

fn put(figures: &mut Figures, service: Service, from: &BTreeMap<String, GenaiFigure>) -> anyhow::Result<()> {
    for (name, figure) in from {
        let dimension = match name.as_str() {
            "input_mtok" => Dimension::Input,
            "output_mtok" => Dimension::Output,
            "cache_read_mtok" => Dimension::Cached,
            "cache_write_mtok" => Dimension::CacheWriteShort,
            "cache_write_1h_mtok" => Dimension::CacheWriteLong,
            "input_audio_mtok" => Dimension::InputAudio,
            "input_image_mtok" => Dimension::InputImage,
            "output_audio_mtok" => Dimension::OutputAudio,
            "output_image_mtok" => Dimension::OutputImage,
            "web_searches_kcount" => Dimension::Search,
            _ => bail!("genai-prices' {name} is of a kind that is not known here"),
        };
        let places = if dimension == Dimension::Search { 9 } else { 6 };
        let pico = |text: &str| scaled(text, places).with_context(|| format!("genai-prices' {name}"));
        let (base, sizes) = match figure {
            GenaiFigure::Flat(base) => (base, &[][..]),
            GenaiFigure::Sized { base, above } => (base, above.as_slice()),
        };
        figures.insert(Key { service, above: 0, dimension }, pico(base)?);
        for (above, text) in sizes {
            figures.insert(Key { service, above: *above, dimension }, pico(text)?);
        }
    }
    Ok(())
}

/// The days after `taken` on which a price of genai-prices changes.
pub(super) fn changes(model: &Genai, taken: &str) -> Vec<String> {
    let days = model.prices.iter().map(|price| &price.from).chain(model.variants.iter().map(|variant| &variant.from));
    let mut days: Vec<String> = days.flatten().filter(|day| day.as_str() > taken).cloned().collect();
    days.sort();
    days.dedup();
    days
}

/// A decimal number such as `0.125` or `1.25e-05`, times ten to the power of `places`, which must be whole.
pub(super) fn scaled(text: &str, places: i32) -> anyhow::Result<u64> {
    let bad = || format!("{text} is no decimal number");
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().with_context(bad)?;
    let power = exponent.parse::<i32>().with_context(bad)? - i32::try_from(fraction.len())? + places;
    let factor = 10_u128.checked_pow(power.unsigned_abs()).with_context(bad)?;
    let value = if power >= 0 {
        digits.checked_mul(factor).with_context(bad)?
    } else {
        ensure!(digits.is_multiple_of(factor), "{text} is finer than what is counted in here");
        digits / factor
    };
    u64::try_from(value).with_context(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_to_the_last_digit() {
        let read = |text, places| scaled(text, places).ok();
        assert_eq!(read("1.25e-05", 12), Some(12_500_000));
        assert_eq!(read("0.3125", 6), Some(312_500));
        assert_eq!(read("2.0", 3), Some(2_000));
        assert_eq!(read("0.0001125", 12), Some(112_500_000));
        assert_eq!(read("1e-07", 6), None);
        assert_eq!(read("x", 6), None);
        assert_eq!(read("", 6), None);
        assert_eq!(read("-1", 6), None);
    }
}
