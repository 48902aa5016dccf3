//! What an API key may do: the terms that its owner sets, checked where they come in.

use std::{fmt, num::NonZeroU32, str::FromStr};

use api_proxy::AskedModel;
use serde::{Deserialize, Serialize};
use wire::ModelName;

use crate::account::api_key::Environment;

/// Everything that an owner can say of a key, in the shape in which it is stored, shown and asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyTerms {
    /// Real work or trying things out; part of the key's text, so that it never changes.
    pub environment: Environment,
    /// What it opens.
    pub scopes: Scopes,
    /// What it may spend.
    pub spending: Spending,
    /// How fast it may ask.
    pub rates: Rates,
    /// Which models it may ask for; `None` for all.
    pub models: Option<Vec<ModelPattern>>,
    /// When it ends by itself, in milliseconds since 1970.
    pub expires_at: Option<i64>,
}

impl KeyTerms {
    /// Whether it may ask for this model: every one of its names means it, in the terms as in a request.
    #[must_use]
    pub fn allow_model(&self, model: AskedModel<'_>) -> bool {
        self.models.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.means(model)))
    }
}

/// One thing that a key can open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The model API.
    Inference,
    /// Reading the records and sums of the key's own project.
    Usage,
    /// The account over HTTP: its projects, keys, credits and usage.
    Manage,
}

impl Scope {
    /// Every one, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Inference, Self::Usage, Self::Manage];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::Usage => "usage",
            Self::Manage => "manage",
        }
    }
}

/// A text that is no [`Scope`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope is `inference`, `usage` or `manage`; several are separated by commas")]
pub struct InvalidScope;

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(InvalidScope)
    }
}

/// What a key opens: a set of scopes, written as a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Scope>", into = "Vec<Scope>")]
pub struct Scopes([bool; Scope::ALL.len()]);

impl Scopes {
    /// Whether it holds this one.
    #[must_use]
    pub const fn allow(self, scope: Scope) -> bool {
        self.0[scope as usize]
    }

    /// The scopes that it holds, each once.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.allow(*scope))
    }
}

impl Default for Scopes {
    /// What a program that uses models needs, and nothing that changes the account.
    fn default() -> Self {
        [Scope::Inference, Scope::Usage].into_iter().collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        let mut held = Self([false; Scope::ALL.len()]);
        for scope in scopes {
            held.0[scope as usize] = true;
        }
        held
    }
}

impl From<Vec<Scope>> for Scopes {
    fn from(scopes: Vec<Scope>) -> Self {
        scopes.into_iter().collect()
    }
}

impl From<Scopes> for Vec<Scope> {
    fn from(scopes: Scopes) -> Self {
        scopes.iter().collect()
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, scope) in self.iter().enumerate() {
            f.write_str(if n > 0 { "," } else { "" })?;
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl FromStr for Scopes {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        text.split(',').map(str::trim).filter(|scope| !scope.is_empty()).map(str::parse).collect()
    }
}

/// What a key may spend in a window of UTC, in nano-credits; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spending {
    /// In a day.
    pub day: Option<i64>,
    /// In a month.
    pub month: Option<i64>,
    /// Ever.
    pub total: Option<i64>,
}

/// How much may be asked in what time; `None` for no limit. A limit of nothing would be a revocation, so there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// Requests in a minute, which may also come all at once.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens of prompts and answers in a minute, which may also come all at once.
    pub tokens_per_minute: Option<NonZeroU32>,
    /// Requests that run at once.
    pub concurrent: Option<NonZeroU32>,
}

/// A model's name, or the beginning of several: `gpt-5*`, `local/*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelPattern(String);

/// A text that is no [`ModelPattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a model pattern is a model's name of at most 256 characters, or its beginning and `*`, which may stand only at the end")]
pub struct InvalidModelPattern;

impl ModelPattern {
    /// As long as a model's name can be.
    const MAX_LEN: usize = 256;

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a model is meant by it.
    fn means(&self, model: AskedModel<'_>) -> bool {
        match (self.0.strip_suffix('*'), model) {
            (Some(beginning), AskedModel::Cloud(model)) => model.names().any(|name| name.starts_with(beginning)),
            (None, AskedModel::Cloud(model)) => model.is_called(&self.0),
            (Some(beginning), AskedModel::Local(name)) => format!("local/{name}").starts_with(beginning),
            // Ollama's tag may be left out.
            (None, AskedModel::Local(name)) => {
                let written = self.0.strip_prefix("local/").and_then(|name| name.parse::<ModelName>().ok());
                written.as_ref() == Some(name)
            }
        }
    }
}

impl TryFrom<String> for ModelPattern {
    type Error = InvalidModelPattern;

    fn try_from(text: String) -> Result<Self, InvalidModelPattern> {
        let name = text.strip_suffix('*').unwrap_or(&text);
        let plain = !name.contains(|c: char| c == '*' || c.is_control() || c.is_whitespace());
        if text.is_empty() || text.len() > Self::MAX_LEN || !plain { Err(InvalidModelPattern) } else { Ok(Self(text)) }
    }
}

impl FromStr for ModelPattern {
    type Err = InvalidModelPattern;

    fn from_str(text: &str) -> Result<Self, InvalidModelPattern> {
        text.to_owned().try_into()
    }
}

impl From<ModelPattern> for String {
    fn from(pattern: ModelPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_a_set_in_one_spelling() {
        let scopes: Scopes = "manage, inference,manage".parse().unwrap();
        assert_eq!(scopes.to_string(), "inference,manage");
        assert!(scopes.allow(Scope::Manage) && !scopes.allow(Scope::Usage));
        assert_eq!(serde_json::to_string(&scopes).unwrap(), r#"["inference","manage"]"#);
        assert_eq!(Scopes::default().to_string(), "inference,usage");
        assert_eq!("".parse::<Scopes>().map(Scopes::iter).map(Iterator::count), Ok(0));
        assert_eq!("admin".parse::<Scopes>(), Err(InvalidScope));
    }

    #[test]
    fn a_pattern_matches_a_name_or_its_beginning() {
        let catalogue = api_proxy::Catalogue::embedded().unwrap();
        let cloud = |patterns: &[&str], name: &str| {
            let models = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
            let terms = KeyTerms { models: Some(models), ..KeyTerms::default() };
            terms.allow_model(AskedModel::Cloud(catalogue.find(name).unwrap()))
        };
        let local = |patterns: &[&str], name: &str| {
            let models = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
            let terms = KeyTerms { models: Some(models), ..KeyTerms::default() };
            terms.allow_model(AskedModel::Local(&name.parse().unwrap()))
        };
        for (pattern, model, allowed) in [
            ("gpt-5*", "gpt-5.5", true),
            ("gpt-5.5", "gpt-5.5", true),
            ("gpt-5", "gpt-5.5", false),
            ("gpt-5*", "claude-haiku-4-5", false),
            ("*", "claude-haiku-4-5", true),
            // A model has several names, and either may stand on either side.
            ("claude-haiku-4-5-20251001", "claude-haiku-4-5", true),
            ("claude-haiku-4-5-2025*", "claude-haiku-4-5", true),
            ("claude-haiku-4-5", "claude-haiku-4-5-20251001", true),
            ("claude-haiku-5-5-20261001", "claude-haiku-5-5", true),
            ("claude-opus-4-5-20251101", "claude-haiku-4-5", false),
            ("local/*", "gpt-5.5", false),
        ] {
            assert_eq!(cloud(&[pattern], model), allowed, "{pattern} {model}");
        }
        for (pattern, model, allowed) in [
            ("local/tiny", "tiny", true),
            ("local/tiny", "tiny:latest", true),
            ("local/tiny:latest", "tiny", true),
            ("local/tiny", "tiny:1b", false),
            ("local/tiny:*", "tiny:1b", true),
            ("local/*", "tiny", true),
            ("*", "tiny", true),
            ("tiny", "tiny", false),
        ] {
            assert_eq!(local(&[pattern], model), allowed, "{pattern} {model}");
        }
        assert!(local(&["gpt-5*", "local/tiny"], "tiny") && !local(&[], "tiny") && !cloud(&[], "gpt-5.5"));
        assert!(KeyTerms::default().allow_model(AskedModel::Local(&"anything".parse().unwrap())));
        for text in ["", "a*b", "**", "a b", "a\n", &"x".repeat(257)] {
            assert_eq!(text.parse::<ModelPattern>(), Err(InvalidModelPattern), "{text}");
        }
    }

    #[test]
    fn terms_are_read_as_they_are_written() {
        let text = r#"{"environment":"test","scopes":["usage"],"spending":{"day":5,"month":null,"total":null},"rates":{"requests_per_minute":60,"tokens_per_minute":null,"concurrent":null},"models":["a*"],"expires_at":1}"#;
        let terms: KeyTerms = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&terms).unwrap(), text);
        assert_eq!(serde_json::from_str::<KeyTerms>("{}").unwrap(), KeyTerms::default());
        for text in [r#"{"rates":{"concurrent":0}}"#, r#"{"models":["a*b"]}"#, r#"{"scopes":["root"]}"#, r#"{"spend":{}}"#] {
            assert!(serde_json::from_str::<KeyTerms>(text).is_err(), "{text}");
        }
    }
}
