//! Which cloud models there are, who serves them, and what they cost.
//!
//! The data is one committed file, `api-proxy/catalogue.json`, made by `cargo xtask gen prices` from two public price lists; an
//! operator may lay own models and prices over it. A model that is not here, or has no price, cannot be asked for.

mod cost;
mod data;
mod overrides;
mod price;

use std::{collections::HashMap, fmt, sync::Arc, time::SystemTime};

use serde::Deserialize;
use sha2::{Digest, Sha256};

pub(crate) use cost::charged;
pub use cost::{Bound, NANO_PER_CREDIT};
pub use overrides::{ModelOverride, ModelPrices};
pub use price::{InvalidPrice, ListPrice, Price};

use crate::Name;
use price::Period;

/// The committed data.
const DATA: &str = include_str!("../catalogue.json");

/// Every cloud model that can be asked for.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// By id, which is the order in which they are listed.
    models: Vec<Arc<Model>>,
    /// Places in `models`, by id and alias.
    names: HashMap<Arc<str>, usize>,
    snapshot: Snapshot,
}

/// Which version of the price list a charge was made from: the first 16 hex digits of the SHA-256 of its data.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Snapshot([u8; 8]);

impl Snapshot {
    fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        Self(first)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A cloud model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What it is called here, in records and in lists; also one of the names that its provider takes.
    pub id: Arc<str>,
    /// Whose it is.
    pub provider: Name,
    /// Most prompt tokens that it takes.
    pub max_input: u64,
    /// Most tokens that it answers with, unless the request says less; 0 for one that answers with numbers, not tokens.
    pub max_output: u64,
    /// What it can do beside talking.
    pub can: Abilities,
    /// When it came out, in seconds since 1970, where that is known: the day in the oldest of its dated names.
    pub created: Option<u64>,
    /// Its other names, sorted.
    pub aliases: Box<[Arc<str>]>,
    /// How a day behind its id is written, where such a name is this model too.
    dated: Box<[DateForm]>,
    /// Whether its price is the operator's own and not the list's.
    pub(crate) has_own_price: bool,
    /// What Anthropic's `inference_geo: us` costs, in thousandths of the price.
    us_permille: u64,
    /// Never empty, one after the other without a gap.
    periods: Box<[Period]>,
}

/// What a model can do beside talking; `None` where nobody says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abilities {
    /// Ask for tools.
    pub tools: Option<bool>,
    /// See pictures.
    pub vision: Option<bool>,
    /// Think before it answers.
    pub thinking: Option<bool>,
}

/// How a day is written behind a model's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DateForm {
    /// `-2026-11-20`
    Dashed,
    /// `-20261120`
    Compact,
}

impl DateForm {
    /// The name without the day at its end.
    fn strip(self, name: &str) -> Option<&str> {
        let shape: &[u8] = match self {
            Self::Dashed => b"-0000-00-00",
            Self::Compact => b"-00000000",
        };
        let (id, day) = name.split_at_checked(name.len().checked_sub(shape.len())?)?;
        let fits = day.bytes().zip(shape).all(|(b, &s)| if s == b'0' { b.is_ascii_digit() } else { b == s });
        fits.then_some(id)
    }
}

/// Why the data of the catalogue is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the catalogue's entry {entry}: {problem}")]
pub struct CatalogueError {
    /// Which entry, by its id.
    pub entry: String,
    /// What is wrong with it.
    pub problem: String,
}

impl CatalogueError {
    fn new(entry: &str, problem: impl Into<String>) -> Self {
        Self { entry: entry.to_owned(), problem: problem.into() }
    }
}

impl Catalogue {
    /// The committed data.
    ///
    /// # Errors
    /// When it is damaged, which a test rules out.
    pub fn embedded() -> Result<Self, CatalogueError> {
        Self::new(data::read(DATA)?, Snapshot::of(&[DATA.as_bytes()]))
    }

    /// The same with an operator's own models and prices: an entry of a known id changes that model, any other is a new one.
    ///
    /// # Errors
    /// When an entry cannot be used; it is named.
    pub fn with_overrides(self, overrides: &[ModelOverride]) -> Result<Self, CatalogueError> {
        if overrides.is_empty() {
            return Ok(self);
        }
        let snapshot = Snapshot::of(&[&self.snapshot.0, &overrides::canonical(overrides)]);
        let models = self.models.iter().map(|model| Model::clone(model)).collect();
        Self::new(overrides::lay_over(models, overrides)?, snapshot)
    }

    fn new(mut models: Vec<Model>, snapshot: Snapshot) -> Result<Self, CatalogueError> {
        models.sort_by(|a, b| a.id.cmp(&b.id));
        price::fill_searches(&mut models);
        let mut names = HashMap::with_capacity(models.len() * 2);
        for (at, model) in models.iter().enumerate() {
            for name in std::iter::once(&model.id).chain(&model.aliases) {
                if let Some(other) = names.insert(Arc::clone(name), at) {
                    let problem = format!("its name {name} is also one of {}", models[other].id);
                    return Err(CatalogueError::new(&model.id, problem));
                }
            }
        }
        Ok(Self { models: models.into_iter().map(Arc::new).collect(), names, snapshot })
    }

    /// The model of this id or alias, or of this id with a day behind it where the provider writes such names.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Model>> {
        let at = |name: &str| self.names.get(name).and_then(|&at| self.models.get(at));
        at(name).or_else(|| {
            [DateForm::Dashed, DateForm::Compact].into_iter().find_map(|form| {
                let id = form.strip(name)?;
                at(id).filter(|model| model.is_dated(id, form))
            })
        })
    }

    /// All of them, sorted by id.
    pub fn models(&self) -> impl ExactSizeIterator<Item = &Arc<Model>> {
        self.models.iter()
    }

    /// Which version of the prices this is.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot
    }
}

impl Model {
    /// Its id, and then its other names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.id).chain(&self.aliases).map(AsRef::as_ref)
    }

    /// Whether it is meant by this name: its id, another of its names, or its id with a day behind it.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        let is_dated = |form: DateForm| form.strip(name).is_some_and(|id| self.is_dated(id, form));
        self.names().any(|own| own == name) || [DateForm::Dashed, DateForm::Compact].into_iter().any(is_dated)
    }

    fn is_dated(&self, id: &str, form: DateForm) -> bool {
        *self.id == *id && self.dated.contains(&form)
    }

    /// What it costs at that time in the usual class of service, for a prompt of the smallest size; `None` without a price.
    #[must_use]
    pub fn list_price(&self, at: SystemTime) -> Option<ListPrice> {
        let at = price::seconds(at);
        let period = self.periods.iter().find(|period| period.holds(at))?;
        Some(ListPrice::of(period.services.first()?.steps.first()?.rates))
    }

    /// Whether there is a price for it at that time. Without one it cannot be asked for.
    #[must_use]
    pub fn is_priced(&self, at: SystemTime) -> bool {
        let at = price::seconds(at);
        self.periods.iter().any(|period| period.holds(at))
    }
}

#[cfg(test)]
mod tests;
