//! Pages of the public web, as text.
//!
//! Nothing of the Lab's or of its people goes with a request: no cookie, no referrer, no name. What comes back is words of strangers;
//! the model is told so, and nothing in them is followed, loaded or shown from here.

use std::time::Duration;

use http::{StatusCode, header};
use reqwest::Response;

use super::reach::{Reach, Unreachable};

/// A page that is read, in bytes, at most.
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// All of it, redirects included.
const TIME: Duration = Duration::from_secs(20);
/// How often a page may send one elsewhere.
const MOST_REDIRECTS: usize = 5;
/// Columns of a page that is made text of: wide enough that sentences are not torn, narrow enough for tables.
const WIDTH: usize = 120;
/// Elements that are nested this deeply are no page that anybody reads, and the translation to text takes its stack from them.
const MOST_OPEN: usize = 2_000;

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
    let host = url.host_str()?;
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
            return read(response).await;
        }
        let Some(to) = response.headers().get(header::LOCATION) else { return read(response).await };
        // Relative to where it was said; what is checked is the whole of it.
        let to = to.to_str().map_err(|_| FetchError::Unreachable(Unreachable::Malformed))?;
        url = way.url.join(to).map_err(|_| FetchError::Unreachable(Unreachable::Malformed))?.into();
    }
    Err(FetchError::Redirects)
}

async fn read(mut response: Response) -> Result<Page, FetchError> {
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
    // It takes a while for a large page.
    let text = tokio::task::spawn_blocking(move || if html { text_of(&body) } else { lossy(&body) });
    Ok(Page { url, status: status.as_u16(), text: text.await.map_err(|_| FetchError::NotText)?, cut })
}

fn text_of(html: &[u8]) -> String {
    if depth(html) > MOST_OPEN {
        return lossy(html);
    }
    // A page that cannot be laid out, a table of a thousand columns, is given as it stands.
    html2text::config::plain().string_from_read(html, WIDTH).unwrap_or_else(|_| lossy(html))
}

/// How deeply a page's elements may be nested at most: every opening tag that was not followed by a closing one.
fn depth(html: &[u8]) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    for at in memchr::memchr_iter(b'<', html) {
        match html.get(at + 1) {
            Some(b'/') => open = open.saturating_sub(1),
            Some(byte) if byte.is_ascii_alphabetic() => open += 1,
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
