//! An operator's own models and prices.

use super::{
    Abilities, CatalogueError, Model,
    price::{self, Listed, Period, Price, Service},
};
use crate::Name;

/// A change to a known model, or a new one.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelOverride {
    /// The model's id.
    pub id: String,
    /// Whose it is; a known model stays with its provider unless this names another.
    pub provider: Name,
    /// More names for it.
    pub aliases: Vec<String>,
    /// Most prompt tokens that it takes. A new model must have it.
    pub max_input: Option<u64>,
    /// Most tokens that it answers with. A new model must have it.
    pub max_output: Option<u64>,
    /// What it costs, at all times and in all classes of service, instead of what is listed. A new model must have it.
    pub prices: Option<ModelPrices>,
}

/// What a model costs. A price that is not given is that of what it is a kind of, never 0; one that is given as 0 is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelPrices {
    /// Prompt tokens.
    pub input: Price,
    /// Answer tokens; may be left out for a model that answers with numbers, such as an embedding.
    pub output: Option<Price>,
    /// Prompt tokens from a cache.
    pub cached: Option<Price>,
    /// Prompt tokens into the short-lived cache.
    pub cache_write_short: Option<Price>,
    /// Prompt tokens into the long-lived cache.
    pub cache_write_long: Option<Price>,
    /// Prompt tokens of audio.
    pub input_audio: Option<Price>,
    /// Prompt tokens of images.
    pub input_image: Option<Price>,
    /// Answer tokens of audio.
    pub output_audio: Option<Price>,
    /// Answer tokens of images.
    pub output_image: Option<Price>,
    /// One search.
    pub search: Option<Price>,
}

impl ModelPrices {
    fn periods(&self) -> Option<Box<[Period]>> {
        let pico = |price: Option<Price>| price.map(Price::pico);
        let listed = Listed {
            input: Some(self.input.pico()),
            cached: pico(self.cached),
            cache_write_short: pico(self.cache_write_short),
            cache_write_long: pico(self.cache_write_long),
            input_audio: pico(self.input_audio),
            input_image: pico(self.input_image),
            output: pico(self.output),
            output_audio: pico(self.output_audio),
            output_image: pico(self.output_image),
        };
        let services = price::services(&[(Service::Standard, 0, listed)])?;
        Some(Box::new([Period { from: None, until: None, services, search: pico(self.search) }]))
    }
}

/// Changes `models` and adds to them.
pub(super) fn lay_over(mut models: Vec<Model>, overrides: &[ModelOverride]) -> Result<Vec<Model>, CatalogueError> {
    let mut seen = std::collections::HashSet::new();
    for entry in overrides {
        let problem = |problem: &str| CatalogueError::new(&entry.id, problem);
        if !seen.insert(entry.id.as_str()) {
            return Err(problem("it is there twice; make one entry of both"));
        }
        for name in std::iter::once(&entry.id).chain(&entry.aliases) {
            check_name(name).map_err(|why| problem(&why))?;
        }
        let periods = match &entry.prices {
            Some(prices) => Some(prices.periods().ok_or_else(|| problem("it has no price of the prompt"))?),
            None => None,
        };
        let aliases = entry.aliases.iter().map(|name| name.as_str().into());
        if let Some(model) = models.iter_mut().find(|model| *model.id == *entry.id) {
            model.provider = entry.provider.clone();
            model.max_input = entry.max_input.unwrap_or(model.max_input);
            model.max_output = entry.max_output.unwrap_or(model.max_output);
            model.aliases = sorted(model.aliases.iter().cloned().chain(aliases));
            if let Some(periods) = periods {
                model.periods = periods;
                model.us_permille = 1000;
                model.has_own_price = true;
            }
        } else {
            models.push(Model {
                id: entry.id.as_str().into(),
                provider: entry.provider.clone(),
                max_input: entry.max_input.ok_or_else(|| problem("a new model needs `max_input`"))?,
                max_output: entry.max_output.ok_or_else(|| problem("a new model needs `max_output`"))?,
                can: Abilities::default(),
                created: None,
                aliases: sorted(aliases),
                dated: Box::new([]),
                has_own_price: true,
                us_permille: 1000,
                periods: periods.ok_or_else(|| problem("a new model needs prices"))?,
            });
        }
    }
    Ok(models)
}

fn sorted(names: impl Iterator<Item = std::sync::Arc<str>>) -> Box<[std::sync::Arc<str>]> {
    let mut names: Vec<_> = names.collect();
    names.sort();
    names.dedup();
    names.into()
}

/// Names go into records, lists and addresses: 256 is the length that a record takes, and `local/` is the workstations'.
fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 256 || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("the name {name:?} must have 1 to 256 visible ASCII characters"));
    }
    if name.starts_with("local/") {
        return Err(format!("the name {name:?} begins with local/, which is for workstations"));
    }
    Ok(())
}

/// The overrides as bytes that are the same wherever and whenever they are written: each field behind its length.
pub(super) fn canonical(overrides: &[ModelOverride]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut text = |text: &str| {
        bytes.extend_from_slice(&(text.len() as u64).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    for entry in overrides {
        text(&entry.id);
        text(entry.provider.as_str());
        text(&entry.aliases.len().to_string());
        entry.aliases.iter().for_each(|alias| text(alias));
        text(&number(entry.max_input));
        text(&number(entry.max_output));
        for price in entry.prices.iter().flat_map(|p| {
            [
                Some(p.input),
                p.output,
                p.cached,
                p.cache_write_short,
                p.cache_write_long,
                p.input_audio,
                p.input_image,
                p.output_audio,
                p.output_image,
                p.search,
            ]
        }) {
            text(&number(price.map(Price::pico)));
        }
        text("end");
    }
    bytes
}
