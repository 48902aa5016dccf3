//! A browser is signed in: what its cookie opens, for how long, and how that ends.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::client::{Answer, Browser, TestLab, request};

const DAY: Duration = Duration::from_secs(86_400);

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.json()["error"]["code"].as_str().unwrap().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

async fn status(browser: &Browser) -> StatusCode {
    browser.ask("GET", "/api/projects", None).await.status
}

#[tokio::test]
async fn a_session_opens_the_account_and_a_bad_cookie_nothing() {
    let lab = TestLab::start().await;
    let ada = lab.sign_in("ada").await;
    let projects = ada.ask("GET", "/api/projects", None).await;
    assert_eq!((projects.status, &projects.json()["data"][0]["name"]), (StatusCode::OK, &json!("Personal")));
    assert!(projects.headers.get("set-cookie").is_none());
    let made = ada.ask("POST", "/api/projects", Some(json!({ "name": "second" }))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());

    for cookie in ["__Host-1k4s=x".to_owned(), format!("__Host-1k4s={}", "A".repeat(43)), ada.cookies() + "x"] {
        let answer = lab.send(request("GET", "/api/projects").header("cookie", cookie).body("".into()).unwrap()).await;
        assert_eq!(code(&answer), refused(401, "signed_out"));
        assert!(answer.headers.get("www-authenticate").is_none());
    }
    // Nobody at all is told how programs do it, and gets no cookie (R24).
    let answer = lab.get("/api/projects").await;
    assert_eq!(code(&answer), refused(401, "invalid_api_key"));
    for path in ["/", "/pair", "/api/projects", "/api/openapi.json", "/nothing", "/healthz"] {
        assert!(lab.get(path).await.headers.get("set-cookie").is_none(), "{path}");
    }
    // The model API knows no cookies.
    assert_eq!(ada.ask("GET", "/v1/models", None).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_foreign_page_changes_nothing() {
    let lab = TestLab::start().await;
    let ada = lab.sign_in("ada").await;
    let body = || json!({ "name": "forged" }).to_string();
    let origin = lab.lab.origin.to_string();
    for headers in [
        vec![("sec-fetch-site", "cross-site"), ("content-type", "application/json")],
        vec![("sec-fetch-site", "same-site"), ("content-type", "application/json"), ("origin", origin.as_str())],
        vec![("content-type", "application/json"), ("origin", "https://evil.example")],
        vec![("content-type", "application/json")],
        vec![("sec-fetch-site", "same-origin"), ("content-type", "text/plain")],
        vec![("sec-fetch-site", "same-origin")],
    ] {
        let forged = headers.iter().fold(request("POST", "/api/projects"), |request, (name, value)| request.header(*name, *value));
        assert_eq!(code(&ada.send(forged, body().into()).await), refused(403, "foreign_request"), "{headers:?}");
    }
    assert_eq!(ada.ask("GET", "/api/projects", None).await.json()["data"].as_array().unwrap().len(), 1);
    let old = request("POST", "/api/projects").header("origin", origin).header("content-type", "application/json");
    assert_eq!(ada.send(old, body().into()).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_token_lives_a_week_and_a_session_a_month() {
    let lab = TestLab::start().await;
    let (clock, ada, eve) = (lab.lab.clock.clone(), lab.sign_in("ada").await, lab.sign_in("eve").await);
    let first = ada.cookies();
    clock.advance(DAY);
    let answer = ada.ask("GET", "/api/projects", None).await;
    let line = answer.headers["set-cookie"].to_str().unwrap();
    assert!(
        line.starts_with("__Host-1k4s=") && line.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=604800"),
        "{line}"
    );
    assert_ne!(ada.cookies(), first);
    for _ in 0..4 {
        clock.advance(6 * DAY);
        assert_eq!(status(&ada).await, StatusCode::OK);
    }
    // Eve's was not used for a week and more.
    assert_eq!(code(&eve.ask("GET", "/api/projects", None).await), refused(401, "signed_out"));
    // 25 days are over.
    clock.advance(5 * DAY - Duration::from_secs(5));
    assert_eq!(status(&ada).await, StatusCode::OK);
    clock.advance(Duration::from_secs(6));
    assert_eq!(status(&ada).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_replaced_token_holds_for_seconds_and_then_ends_the_family() {
    let lab = TestLab::start().await;
    let (clock, ada) = (lab.lab.clock.clone(), lab.sign_in("ada").await);
    let other = lab.another_browser(ada.user, ada.project).await;
    let old = ada.cookies();
    clock.advance(DAY);
    // Twenty at once get one successor.
    let asks = (0..20).map(|_| lab.send(request("GET", "/api/projects").header("cookie", &old).body("".into()).unwrap()));
    let answers = futures_util::future::join_all(asks).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    let next: Vec<&str> =
        answers.iter().filter_map(|answer| answer.headers.get("set-cookie")).map(|line| line.to_str().unwrap()).collect();
    assert_eq!(next.len(), 1);
    ada.keep(next[0]);
    let with =
        async |cookie: &str| lab.send(request("GET", "/api/projects").header("cookie", cookie).body("".into()).unwrap()).await;
    clock.advance(Duration::from_secs(9));
    assert_eq!(with(&old).await.status, StatusCode::OK);
    assert_eq!(status(&ada).await, StatusCode::OK);
    clock.advance(Duration::from_secs(2));
    assert_eq!(code(&with(&old).await), refused(401, "signed_out"));
    assert_eq!(code(&ada.ask("GET", "/api/projects", None).await), refused(401, "signed_out"));
    assert_eq!(status(&other).await, StatusCode::OK);
}

#[tokio::test]
async fn what_cannot_be_undone_needs_a_fresh_sign_in() {
    let lab = TestLab::start().await;
    let (clock, ada) = (lab.lab.clock.clone(), lab.sign_in("ada").await);
    let keys = format!("/api/projects/{}/keys", ada.project);
    let made = ada.ask("POST", &keys, Some(json!({ "name": "fresh" }))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    let kid = made.json()["key"].as_str().unwrap()[9..21].to_owned();
    clock.advance(Duration::from_secs(601));
    assert_eq!(code(&ada.ask("POST", &keys, Some(json!({ "name": "late" }))).await), refused(403, "step_up_required"));
    assert_eq!(code(&ada.ask("POST", &format!("/api/keys/{kid}/rotate"), None).await), refused(403, "step_up_required"));
    let scopes = Some(json!({ "scopes": ["manage"] }));
    assert_eq!(code(&ada.ask("PATCH", &format!("/api/keys/{kid}"), scopes).await), refused(403, "step_up_required"));
    let project = format!("/api/projects/{}", ada.project);
    assert_eq!(code(&ada.ask("DELETE", &project, None).await), refused(403, "step_up_required"));
    // Ending a key is never held up.
    assert_eq!(ada.ask("DELETE", &format!("/api/keys/{kid}"), None).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_token_is_nowhere_on_disk_and_its_hash_is() {
    let lab = TestLab::start().await;
    let ada = lab.sign_in("ada").await;
    assert_eq!(status(&ada).await, StatusCode::OK);
    let cookies = ada.cookies();
    let token = cookies.strip_prefix("__Host-1k4s=").unwrap();
    let raw = BASE64URL_NOPAD.decode(token.as_bytes()).unwrap();
    let hash = Sha256::digest(token);
    let mut hashes = 0;
    for file in std::fs::read_dir(&lab.dir).unwrap() {
        let path = file.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!has(token.as_bytes()) && !has(&raw), "{}", path.display());
        hashes += usize::from(has(&hash));
    }
    assert!(hashes > 0, "the hash is what the token is found by");
}
