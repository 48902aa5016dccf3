//! Names of models: as Ollama spells them, and as a caller of the Lab asks for one of their own.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

/// A model as Ollama names it, with its tag: `llama3.2:latest`, `hf.co/owner/model:Q4_K_M`.
///
/// Always carries a tag (`latest` when none was written), so two spellings of one model are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ModelName(String);

/// Why a text is not the name of a model. The text is not repeated: it came from a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidModelName {
    /// Nothing was written.
    #[error("the model name is empty")]
    Empty,
    /// Longer than [`ModelName::MAX_LEN`] bytes.
    #[error("the model name is longer than {} bytes", ModelName::MAX_LEN)]
    TooLong,
    /// A character that no registry takes in a name.
    #[error("the model name holds a character other than letters, digits and . _ - : /")]
    Character,
    /// An empty part, as in `a//b`, `:tag` or `..`.
    #[error("the model name has an empty part")]
    Part,
}

impl ModelName {
    /// Longest name in bytes: Ollama allows 350 for host, namespace, model and tag together; real ones stay far below.
    pub const MAX_LEN: usize = 256;

    /// The name with its tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether Ollama would run it on somebody else's computer.
    ///
    /// Ollama forwards a name whose last `:` part is `cloud`, or whose tag ends in `-cloud`, to its own service without the
    /// model being present (`internal/modelref/modelref.go`). The comparison ignores case, as Ollama's does.
    #[must_use]
    pub fn is_cloud(&self) -> bool {
        let tag = self.0.rsplit(':').next().unwrap_or_default().to_ascii_lowercase();
        tag == "cloud" || tag.ends_with("-cloud")
    }
}

impl FromStr for ModelName {
    type Err = InvalidModelName;

    fn from_str(text: &str) -> Result<Self, InvalidModelName> {
        if text.is_empty() {
            return Err(InvalidModelName::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(InvalidModelName::TooLong);
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:/".contains(&b)) {
            return Err(InvalidModelName::Character);
        }
        let (path, tag) = match text.rfind(':') {
            // A `:` before the last `/` is a port of the registry's host.
            Some(at) if !text[at..].contains('/') => (&text[..at], &text[at + 1..]),
            _ => (text, "latest"),
        };
        let is_empty = |part: &str| part.trim_matches(['.', ':']).is_empty();
        if is_empty(tag) || path.split('/').any(is_empty) {
            return Err(InvalidModelName::Part);
        }
        Ok(Self(format!("{path}:{tag}")))
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ModelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A model on one of the caller's own workstations: `local/<model>`, or `local@<device>/<model>` for one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalModel {
    /// The workstation's name or id where the caller named one.
    pub device: Option<String>,
    /// The model there.
    pub model: ModelName,
}

impl LocalModel {
    /// Reads `local/<model>` or `local@<device>/<model>`; `None` when the text does not begin so.
    ///
    /// # Errors
    /// When it begins so and the rest is no model's name.
    pub fn parse(text: &str) -> Option<Result<Self, InvalidModelName>> {
        let rest = text.strip_prefix("local")?;
        let (device, model) = match rest.strip_prefix('/') {
            Some(model) => (None, model),
            None => {
                let (device, model) = rest.strip_prefix('@')?.split_once('/')?;
                (Some(device.to_owned()), model)
            }
        };
        Some(match device.as_deref() {
            Some("") => Err(InvalidModelName::Part),
            _ => model.parse().map(|model| Self { device, model }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ModelName {
        text.parse().unwrap()
    }

    #[test]
    fn a_missing_tag_is_latest() {
        assert_eq!(name("llama3.2"), name("llama3.2:latest"));
        assert_eq!(name("localhost:5000/a/b").as_str(), "localhost:5000/a/b:latest");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        use InvalidModelName::{Character, Empty, Part, TooLong};
        let long = "x".repeat(257);
        for (text, why) in [
            ("", Empty),
            (long.as_str(), TooLong),
            ("a b", Character),
            ("a\nb", Character),
            ("modèle", Character),
            ("a//b", Part),
            (":x", Part),
            ("a:", Part),
            ("..", Part),
            ("../a", Part),
        ] {
            assert_eq!(text.parse::<ModelName>(), Err(why), "{text:?}");
        }
    }

    #[test]
    fn what_runs_elsewhere_is_recognised() {
        for text in ["gpt-oss:cloud", "gpt-oss:120b-cloud", "x:CLOUD", "x:20b-Cloud"] {
            assert!(name(text).is_cloud(), "{text}");
        }
        for text in ["cloud", "my-cloud", "x-cloud:latest", "x:cloudy"] {
            assert!(!name(text).is_cloud(), "{text}");
        }
    }

    #[test]
    fn local_names_are_read() {
        let local = |text| LocalModel::parse(text).map(|r| r.map(|l| (l.device, l.model.as_str().to_owned())));
        assert_eq!(local("local/a"), Some(Ok((None, "a:latest".into()))));
        assert_eq!(local("local@box/a/b:1"), Some(Ok((Some("box".into()), "a/b:1".into()))));
        assert_eq!(local("local@/a"), Some(Err(InvalidModelName::Part)));
        assert_eq!(local("local/"), Some(Err(InvalidModelName::Empty)));
        assert_eq!(local("locale/a"), None);
        assert_eq!(local("gpt-5"), None);
    }
}
