//! Pages of the public web, as text.
//!
//! Nothing of the Lab's or of its people goes with a request: no cookie, no referrer, no name. What comes back is words of strangers;
//! the model is told so, and nothing in them is followed, loaded or shown from here. A page that has moved to another host is another
//! call: whether that host may be asked is for the owner's rules to say.

mod page;

use std::time::Duration;

use http::{StatusCode, header};
use reqwest::Response;

use super::reach::{Reach, Unreachable};

/// A page that is read, in bytes, at most.
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// All of it, redirects included.
const TIME: Duration = Duration::from_secs(20);
/// How often a page may send one on within its host.
const MOST_REDIRECTS: usize = 5;
/// A page.
#[derive(Clone, PartialEq, Eq)]
pub struct Page {
    /// Where it was found in the end.
    pub url: String,
    /// Its status.
    pub status: u16,
    /// What it says.
    pub text: String,
    /// Whether there was more of it than is read.
    pub cut: bool,
}

/// Why a page was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It may not be gone to, or a redirect leads where that is so.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// It leads on and on.
    #[error("the page leads on to others more than 5 times")]
    Redirects,
    /// Nobody answers, or not as a web server does.
    #[error("nobody answers there, or the name leads nowhere on the public internet")]
    Silent,
    /// It took too long.
    #[error("the page took longer than 20 seconds")]
    Slow,
    /// It is no text.
    #[error("the page is neither text nor HTML nor JSON")]
    NotText,
}

/// Reads the page at an address.
///
/// # Errors
/// [`FetchError`] says why not, in words that a model can act on.
pub async fn fetch(reach: &Reach, url: &str) -> Result<Page, FetchError> {
    tokio::time::timeout(TIME, follow(reach, url)).await.map_err(|_| FetchError::Slow)?
}

/// The host of an address, with its port where that is another than the scheme's; what rules are about.
#[must_use]
pub fn host_of(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    // A name is the same name with the dot that ends it, and a rule about it holds for both.
    let host = url.host_str()?.trim_end_matches('.');
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

async fn follow(reach: &Reach, url: &str) -> Result<Page, FetchError> {
    let mut url = url.to_owned();
    for _ in 0..=MOST_REDIRECTS {
        let way = reach.to(&url)?;
        let accept = "text/html, text/plain, text/markdown, application/json;q=0.9, text/*;q=0.5";
        let request = way.client.get(way.url.clone()).header(header::ACCEPT, accept);
        // The error's text carries the address.
        let response = request.send().await.map_err(|_| FetchError::Silent)?;
        if !response.status().is_redirection() {
            return read(reach, response).await;
        }
        let Some(to) = response.headers().get(header::LOCATION) else { return read(reach, response).await };
        // Relative to where it was said; what is checked is the whole of it.
        let to = to.to_str().map_err(|_| FetchError::Unreachable(Unreachable::Malformed))?;
        let next = String::from(way.url.join(to).map_err(|_| FetchError::Unreachable(Unreachable::Malformed))?);
        reach.to(&next)?;
        if host_of(&next) != host_of(&url) {
            // The owner's rules are about hosts, and were asked about the first one only.
            let text = format!("the page has moved to another host, {next}; fetch that address if it is needed");
            return Ok(Page { url, status: response.status().as_u16(), text, cut: false });
        }
        url = next;
    }
    Err(FetchError::Redirects)
}

async fn read(reach: &Reach, mut response: Response) -> Result<Page, FetchError> {
    let (url, status) = (response.url().to_string(), response.status());
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let html = matches!(kind.as_str(), "text/html" | "application/xhtml+xml");
    let text = kind.starts_with("text/") || kind == "application/json" || kind.ends_with("+json");
    if status != StatusCode::NO_CONTENT && !html && !text {
        return Err(FetchError::NotText);
    }
    let (mut body, mut cut) = (Vec::new(), false);
    while let Some(chunk) = response.chunk().await.map_err(|_| FetchError::Silent)? {
        let room = MOST_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            cut = true;
            break;
        }
    }
    // It takes a while for a large page. One that is given up keeps its place until it is done.
    let place = reach.reading().await;
    let text = tokio::task::spawn_blocking(move || {
        let text = String::from_utf8_lossy(&body);
        let text = if html { page::text_of(&text) } else { text.into_owned() };
        drop(place);
        text
    });
    Ok(Page { url, status: status.as_u16(), text: text.await.map_err(|_| FetchError::NotText)?, cut })
}
