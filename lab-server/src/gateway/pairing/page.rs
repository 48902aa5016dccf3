//! The page on which a person approves a workstation: type the code, compare what the workstation says of itself, decide.
//!
//! Plain HTML without a script. `GET` changes nothing; a `POST` must come from this very page. The decision carries a ticket that was
//! made for this one review instead of the key, which is never sent back.

use std::{
    fmt,
    net::IpAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use axum::{
    Extension,
    extract::{Form, State, rejection::FormRejection},
    response::{IntoResponse, Response},
};
use ed25519_dalek::VerifyingKey;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use wire::fingerprint::Fingerprint;

use super::{
    Inner, PAGE_PATH, Pairing, display_code, read_code,
    reviews::{Approver, Reviewed},
};
use crate::{
    account::{api_key::PresentedKey, recognise},
    edge::peer::Peer,
    store::{self, KeyOwner, Scope, StoreError, ValidKey},
};

/// Where the code is looked up.
pub(crate) const REVIEW_PATH: &str = "/pair/review";
/// Where the answer goes.
pub(crate) const DECIDE_PATH: &str = "/pair/decide";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Review {
    code: String,
    key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decide {
    ticket: String,
    decision: Decision,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Decision {
    Approve,
    Deny,
}

/// People: `GET /pair`.
pub(crate) async fn ask() -> Response {
    code_form(StatusCode::OK, None)
}

/// People: `POST /pair/review`.
pub(crate) async fn review(
    State(pairing): State<Pairing>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    form: Result<Form<Review>, FormRejection>,
) -> Response {
    match try_review(&pairing, peer.ip(), &headers, form).await {
        Ok(page) => page,
        Err(problem) => problem.into_response(),
    }
}

/// People: `POST /pair/decide`.
pub(crate) async fn decide(
    State(pairing): State<Pairing>,
    headers: HeaderMap,
    form: Result<Form<Decide>, FormRejection>,
) -> Response {
    match try_decide(&pairing, &headers, form).await {
        Ok(page) => page,
        Err(problem) => problem.into_response(),
    }
}

async fn try_review(
    Pairing(pairing): &Pairing,
    from: IpAddr,
    headers: &HeaderMap,
    form: Result<Form<Review>, FormRejection>,
) -> Result<Response, Problem> {
    must_be_ours(headers, pairing.origin.as_str())?;
    let Form(form) = form.map_err(|_| Problem::Form)?;
    pairing.wrong_codes.try_once(from, Instant::now()).map_err(Problem::LockedOut)?;
    // The key first: who has none cannot find out which codes exist.
    let found = find(pairing, form).await;
    if !matches!(found, Err(Problem::Code)) {
        pairing.wrong_codes.forgive(from);
    }
    let (code, owner, found) = found?;
    let (by, owner) = (Approver::Key(owner.key), owner.user);
    let ticket = pairing.reviews.open(Reviewed { code, by, owner, hostname: found.request.hostname.clone() });
    Ok(review_page(&found.request, &ticket))
}

/// The pairing that waits under the code, and whose it is to be.
async fn find(pairing: &Inner, form: Review) -> Result<(String, KeyOwner, store::Pairing), Problem> {
    let key: PresentedKey = form.key.trim().parse().map_err(|_| Problem::Key)?;
    let valid = recognise(&pairing.store, &key).await?.ok_or(Problem::Key)?;
    let owner = may_approve(valid)?;
    let code = read_code(&form.code).ok_or(Problem::CodeForm)?;
    let found = pairing.store.pending_pairing(&code).await?.ok_or(Problem::Code)?;
    Ok((code, owner, found))
}

/// A workstation answers what its owner asks: letting one in is more than asking a model.
fn may_approve(key: ValidKey) -> Result<KeyOwner, Problem> {
    if key.terms.scopes.allow(Scope::Manage) { Ok(key.owner) } else { Err(Problem::Scope) }
}

async fn try_decide(
    Pairing(pairing): &Pairing,
    headers: &HeaderMap,
    form: Result<Form<Decide>, FormRejection>,
) -> Result<Response, Problem> {
    must_be_ours(headers, pairing.origin.as_str())?;
    let Form(form) = form.map_err(|_| Problem::Form)?;
    let reviewed = pairing.reviews.take(&form.ticket).ok_or(Problem::Ticket)?;
    // A key that was revoked since decides nothing.
    let Approver::Key(key) = reviewed.by else { return Err(Problem::Ticket) };
    may_approve(pairing.store.valid_key(key).await?.ok_or(Problem::Key)?)?;
    let answered = match form.decision {
        Decision::Approve => {
            pairing.store.approve_pairing(&reviewed.code, reviewed.owner, pairing.terms.ends_at()).await.map(|()| "Approved")
        }
        Decision::Deny => pairing.store.deny_pairing(&reviewed.code).await.map(|()| "Denied"),
    };
    let title = answered.map_err(|error| if matches!(error, StoreError::Missing(_)) { Problem::Code } else { error.into() })?;
    let host = Escaped(&reviewed.hostname);
    let text = match form.decision {
        Decision::Approve => format!("<strong>{host}</strong> is yours; its bridge links within seconds. You can close this page."),
        Decision::Deny => format!("<strong>{host}</strong> was not paired. You can close this page."),
    };
    Ok(page(StatusCode::OK, title, &format!("<p role=\"status\">{text}</p>")))
}

/// A form may only be sent by a page of this Lab: a link or a page elsewhere must not approve anything.
fn must_be_ours(headers: &HeaderMap, origin: &str) -> Result<(), Problem> {
    let ours = match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        // Browsers too old for the header above.
        None => headers.get(header::ORIGIN).is_some_and(|from| from == origin),
    };
    if ours { Ok(()) } else { Err(Problem::Foreign) }
}

/// Why the page does not go on.
enum Problem {
    Foreign,
    Form,
    Key,
    Scope,
    CodeForm,
    Code,
    Ticket,
    LockedOut(Duration),
    Internal,
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::Internal
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Foreign => {
                (StatusCode::FORBIDDEN, "This request did not come from this page. Open the page yourself and type the code.")
            }
            Self::Form => (StatusCode::BAD_REQUEST, "The form was not complete. Fill in both fields."),
            Self::Key => (
                StatusCode::FORBIDDEN,
                "This API key is not valid here. Copy the whole of it, from 1k4_ to its end; a revoked key stays revoked.",
            ),
            Self::Scope => (
                StatusCode::FORBIDDEN,
                "This API key may ask models and not let workstations in. Use one with the scope manage, or approve the code with \
                 1k4-lab admin devices approve.",
            ),
            Self::CodeForm => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "A code has eight letters, without vowels and digits. Copy it from the workstation.",
            ),
            Self::Code => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "No workstation waits under this code. Codes live for ten minutes: start again at the workstation for a new one.",
            ),
            Self::Ticket => {
                (StatusCode::UNPROCESSABLE_ENTITY, "This review is over or was answered before. Type the code again to see it.")
            }
            Self::LockedOut(wait) => {
                let minutes = wait.as_secs().div_ceil(60);
                let text = format!("Too many wrong codes from your address. Try again in {minutes} minutes.");
                let mut response = code_form(StatusCode::TOO_MANY_REQUESTS, Some(&text));
                response.headers_mut().insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
                return response;
            }
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "The Lab failed to do this; its log names the cause. Try again later.")
            }
        };
        code_form(status, Some(text))
    }
}

fn code_form(status: StatusCode, problem: Option<&str>) -> Response {
    let problem = problem.map(|text| format!("<p role=\"alert\">{}</p>", Escaped(text))).unwrap_or_default();
    let body = format!(
        "{problem}<p>Type the code that the workstation shows. It shows it after <code>1k4-bridge login</code> or Connect.</p>\
         <form method=\"post\" action=\"{REVIEW_PATH}\">\
         <label for=\"code\">Code</label>\
         <input id=\"code\" name=\"code\" required maxlength=\"20\" autocomplete=\"off\" autocapitalize=\"characters\" \
         spellcheck=\"false\" placeholder=\"XXXX-XXXX\">\
         <label for=\"key\">Your API key</label>\
         <input id=\"key\" class=\"hidden\" name=\"key\" required maxlength=\"200\" autocomplete=\"off\" autocapitalize=\"none\" \
         spellcheck=\"false\" placeholder=\"1k4_live_…\">\
         <button>Continue</button></form>"
    );
    page(status, "Pair a workstation", &body)
}

fn review_page(request: &store::NewPairing, ticket: &str) -> Response {
    let words = VerifyingKey::from_bytes(&request.public_key).map(|key| Fingerprint::of(&key).to_string()).unwrap_or_default();
    let body = format!(
        "<p>Approve only if this is your workstation and it shows the same four words.</p>\
         <dl><dt>Words</dt><dd class=\"words\">{}</dd><dt>Name</dt><dd>{}</dd><dt>System</dt><dd>{}</dd>\
         <dt>Address</dt><dd>{}</dd><dt>Code</dt><dd>{}</dd></dl>\
         <form method=\"post\" action=\"{DECIDE_PATH}\"><input type=\"hidden\" name=\"ticket\" value=\"{}\">\
         <button name=\"decision\" value=\"approve\">Approve</button>\
         <button class=\"quiet\" name=\"decision\" value=\"deny\">Deny</button></form>\
         <p><a href=\"{PAGE_PATH}\">Another code</a></p>",
        Escaped(&words),
        Escaped(&request.hostname),
        Escaped(&request.os),
        request.address,
        Escaped(&display_code(&request.user_code)),
        Escaped(ticket),
    );
    page(StatusCode::OK, "Is this your workstation?", &body)
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#16181d;--paper:#fff;--line:#8a8f98;--accent:#1d4ed8;--on-accent:#fff;--warn:#b42318}\
@media(prefers-color-scheme:dark){:root{--ink:#eceef2;--paper:#14161a;--line:#8a8f98;--accent:#93b4ff;--on-accent:#14161a;--warn:#ff9b8f}}\
*{box-sizing:border-box}\
body{margin:0;padding:2rem 1rem;background:var(--paper);color:var(--ink);font:1.0625rem/1.5 system-ui,sans-serif}\
main{max-width:28rem;margin:0 auto}\
h1{font-size:1.5rem;line-height:1.25}\
label{display:block;margin:1rem 0 .25rem;font-weight:600}\
input{width:100%;padding:.75rem;border:1px solid var(--line);border-radius:.5rem;background:transparent;color:inherit;\
font:inherit;font-family:ui-monospace,monospace}\
.hidden{-webkit-text-security:disc}\
button{width:100%;margin-top:1rem;padding:.75rem;border:1px solid var(--accent);border-radius:.5rem;background:var(--accent);\
color:var(--on-accent);font:inherit;font-weight:600;cursor:pointer}\
button.quiet{background:transparent;color:var(--accent)}\
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}\
a{color:var(--accent)}\
dt{margin-top:.75rem;font-size:.875rem}\
dd{margin:0;font-weight:600;overflow-wrap:anywhere}\
.words{font-size:1.25rem}\
[role=alert]{color:var(--warn);font-weight:600}";

/// The style's hash stands for it, so that nothing else that got into the page could style or script it.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = data_encoding::BASE64.encode(&Sha256::digest(STYLE));
    let policy =
        format!("default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'");
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title} · 1K4 Lab</title>\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}</main></body></html>"
    );
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, html).into_response()
}

/// A text inside HTML, in an element or a quoted attribute.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_become_html() {
        let text = Escaped("<a href='x' b=\"y\">&").to_string();
        assert_eq!(text, "&lt;a href=&#39;x&#39; b=&quot;y&quot;&gt;&amp;");
    }

    #[test]
    fn only_this_lab_may_send_its_forms() {
        let ours = |fields: &[(&'static str, &str)]| {
            let headers = fields.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
            must_be_ours(&headers, "https://lab.example.com").is_ok()
        };
        assert!(ours(&[("sec-fetch-site", "same-origin")]));
        assert!(ours(&[("origin", "https://lab.example.com")]));
        // With the policy no-referrer a browser sends the origin as null.
        assert!(ours(&[("sec-fetch-site", "same-origin"), ("origin", "null")]));
        assert!(!ours(&[]));
        assert!(!ours(&[("origin", "null")]));
        assert!(!ours(&[("origin", "https://lab.example.com.evil.example")]));
        for site in ["cross-site", "same-site", "none"] {
            assert!(!ours(&[("sec-fetch-site", site), ("origin", "https://lab.example.com")]), "{site}");
        }
    }
}
