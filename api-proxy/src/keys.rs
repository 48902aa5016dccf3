//! Where a caller may put their key.

use http::{HeaderMap, header::AUTHORIZATION};

use crate::meter::{NotAdmitted, PresentedKey};

/// The spellings of OpenAI's, Anthropic's, Azure's and Google's clients, beside `Authorization: Bearer`.
const HEADERS: [&str; 3] = ["x-api-key", "api-key", "x-goog-api-key"];

/// The one key that a request carries. Several headers may hold it as long as they hold the same.
pub(crate) fn presented(headers: &HeaderMap) -> Result<PresentedKey<'_>, NotAdmitted> {
    let bearers = headers.get_all(AUTHORIZATION).into_iter().map(|value| bearer(value.to_str().ok()?));
    let others = HEADERS.into_iter().flat_map(|name| headers.get_all(name)).map(|value| value.to_str().ok());
    let mut found: Option<&str> = None;
    for text in bearers.chain(others) {
        let text = text.ok_or(NotAdmitted::Malformed)?.trim();
        match found {
            // A client that was given no key sends an empty one.
            _ if text.is_empty() => {}
            Some(first) if first != text => return Err(NotAdmitted::Ambiguous),
            _ => found = Some(text),
        }
    }
    found.map(PresentedKey::new).ok_or(NotAdmitted::Missing)
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("bearer").then_some(key)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn check(headers: &[(&'static str, &'static str)], expected: Result<&str, NotAdmitted>) {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect();
        assert_eq!(presented(&headers).map(|key| key.expose()), expected, "{headers:?}");
    }

    #[test]
    fn each_spelling_is_read() {
        check(&[("authorization", "Bearer k")], Ok("k"));
        check(&[("authorization", "bearer  k ")], Ok("k"));
        check(&[("x-api-key", "k")], Ok("k"));
        check(&[("api-key", "k")], Ok("k"));
        check(&[("x-goog-api-key", "k")], Ok("k"));
        check(&[("authorization", "Bearer k"), ("x-api-key", "k")], Ok("k"));
        check(&[("authorization", "Bearer "), ("x-api-key", "k")], Ok("k"));
    }

    #[test]
    fn everything_else_is_refused() {
        check(&[], Err(NotAdmitted::Missing));
        check(&[("authorization", "Bearer")], Err(NotAdmitted::Missing));
        check(&[("authorization", "Basic azo=")], Err(NotAdmitted::Malformed));
        check(&[("x-api-key", "kl\u{e9}")], Err(NotAdmitted::Malformed));
        check(&[("authorization", "Bearer k"), ("x-api-key", "l")], Err(NotAdmitted::Ambiguous));
        check(&[("x-api-key", "k"), ("x-goog-api-key", "l")], Err(NotAdmitted::Ambiguous));
    }
}
