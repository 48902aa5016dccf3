//! A workstation is paired: over TLS, by a bridge with a key and a person with a browser.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use http::StatusCode;
use lab_server::store::Scope;
use wire::{
    fingerprint::Fingerprint,
    pairing::{AUTHORIZE_PATH, DeviceGrant, DeviceRequest, Paired, TOKEN_PATH, TokenError, TokenErrorCode, TokenRequest},
};

use crate::client::{Answer, TestLab, request};

struct Bridge {
    key: SigningKey,
    grant: DeviceGrant,
}

fn device_request(key: &SigningKey, hostname: &str) -> DeviceRequest {
    DeviceRequest {
        public_key: key.verifying_key().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
        hostname: hostname.into(),
        os: "Debian 13".into(),
        version: "0.1.0".into(),
    }
}

impl Bridge {
    async fn authorize(lab: &TestLab, seed: u8, hostname: &str) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let answer = lab.post_json(AUTHORIZE_PATH, &device_request(&key, hostname)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.headers["cache-control"], "no-store");
        Self { key, grant: serde_json::from_slice(&answer.body).unwrap() }
    }

    async fn poll(&self, lab: &TestLab) -> Result<Paired, TokenErrorCode> {
        self.poll_with(lab, &self.key, lab.lab.origin.as_str()).await
    }

    async fn poll_with(&self, lab: &TestLab, key: &SigningKey, origin: &str) -> Result<Paired, TokenErrorCode> {
        let request = TokenRequest::sign(key, origin, self.grant.device_code.clone());
        outcome(&lab.post_json(TOKEN_PATH, &request).await)
    }
}

fn outcome(answer: &Answer) -> Result<Paired, TokenErrorCode> {
    match answer.status {
        StatusCode::OK => Ok(serde_json::from_slice(&answer.body).unwrap()),
        StatusCode::BAD_REQUEST => Err(serde_json::from_slice::<TokenError>(&answer.body).unwrap().error),
        status => panic!("{status}: {}", answer.text()),
    }
}

fn ticket(page: &Answer) -> String {
    let (_, rest) = page.text().split_once("name=\"ticket\" value=\"").expect("a review with a ticket");
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_person_approves_on_the_page() {
    let lab = TestLab::start().await;
    let (user, project, key) = lab.user_with_scopes("ada", &[Scope::Manage]).await;
    let bridge = Bridge::authorize(&lab, 7, "<b>gpu</b>-box").await;
    assert_eq!(bridge.grant.verification_uri, format!("{}/pair", lab.lab.origin));
    assert_eq!((bridge.grant.expires_in, bridge.grant.interval, bridge.grant.user_code.len()), (600, 5, 9));
    assert_eq!(bridge.poll(&lab).await.unwrap_err(), TokenErrorCode::AuthorizationPending);
    assert_eq!(bridge.poll(&lab).await.unwrap_err(), TokenErrorCode::SlowDown);

    let form = lab.get("/pair").await;
    assert!(form.text().contains("<label for=\"code\">") && !form.text().contains("<script"), "{}", form.text());
    let policy = form.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("style-src 'sha256-") && policy.contains("form-action 'self'"), "{policy}");

    let typed = bridge.grant.user_code.to_lowercase().replace('-', "");
    // A key that may ask models lets nobody in who would answer them.
    let asks = lab.key(project, &[Scope::Inference, Scope::Usage]).await;
    let page = lab.post_form("/pair/review", format!("code={typed}&key={asks}")).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text());
    assert!(page.text().contains("scope manage"), "{}", page.text());
    let page = lab.post_form("/pair/review", format!("code={typed}&key={key}")).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text());
    assert!(page.text().contains("&lt;b&gt;gpu&lt;/b&gt;-box") && !page.text().contains("<b>"), "{}", page.text());
    assert!(page.text().contains(&Fingerprint::of(&bridge.key.verifying_key()).to_string()));
    assert!(page.text().contains("Debian 13") && page.text().contains("127.0.0.1"));
    assert!(!page.text().contains(&key), "the key is never sent back");

    let ticket = ticket(&page);
    // Without a sign that the form is the Lab's own, nothing happens and the ticket stays good.
    let foreign = request("POST", "/pair/decide")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "cross-site")
        .body(format!("ticket={ticket}&decision=approve").into())
        .unwrap();
    assert_eq!(lab.send(foreign).await.status, StatusCode::FORBIDDEN);
    let done = lab.post_form("/pair/decide", format!("ticket={ticket}&decision=approve")).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text());
    let again = lab.post_form("/pair/decide", format!("ticket={ticket}&decision=approve")).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);

    // A stolen device code pairs nothing, and neither does a signature for another Lab.
    let thief = SigningKey::from_bytes(&[8; 32]);
    let origin = lab.lab.origin.as_str();
    assert_eq!(bridge.poll_with(&lab, &thief, origin).await.unwrap_err(), TokenErrorCode::InvalidGrant);
    assert_eq!(bridge.poll_with(&lab, &bridge.key, "https://evil.example").await.unwrap_err(), TokenErrorCode::InvalidGrant);
    assert_eq!(lab.lab.store.devices(user.id).await.unwrap(), []);

    let paired = bridge.poll(&lab).await.unwrap();
    assert_eq!(paired.owner, "ada");
    assert_eq!(bridge.poll(&lab).await.unwrap().device, paired.device);
    let device = lab.lab.store.device(paired.device).await.unwrap().unwrap();
    assert_eq!((device.user, device.public_key), (user.id, *bridge.key.verifying_key().as_bytes()));

    // The same workstation signs in again and stays the same device; after its end it is another one.
    let second = Bridge::authorize(&lab, 7, "gpu-box").await;
    approve(&lab, &second, &key).await;
    assert_eq!(second.poll(&lab).await.unwrap().device, paired.device);
    lab.lab.revocations.revoke_device(user.id, paired.device).await.unwrap();
    assert_eq!(second.poll(&lab).await.unwrap_err(), TokenErrorCode::InvalidGrant);
    let third = Bridge::authorize(&lab, 7, "gpu-box").await;
    approve(&lab, &third, &key).await;
    assert_ne!(third.poll(&lab).await.unwrap().device, paired.device);
}

async fn approve(lab: &TestLab, bridge: &Bridge, key: &str) {
    let page = lab.post_form("/pair/review", format!("code={}&key={key}", bridge.grant.user_code)).await;
    let done = lab.post_form("/pair/decide", format!("ticket={}&decision=approve", ticket(&page))).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text());
}

#[tokio::test]
async fn a_denial_and_an_end_are_told_apart() {
    let lab = TestLab::with(|config| config.pairing.lifetime = Duration::ZERO).await;
    let bridge = Bridge::authorize(&lab, 1, "box").await;
    assert_eq!(bridge.poll(&lab).await.unwrap_err(), TokenErrorCode::ExpiredToken);

    let lab = TestLab::start().await;
    let (_, _, key) = lab.user_with_scopes("ada", &[Scope::Manage]).await;
    let bridge = Bridge::authorize(&lab, 1, "box").await;
    let page = lab.post_form("/pair/review", format!("code={}&key={key}", bridge.grant.user_code)).await;
    let done = lab.post_form("/pair/decide", format!("ticket={}&decision=deny", ticket(&page))).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text());
    assert_eq!(bridge.poll(&lab).await.unwrap_err(), TokenErrorCode::AccessDenied);
    let unknown = TokenRequest::sign(&bridge.key, lab.lab.origin.as_str(), "00".repeat(32));
    assert_eq!(outcome(&lab.post_json(TOKEN_PATH, &unknown).await).unwrap_err(), TokenErrorCode::InvalidGrant);
}

#[tokio::test]
async fn guessing_is_counted() {
    let lab = TestLab::start().await;
    let (_, _, key) = lab.user_with_scopes("ada", &[Scope::Manage]).await;
    let bridge = Bridge::authorize(&lab, 1, "box").await;
    // Whoever has no key learns nothing of codes, and a text that cannot be a code is no guess.
    for body in [format!("code={}&key=x", bridge.grant.user_code), format!("code=AEIO-UAEI&key={key}")] {
        let page = lab.post_form("/pair/review", body).await;
        assert!(page.status.is_client_error() && page.text().contains("role=\"alert\""), "{}", page.text());
    }
    let wrong = if bridge.grant.user_code == "BBBB-BBBB" { "CCCC-CCCC" } else { "BBBB-BBBB" };
    for _ in 0..5 {
        let page = lab.post_form("/pair/review", format!("code={wrong}&key={key}")).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let locked = lab.post_form("/pair/review", format!("code={}&key={key}", bridge.grant.user_code)).await;
    assert_eq!(locked.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = locked.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((899..=901).contains(&wait), "{wait}");
}

#[tokio::test]
async fn codes_are_rationed_and_requests_checked() {
    let lab = TestLab::start().await;
    let key = SigningKey::from_bytes(&[1; 32]);
    let mut bad = device_request(&key, "box");
    bad.public_key = "00".repeat(32);
    for body in
        [serde_json::json!(bad), serde_json::json!(device_request(&key, " ")), serde_json::json!({ "public_key": "secret" })]
    {
        let answer = lab.post_json(AUTHORIZE_PATH, &body).await;
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (StatusCode::BAD_REQUEST, Some("invalid_body")));
        assert!(!answer.text().contains("secret"));
    }
    for seed in 0..7 {
        Bridge::authorize(&lab, seed, "box").await;
    }
    let answer = lab.post_json(AUTHORIZE_PATH, &device_request(&key, "box")).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3590..=3601).contains(&wait), "{wait}");
}
