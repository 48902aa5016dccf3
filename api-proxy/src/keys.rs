//! Where a caller may put their key.

use http::{HeaderMap, Uri, header::AUTHORIZATION};

use crate::{
    Protocol,
    meter::{NotAdmitted, PresentedKey},
    surface::protocol_at,
};

/// The spellings of OpenAI's, Anthropic's, Azure's and Google's clients, beside `Authorization: Bearer`.
const HEADERS: [&str; 3] = ["x-api-key", "api-key", "x-goog-api-key"];

/// The one key that a request carries. Several headers may hold it as long as they hold the same. Google's clients may put it into
/// the address as `?key=`; nobody else may, because addresses get logged.
///
/// # Errors
/// When there is none, or two that differ.
pub fn presented_key<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Result<PresentedKey<'a>, NotAdmitted> {
    let bearers = headers.get_all(AUTHORIZATION).into_iter().map(|value| bearer(value.to_str().ok()?));
    let others = HEADERS.into_iter().flat_map(|name| headers.get_all(name)).map(|value| value.to_str().ok());
    let in_query = uri.query().filter(|_| protocol_at(uri.path()) == Protocol::Gemini).into_iter().flat_map(keys_in);
    let mut found: Option<&str> = None;
    for text in bearers.chain(others).chain(in_query.map(Some)) {
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

/// Keys are made of characters that need no escape, so none is undone.
fn keys_in(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter_map(|pair| pair.strip_prefix("key="))
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
        let uri = Uri::from_static("/v1/models?key=unread");
        assert_eq!(presented_key(&headers, &uri).map(|key| key.expose()), expected, "{headers:?}");
    }

    #[test]
    fn googles_clients_may_put_it_into_the_address() {
        let key = |uri| presented_key(&HeaderMap::new(), &Uri::from_static(uri)).map(|key| key.expose().to_owned());
        assert_eq!(key("/v1beta/models/m:generateContent?alt=sse&key=k"), Ok("k".into()));
        assert_eq!(key("/v1beta/models?key=k&key=k"), Ok("k".into()));
        assert_eq!(key("/v1beta/models?key=k&key=l"), Err(NotAdmitted::Ambiguous));
        assert_eq!(key("/v1beta/openai/chat/completions?key=k"), Err(NotAdmitted::Missing));
        assert_eq!(key("/v1/chat/completions?key=k"), Err(NotAdmitted::Missing));
        let mut headers = HeaderMap::new();
        headers.insert("x-goog-api-key", HeaderValue::from_static("l"));
        let both = presented_key(&headers, &Uri::from_static("/v1beta/models?key=k")).map(|key| key.expose().to_owned());
        assert_eq!(both, Err(NotAdmitted::Ambiguous));
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
