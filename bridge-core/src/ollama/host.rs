//! Where Ollama is: the grammar of `OLLAMA_HOST`, read as Ollama itself reads it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Ollama's own default port.
const PORT: u16 = 11434;

/// The address of the one Ollama that this bridge relays to: `http://host:port`.
///
/// `host`, `host:port`, `:port`, `[v6]:port` and `http://host[:port]` are understood; an address to listen on (`0.0.0.0`, `::`)
/// is dialled as loopback; a port that is none means the default one, as in Ollama (`envconfig.Host`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OllamaHost(Url);

/// Why a text is no address of an Ollama.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOllamaHost {
    /// `https://…`.
    #[error(
        "Ollama itself speaks plain http, so https leads to a proxy or to somebody else's computer, and what this bridge shares must run on \
         this one: write http://127.0.0.1:11434, or the address of an Ollama in your own network"
    )]
    Https,
    /// Another scheme.
    #[error("Ollama's address begins with http:// or has no scheme, as in 127.0.0.1:11434")]
    Scheme,
    /// No host.
    #[error("Ollama's address names no valid host: write it as in 127.0.0.1:11434")]
    Host,
    /// A path, a query or a user name.
    #[error(
        "Ollama's address ends after host and port: remove what follows (an Ollama behind a path of a web server is not supported)"
    )]
    Path,
}

impl OllamaHost {
    /// The base URL without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// The host as a URL spells it; an IPv6 address stands without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(PORT)
    }

    /// Whether it is on this computer. If it is not, prompts cross the network in the clear and Ollama no longer checks who asks.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Its address, if it is on this computer.
    #[must_use]
    pub fn loopback(&self) -> Option<SocketAddr> {
        let ip = self.host().parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        self.is_loopback().then(|| SocketAddr::new(ip, self.port()))
    }

    /// The URL of one of Ollama's endpoints.
    pub(super) fn join(&self, path: &'static str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }
}

impl Default for OllamaHost {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "a constant text that a test parses")]
        "127.0.0.1:11434".parse().expect("Ollama's own default is an address")
    }
}

impl FromStr for OllamaHost {
    type Err = InvalidOllamaHost;

    fn from_str(text: &str) -> Result<Self, InvalidOllamaHost> {
        let text = text.trim().trim_matches(['"', '\'']).trim();
        let (default_port, rest) = match text.split_once("://") {
            None if text == "ollama.com" => return Err(InvalidOllamaHost::Https),
            None => (PORT, text),
            Some(("http", rest)) => (80, rest),
            Some(("https", _)) => return Err(InvalidOllamaHost::Https),
            Some(_) => return Err(InvalidOllamaHost::Scheme),
        };
        let (host_port, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !path.is_empty() || host_port.contains(['@', '?', '#', '\\']) {
            return Err(InvalidOllamaHost::Path);
        }
        let (host, port) = split_host_port(host_port);
        let port = port.map_or(default_port, |p| p.parse().unwrap_or(default_port));
        if host.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidOllamaHost::Host);
        }
        let host = match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1".to_owned(),
            Ok(IpAddr::V4(ip)) => ip.to_string(),
            Ok(IpAddr::V6(ip)) if ip.is_unspecified() => "[::1]".to_owned(),
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            Err(_) if host.is_empty() => "127.0.0.1".to_owned(),
            Err(_) => host.to_owned(),
        };
        let url = Url::parse(&format!("http://{host}:{port}")).map_err(|_| InvalidOllamaHost::Host)?;
        Ok(Self(url))
    }
}

/// Go's `net.SplitHostPort` with Ollama's fallback: what does not split is a host alone.
fn split_host_port(text: &str) -> (&str, Option<&str>) {
    if let Some((host, port)) = text.rsplit_once(':') {
        if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            return (address, Some(port));
        }
        // More than one colon without brackets is an IPv6 address alone.
        if !host.contains([':', '[', ']']) {
            return (host, Some(port));
        }
    }
    (text.trim_matches(['[', ']']), None)
}

impl fmt::Display for OllamaHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for OllamaHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for OllamaHost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ollamas_own_spellings_are_understood() {
        // (text, host, port, loopback): the rows of Ollama's `TestHost` and ours.
        for (text, host, port, loopback) in [
            ("", "127.0.0.1", 11434, true),
            ("1.2.3.4", "1.2.3.4", 11434, false),
            (":1234", "127.0.0.1", 1234, true),
            ("1.2.3.4:1234", "1.2.3.4", 1234, false),
            ("example.com", "example.com", 11434, false),
            ("example.com:1234", "example.com", 1234, false),
            ("example.com/", "example.com", 11434, false),
            ("localhost", "localhost", 11434, true),
            (":0", "127.0.0.1", 0, true),
            (":66000", "127.0.0.1", 11434, true),
            (":-1", "127.0.0.1", 11434, true),
            ("[::1]", "::1", 11434, true),
            ("::1", "::1", 11434, true),
            ("[::1]:1337", "::1", 1337, true),
            ("[fe80:0::2]:1337", "fe80::2", 1337, false),
            ("0.0.0.0", "127.0.0.1", 11434, true),
            ("0.0.0.0:8080", "127.0.0.1", 8080, true),
            ("[::]:8080", "::1", 8080, true),
            ("::", "::1", 11434, true),
            ("http://1.2.3.4", "1.2.3.4", 80, false),
            ("http://1.2.3.4:4321", "1.2.3.4", 4321, false),
            ("http://localhost:11434/", "localhost", 11434, true),
            ("http://[::]", "::1", 80, true),
            (" \"1.2.3.4\" ", "1.2.3.4", 11434, false),
            ("' 127.0.0.1:11500 '", "127.0.0.1", 11500, true),
        ] {
            let parsed: OllamaHost = text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"));
            assert_eq!((parsed.host(), parsed.port(), parsed.is_loopback()), (host, port, loopback), "{text:?}");
        }
        assert_eq!(OllamaHost::default().as_str(), "http://127.0.0.1:11434");
        assert_eq!("[::]:8080".parse::<OllamaHost>().unwrap().as_str(), "http://[::1]:8080");
        assert_eq!(OllamaHost::default().join("/api/tags").as_str(), "http://127.0.0.1:11434/api/tags");
    }

    #[test]
    fn what_is_no_ollama_is_refused_with_its_reason() {
        use InvalidOllamaHost::{Host, Https, Path, Scheme};
        for (text, why) in [
            ("https://ollama.com", Https),
            ("https://127.0.0.1:11434", Https),
            ("ollama.com", Https),
            ("ftp://127.0.0.1", Scheme),
            ("unix:///run/ollama.sock", Scheme),
            ("two words", Host),
            ("a:b:c", Host),
            ("http://127.0.0.1/ollama", Path),
            ("user@127.0.0.1", Path),
            ("127.0.0.1?x", Path),
        ] {
            assert_eq!(text.parse::<OllamaHost>(), Err(why), "{text:?}");
        }
    }
}
