//! Versions of Ollama, and the oldest that may be shared.

use std::{fmt, str::FromStr};

/// The oldest version that requests are relayed to. Before it a model file could read the process's memory (CVE-2026-7482).
pub const OLDEST: Version = Version { numbers: [0, 17, 1], text: None };

/// A version as `/api/version` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    numbers: [u32; 3],
    /// As Ollama wrote it; `None` for a version that is only numbers.
    text: Option<String>,
}

/// A text that is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version of Ollama")]
pub struct InvalidVersion;

impl Version {
    /// Whether it is [`OLDEST`] or later. A pre-release comes before its release; a build from source calls itself 0.0.0 and cannot
    /// be told apart from an old one.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        let is_pre_release = self.text.as_deref().is_some_and(|text| text.split('+').next().unwrap_or(text).contains('-'));
        self.numbers > OLDEST.numbers || (self.numbers == OLDEST.numbers && !is_pre_release)
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        // It is shown to people and sent to the Lab: no more than a version can be.
        if text.len() > 64 || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-+_".contains(&b)) {
            return Err(InvalidVersion);
        }
        let core = text.strip_prefix('v').unwrap_or(text).split(['-', '+']).next().unwrap_or_default();
        let mut numbers = [0; 3];
        let mut parts = core.split('.');
        for (number, part) in numbers.iter_mut().zip(&mut parts) {
            *number = part.parse().map_err(|_| InvalidVersion)?;
        }
        match parts.next() {
            Some(_) => Err(InvalidVersion),
            None => Ok(Self { numbers, text: Some(text.to_owned()) }),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        match &self.text {
            Some(text) => f.write_str(text),
            None => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_decide_and_not_letters() {
        for (text, is_safe) in [
            ("0.17.1", true),
            ("0.17.0", false),
            ("0.17.1-rc2", false),
            ("0.17.1+build-7", true),
            ("0.17.2-rc0", true),
            ("0.18.0-rc1", true),
            ("0.9.9", false),
            ("0.32.15", true),
            ("v0.32.15", true),
            ("1.0", true),
            ("0.17", false),
            ("0.0.0", false),
            ("0.0.0-dirty", false),
        ] {
            let version: Version = text.parse().unwrap();
            assert_eq!((version.is_safe(), version.to_string().as_str()), (is_safe, text));
        }
        assert_eq!(OLDEST.to_string(), "0.17.1");
        assert!(OLDEST.is_safe());
    }

    #[test]
    fn other_texts_are_no_versions() {
        let long = format!("0.18.0-{}", "x".repeat(60));
        for text in ["", "main", "0.18.x", "0.18.0.1", "0.18.0 <b>", "-1.0.0", "4294967296.0.0", long.as_str()] {
            assert_eq!(text.parse::<Version>(), Err(InvalidVersion), "{text}");
        }
    }
}
