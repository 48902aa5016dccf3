//! The address of a Lab, as it is signed in every hello.

use std::{fmt, str::FromStr};

use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `https://host` or `https://host:port`, lower case, without a trailing slash and without the port that `https` has anyway.
///
/// Two spellings of one Lab are equal: the text is part of what the device signs, so it must be the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(Url);

/// Why a text is no Lab's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    /// `http://…`.
    #[error(
        "a Lab is reached over https only, because prompts travel to it: write https:// (a Lab with a test CA is trusted with ca_file)"
    )]
    Http,
    /// No scheme, or one that is neither `http` nor `https`.
    #[error("a Lab's address begins with https://, as in https://lab.example.com")]
    Scheme,
    /// The part after `https://` is no host.
    #[error("the Lab's address names no valid host: write it as in https://lab.example.com or https://lab.example.com:8443")]
    Host,
    /// A user name or password.
    #[error(
        "a Lab's address holds no user name and no password: remove what stands before the @, then pair with `1k4-bridge login`"
    )]
    User,
    /// A path, a query or a fragment.
    #[error("a Lab's address ends after host and port: remove the path")]
    Path,
}

impl Origin {
    /// The text that is signed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Host name or address; an IPv6 address stands without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port to dial.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(443)
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or(InvalidOrigin::Scheme)?;
        if scheme.eq_ignore_ascii_case("http") {
            return Err(InvalidOrigin::Http);
        }
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(InvalidOrigin::Scheme);
        }
        // The URL standard forgives what nobody writes on purpose: backslashes, extra slashes, line breaks inside.
        if rest.starts_with('/') || rest.chars().any(|c| c == '\\' || c.is_whitespace() || c.is_control()) {
            return Err(InvalidOrigin::Host);
        }
        let url = Url::parse(text).map_err(|_| InvalidOrigin::Host)?;
        if rest.contains('@') || !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidOrigin::User);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidOrigin::Path);
        }
        if url.host_str().is_none_or(str::is_empty) || url.port() == Some(0) {
            return Err(InvalidOrigin::Host);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_lab_is_one_origin() {
        for (text, origin, host, port) in [
            ("https://lab.example.com", "https://lab.example.com", "lab.example.com", 443),
            ("https://lab.example.com/", "https://lab.example.com", "lab.example.com", 443),
            ("HTTPS://Lab.Example.COM:443", "https://lab.example.com", "lab.example.com", 443),
            (" https://localhost:8443\n", "https://localhost:8443", "localhost", 8443),
            ("https://127.0.0.1:8443/", "https://127.0.0.1:8443", "127.0.0.1", 8443),
            ("https://[0:0::1]:8443", "https://[::1]:8443", "::1", 8443),
            ("https://bücher.example", "https://xn--bcher-kva.example", "xn--bcher-kva.example", 443),
        ] {
            let parsed: Origin = text.parse().unwrap();
            assert_eq!((parsed.as_str(), parsed.host(), parsed.port()), (origin, host, port), "{text:?}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_with_its_reason() {
        use InvalidOrigin::{Host, Http, Path, Scheme, User};
        for (text, why) in [
            ("http://lab.example.com", Http),
            ("HTTP://localhost:8443", Http),
            ("lab.example.com", Scheme),
            ("", Scheme),
            ("wss://lab.example.com", Scheme),
            ("https:lab.example.com", Scheme),
            ("https://", Host),
            ("https:///lab.example.com", Host),
            ("https://lab\\example.com", Host),
            ("https://lab.exa\nmple.com", Host),
            ("https://lab.example.com:0", Host),
            ("https://lab.example.com:65536", Host),
            ("https://:8443", Host),
            ("https://me@lab.example.com", User),
            ("https://@lab.example.com", User),
            ("https://me:secret@lab.example.com", User),
            ("https://lab.example.com/api", Path),
            ("https://lab.example.com/?a=b", Path),
            ("https://lab.example.com/#top", Path),
            ("https://lab.example.com//", Path),
        ] {
            assert_eq!(text.parse::<Origin>(), Err(why), "{text:?}");
        }
    }
}
