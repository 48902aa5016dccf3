//! The web app: what `npm run build` in `ui/` made, out of the program itself.
//!
//! A release carries the files, each also compressed; a debug build reads them from `ui/dist` whenever they are asked for. Without them
//! the Lab works all the same, and says here what is missing. Names of assets hold their content's hash and are kept for good; the page
//! is asked for each time. Whatever address is no file and wants a page is given the app, which knows its own addresses.

use std::borrow::Cow;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::error::ApiError;

/// What the page may do: its own scripts, styles, pictures and requests, and no one else's. Script is made of strings nowhere but in
/// two policies: the framework's, for its own templates, and `lab`, which lets the one service worker in.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; \
     worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types svelte-trusted-html lab",
);
/// Asked for each time, answered with 304 where it is still the same.
const ASK: HeaderValue = HeaderValue::from_static("no-cache");
const FOR_GOOD: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const PAGE: &str = "lab.html";

#[derive(RustEmbed)]
#[folder = "../ui/dist"]
#[allow_missing = true]
struct App;

/// A file of the app, the app's page, or nothing.
pub(crate) fn answer(method: &Method, path: &str, headers: &HeaderMap) -> Response {
    serve::<App>(method, path, headers)
}

fn serve<Files: RustEmbed>(method: &Method, path: &str, headers: &HeaderMap) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return ApiError::NotFound.into_response();
    }
    let name = match path.trim_start_matches('/') {
        "favicon.ico" => "favicon.svg",
        // The page has one address for each place in it, none of which is its file's.
        "" | PAGE => return page::<Files>(headers),
        name => name,
    };
    // A compressed copy is an encoding of a file and no file of its own.
    if !name.ends_with(".br")
        && !name.ends_with(".gz")
        && let Some(response) = file::<Files>(name, headers)
    {
        return response;
    }
    if is_for_programs(name) || !wants_page(headers) { ApiError::NotFound.into_response() } else { page::<Files>(headers) }
}

/// Below these nothing is ever a page, whatever a browser says that it takes.
fn is_for_programs(name: &str) -> bool {
    matches!(name.split('/').next(), Some("api" | "v1" | "v1beta" | "openai" | "assets" | ".well-known"))
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accept.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("text/html"))
}

fn page<Files: RustEmbed>(headers: &HeaderMap) -> Response {
    file::<Files>(PAGE, headers).unwrap_or_else(|| {
        let words = "This Lab was built without its web app; its API works.\n\
                     To have the app, run `npm ci` and `npm run build` in ui/, then build 1k4-lab again.\n";
        (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")],
            words,
        )
            .into_response()
    })
}

fn file<Files: RustEmbed>(name: &str, headers: &HeaderMap) -> Option<Response> {
    let kind = kind(name)?;
    let (encoding, file) = encoded::<Files>(name, headers)?;
    let tag = tag(&file)?;

    let mut response = if is_known(headers, &tag) { StatusCode::NOT_MODIFIED.into_response() } else { content(file) };
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    answer.insert(header::ETAG, tag);
    answer.insert(header::CACHE_CONTROL, if name.starts_with("assets/") { FOR_GOOD } else { ASK });
    if let Some(encoding) = encoding {
        answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    // The worker fetches what the page may fetch.
    if name == PAGE || name == "worker.js" {
        answer.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    }
    Some(response)
}

/// The smallest copy that the caller can read.
fn encoded<Files: RustEmbed>(name: &str, headers: &HeaderMap) -> Option<(Option<&'static str>, EmbeddedFile)> {
    for (encoding, ending) in [("br", ".br"), ("gzip", ".gz")] {
        if takes(headers, encoding)
            && let Some(file) = Files::get(&format!("{name}{ending}"))
        {
            return Some((Some(encoding), file));
        }
    }
    Files::get(name).map(|file| (None, file))
}

fn takes(headers: &HeaderMap, encoding: &str) -> bool {
    let given = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|value| value.split(',')).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        let refused = parts.any(|weight| weight.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0));
        named && !refused
    })
}

fn tag(file: &EmbeddedFile) -> Option<HeaderValue> {
    let hash = data_encoding::HEXLOWER.encode(&file.metadata.sha256_hash()[..16]);
    HeaderValue::try_from(format!("\"{hash}\"")).ok()
}

fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    known.split(',').any(|one| one.trim().trim_start_matches("W/").as_bytes() == tag.as_bytes())
}

fn content(file: EmbeddedFile) -> Response {
    match file.data {
        Cow::Borrowed(bytes) => Body::from(bytes),
        Cow::Owned(bytes) => Body::from(bytes),
    }
    .into_response()
}

/// The media type of everything that a build makes; another file is not served.
fn kind(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        "webmanifest" => "application/manifest+json",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a build leaves it.
    #[derive(RustEmbed)]
    #[folder = "src/web/sample"]
    struct Sample;

    /// As before the first build.
    #[derive(RustEmbed)]
    #[folder = "src/web/nowhere"]
    #[allow_missing = true]
    struct Nothing;

    fn get<Files: RustEmbed>(path: &str, headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        serve::<Files>(&Method::GET, path, &headers)
    }

    fn told<'a>(response: &'a Response, name: &str) -> &'a str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }

    const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

    #[test]
    fn a_page_is_wanted_anywhere_and_has_the_strict_policy() {
        for path in ["/", "/chat", "/chat/cnv_1", "/lab.html"] {
            let response = get::<Sample>(path, &[BROWSER]);
            assert_eq!(
                (response.status(), told(&response, "content-type")),
                (StatusCode::OK, "text/html; charset=utf-8"),
                "{path}"
            );
            assert_eq!(told(&response, "cache-control"), "no-cache");
            assert!(told(&response, "content-security-policy").contains("require-trusted-types-for 'script'"));
        }
    }

    #[test]
    fn an_asset_is_kept_for_good_and_comes_in_the_best_encoding() {
        for (takes, encoding) in [("gzip, deflate, br", "br"), ("gzip;q=0.5, br;q=0", "gzip"), ("identity", "")] {
            let response = get::<Sample>("/assets/lab-1a2b.js", &[("accept-encoding", takes)]);
            assert_eq!(told(&response, "content-encoding"), encoding, "{takes}");
            assert_eq!(told(&response, "content-type"), "text/javascript; charset=utf-8");
            assert_eq!(told(&response, "cache-control"), "public, max-age=31536000, immutable");
            assert_eq!(told(&response, "content-security-policy"), "", "an asset is no page");
        }
    }

    #[test]
    fn who_has_it_is_told_so() {
        let first = get::<Sample>("/", &[BROWSER]);
        let again = get::<Sample>("/", &[BROWSER, ("if-none-match", told(&first, "etag"))]);
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        let other = get::<Sample>("/", &[BROWSER, ("if-none-match", "\"0\"")]);
        assert_eq!(other.status(), StatusCode::OK);
    }

    #[test]
    fn what_is_for_programs_is_no_page() {
        for path in ["/api/nothing", "/v1/nothing", "/assets/gone-1.js", "/assets/../../Cargo.toml", "/assets/lab-1a2b.js.br"] {
            assert_eq!(get::<Sample>(path, &[BROWSER]).status(), StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(get::<Sample>("/chat", &[("accept", "application/json")]).status(), StatusCode::NOT_FOUND);
        assert_eq!(serve::<Sample>(&Method::POST, "/", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn without_an_app_it_says_so() {
        let response = get::<Nothing>("/", &[BROWSER]);
        assert_eq!(
            (response.status(), told(&response, "content-type")),
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8")
        );
    }
}
