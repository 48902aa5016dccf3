//! People sign in by a link in a mail, add and take away ways of signing in, see and end sessions, and pair workstations.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use http::StatusCode;
use lab_server::{
    account::{
        session,
        sign_in::{add, invite, purge},
    },
    config::sign_in::Registration,
    store::Subject,
};
use serde_json::{Value, json};
use wire::{
    fingerprint::Fingerprint,
    pairing::{AUTHORIZE_PATH, DeviceGrant, DeviceRequest, TOKEN_PATH, TokenRequest},
};

use crate::client::{Answer, Browser, TestLab, request};

const MINUTE: Duration = Duration::from_secs(60);

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.json()["error"]["code"].as_str().unwrap().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The tokens of all letters, oldest first.
fn letters(lab: &TestLab) -> Vec<String> {
    let mut files: Vec<_> =
        std::fs::read_dir(lab.dir.join("outbox")).into_iter().flatten().map(|file| file.unwrap().path()).collect();
    files.sort();
    let token = |text: String| text.split("#link=").nth(1).map(|rest| rest.split_whitespace().next().unwrap().to_owned());
    files.into_iter().filter_map(|file| token(std::fs::read_to_string(file).unwrap())).collect()
}

/// The newest letter's token, once there are so many.
async fn letter(lab: &TestLab, count: usize) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut found = letters(lab);
        if found.len() >= count {
            assert_eq!(found.len(), count);
            return found.pop().unwrap();
        }
        assert!(Instant::now() < deadline, "{} letters, not {count}", found.len());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn ask(browser: &Browser, address: &str) -> String {
    ask_for(browser, address, "sign_in").await
}

async fn ask_for(browser: &Browser, address: &str, purpose: &str) -> String {
    let answer = browser.ask("POST", "/api/sign-in/mail", Some(json!({ "address": address, "purpose": purpose }))).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text());
    answer.json()["code"].as_str().unwrap().to_owned()
}

async fn open(browser: &Browser, token: &str, code: Option<&str>) -> Answer {
    browser.ask("POST", "/api/sign-in/mail/confirm", Some(json!({ "token": token, "code": code }))).await
}

async fn lab(registration: Registration) -> TestLab {
    TestLab::with(|config| config.sign_in.registration = registration).await
}

#[tokio::test]
async fn a_link_signs_in_exactly_once() {
    let lab = lab(Registration::Open).await;
    let ada = lab.stranger();
    assert_eq!(ada.cookies(), "");
    ask(&ada, " Ada@Example.com").await;
    assert!(ada.cookies().starts_with("__Host-1k4m="), "only what the link needs");
    let token = letter(&lab, 1).await;
    // Scanners open what they find, and do not send what stands behind the `#`; not even a token in the path is used up by a GET.
    for path in ["/sign-in".to_owned(), format!("/sign-in?link={token}"), format!("/api/sign-in/mail/confirm?token={token}")] {
        for method in ["GET", "HEAD"] {
            let answer = lab.send(request(method, &path).body("".into()).unwrap()).await;
            assert!(answer.status.is_client_error() && answer.headers.get("set-cookie").is_none(), "{method} {path}");
        }
    }
    let body = json!({ "token": token }).to_string();
    let cookies = ada.cookies();
    // Each from an address of its own: nobody is stopped before the link itself is.
    let browsers: Vec<Browser> = (1..=50).map(|host| lab.stranger_from(Ipv4Addr::new(127, 0, 3, host))).collect();
    let tries = browsers.iter().map(|browser| {
        let request = request("POST", "/api/sign-in/mail/confirm")
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/json")
            .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0")
            .header("cookie", &cookies);
        browser.send(request, body.clone().into())
    });
    let (good, bad): (Vec<_>, Vec<_>) =
        futures_util::future::join_all(tries).await.into_iter().partition(|answer| answer.status == StatusCode::OK);
    assert_eq!((good.len(), bad.len()), (1, 49));
    assert!(bad.iter().all(|answer| code(answer) == refused(410, "sign_in_over")));
    good[0].headers.get_all("set-cookie").iter().for_each(|line| ada.keep(line.to_str().unwrap()));
    assert!(
        ada.cookies().starts_with("__Host-1k4s=") && !ada.cookies().contains("1k4m"),
        "login leaves the session's cookie alone"
    );

    let users = lab.lab.store.users().await.unwrap();
    assert_eq!(users.len(), 1);
    assert!(users[0].name.starts_with("ada-") && users[0].name.len() == 12, "a name that tells of nobody else's");
    let sessions = ada.ask("GET", "/api/sessions", None).await.json();
    assert_eq!(sessions["data"].as_array().unwrap().len(), 1, "{sessions}");
    assert_eq!((&sessions["data"][0]["browser"], &sessions["data"][0]["current"]), (&json!("Firefox on Linux"), &json!(true)));
    let projects = ada.ask("GET", "/api/projects", None).await.json();
    assert_eq!((projects["data"].as_array().unwrap().len(), &projects["data"][0]["name"]), (1, &json!("Personal")));

    // The same person comes back to the same account.
    let again = lab.stranger();
    ask(&again, "ada@example.com").await;
    assert_eq!(open(&again, &letter(&lab, 2).await, None).await.status, StatusCode::OK);
    let identities = again.ask("GET", "/api/identities", None).await.json();
    assert_eq!((&identities["data"][0]["email"], &identities["data"][0]["provider"]), (&json!("ada@example.com"), &json!("mail")));
    assert_eq!(lab.lab.store.users().await.unwrap().len(), 1);
}

#[tokio::test]
async fn another_browser_needs_the_code_that_the_first_one_shows() {
    let lab = lab(Registration::Open).await;
    let (asking, other) = (lab.stranger(), lab.stranger());
    let shown = ask(&asking, "ada@example.com").await;
    let token = letter(&lab, 1).await;
    assert_eq!(code(&open(&other, &token, None).await), refused(403, "code_required"));
    let good = open(&other, &token, Some(&format!("{}-{}", &shown[..4], shown[4..].to_lowercase()))).await;
    assert_eq!(good.status, StatusCode::OK, "{}", good.text());
    assert_eq!(code(&open(&asking, &token, None).await), refused(410, "sign_in_over"));

    let shown = ask(&asking, "eve@example.com").await;
    let token = letter(&lab, 2).await;
    // Somebody who has the link guesses, from everywhere.
    let wrong = if shown == "BBBBBBBB" { "CCCCCCCC" } else { "BBBBBBBB" };
    for guess in 1..=5 {
        let guesser = lab.stranger_from(Ipv4Addr::new(127, 0, 1, guess));
        assert_eq!(code(&open(&guesser, &token, Some(wrong)).await), refused(422, "wrong_code"));
    }
    assert_eq!(code(&open(&lab.stranger(), &token, Some(&shown)).await), refused(410, "sign_in_over"));
    assert_eq!(code(&open(&asking, &token, None).await), refused(410, "sign_in_over"));
    // The address gets no letter for a quarter of an hour, and is not told so.
    ask(&asking, "eve@example.com").await;
    ask(&asking, "bob@example.com").await;
    letter(&lab, 3).await;
    lab.lab.clock.advance(15 * MINUTE);
    ask(&asking, "eve@example.com").await;
    letter(&lab, 4).await;

    // And who guesses at one place is locked out there.
    let guesser = lab.stranger_from(Ipv4Addr::new(127, 0, 2, 1));
    ask(&asking, "joe@example.com").await;
    let joes = letter(&lab, 5).await;
    for _ in 0..5 {
        assert_eq!(code(&open(&guesser, &joes, Some(wrong)).await), refused(422, "wrong_code"));
    }
    let locked = open(&guesser, &joes, None).await;
    assert_eq!(code(&locked), refused(429, "too_many_requests"));
    let wait: u64 = locked.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((899..=901).contains(&wait), "{wait}");
}

#[tokio::test]
async fn only_the_newest_link_is_good_and_for_a_quarter_of_an_hour() {
    let lab = lab(Registration::Open).await;
    let ada = lab.stranger();
    ask(&ada, "ada@example.com").await;
    let first = letter(&lab, 1).await;
    let cookies = ada.cookies();
    ask(&ada, "ada@example.com").await;
    let second = letter(&lab, 2).await;
    // Also for the very browser that asked for it.
    let old = lab.stranger();
    old.keep(&cookies);
    assert_eq!(code(&open(&old, &first, None).await), refused(410, "sign_in_over"));
    lab.lab.clock.advance(15 * MINUTE);
    assert_eq!(code(&open(&ada, &second, None).await), refused(410, "sign_in_over"));
    for count in 3..=5 {
        ask(&ada, "ada@example.com").await;
        letter(&lab, count).await;
    }
    // The sixth in an hour is asked for and not sent; nor is one to another spelling.
    ask(&ada, "ada@example.com").await;
    ask(&ada, "ＡＤＡ@example.com ").await;
    ask(&ada, "bob@example.com").await;
    letter(&lab, 6).await;
    lab.lab.clock.advance(45 * MINUTE);
    ask(&ada, "ada@example.com").await;
    let newest = letter(&lab, 7).await;
    assert_eq!(open(&ada, &newest, None).await.status, StatusCode::OK);
    let forged =
        request("POST", "/api/sign-in/mail").header("content-type", "application/json").header("sec-fetch-site", "cross-site");
    let answer = lab.send(forged.body(json!({ "address": "ada@example.com" }).to_string().into()).unwrap()).await;
    assert_eq!(code(&answer), refused(403, "foreign_request"));
    for address in ["", "ada", "ada@example.com\r\nbcc: eve@example.com"] {
        let answer = ada.ask("POST", "/api/sign-in/mail", Some(json!({ "address": address }))).await;
        assert_eq!(code(&answer), refused(400, "invalid_field"), "{address}");
    }
}

#[tokio::test]
async fn an_address_without_an_account_is_told_the_same_in_the_same_time() {
    let lab = lab(Registration::Closed).await;
    let now = lab.lab.clock.now_ms();
    for number in 0..200 {
        add(&lab.lab.store, &format!("user{number}"), Some(&format!("known{number}@example.com")), now).await.unwrap();
    }
    let mut times: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
    let mut shapes = BTreeSet::new();
    for number in 0..200_u32 {
        let browser = lab.stranger_from(Ipv4Addr::from(0x7f00_0100 + number));
        // In turn, each first as often as the other: what is done for one after its answer slows whoever comes next.
        let mut both = [(0, "known"), (1, "strange")];
        both.rotate_left(number as usize % 2);
        for (which, address) in both {
            let body = Some(json!({ "address": format!("{address}{number}@example.com") }));
            let began = Instant::now();
            let answer = browser.ask("POST", "/api/sign-in/mail", body).await;
            times[which].push(began.elapsed());
            let body = answer.json();
            let lengths = (body["code"].as_str().unwrap().len(), body["expires_in"].as_u64().unwrap(), answer.text().len());
            let headers: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
            shapes.insert((answer.status.as_u16(), lengths, headers));
        }
    }
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    let ratio = median(&mut times[0]) / median(&mut times[1]);
    println!("the median time of a known address is {ratio:.3} of an unknown one's, {:?}", times[0][100]);
    assert!((0.7..1.4).contains(&ratio), "{ratio}");
    // Nobody who is unknown got a letter.
    letter(&lab, 200).await;
}

#[tokio::test]
async fn sessions_are_seen_and_ended() {
    let lab = TestLab::start().await;
    let (ada, eve) = (lab.sign_in("ada").await, lab.sign_in("eve").await);
    let (second, third) = (lab.another_browser(ada.user, ada.project).await, lab.another_browser(ada.user, ada.project).await);
    let listed = second.ask("GET", "/api/sessions", None).await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 3);
    let own = listed["data"].as_array().unwrap().iter().find(|session| session["current"] == true).unwrap()["id"].clone();
    let path = format!("/api/sessions/{}", own.as_str().unwrap());
    // Somebody else's and nobody's are one answer.
    for id in [path.as_str(), "/api/sessions/ses_aaaaaaaaaaaaaaaaaaaaaaaaaa", "/api/sessions/x"] {
        assert_eq!(code(&eve.ask("DELETE", id, None).await), refused(404, "not_found"), "{id}");
    }
    assert_eq!(ada.ask("DELETE", &path, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(code(&second.ask("GET", "/api/sessions", None).await), refused(401, "signed_out"));
    assert_eq!(ada.ask("DELETE", "/api/sessions", None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(code(&third.ask("GET", "/api/sessions", None).await), refused(401, "signed_out"));
    let stolen = ada.cookies();
    let out = ada.ask("POST", "/api/sign-out", None).await;
    assert_eq!((out.status, ada.cookies().as_str()), (StatusCode::NO_CONTENT, ""));
    let answer = lab.send(request("GET", "/api/sessions").header("cookie", stolen).body("".into()).unwrap()).await;
    assert_eq!(code(&answer), refused(401, "signed_out"));
    assert_eq!(eve.ask("GET", "/api/sessions", None).await.status, StatusCode::OK);
    // A key has no part in it.
    let key = lab.key(eve.project, &[lab_server::store::Scope::Manage]).await;
    assert_eq!(code(&lab.ask(&key, "GET", "/api/sessions", None).await), refused(401, "signed_out"));

    // What is over goes by itself (R29).
    lab.lab.clock.advance(Duration::from_secs(7 * 86_400 + 1));
    let epoch = lab.lab.store.security_epoch().await.unwrap();
    assert_eq!(purge(&lab.lab.store, lab.lab.clock.now_ms()).await.unwrap(), 1);
    assert_eq!(lab.lab.store.security_epoch().await.unwrap(), epoch + 1, "what runs for it learns of it");
    assert_eq!(purge(&lab.lab.store, lab.lab.clock.now_ms()).await.unwrap(), 0);
    assert_eq!(lab.lab.store.security_epoch().await.unwrap(), epoch + 1);
}

#[tokio::test]
async fn a_replaced_token_is_not_fresh_and_a_way_taken_away_ends_what_came_in_by_it() {
    let lab = TestLab::start().await;
    let (ada, eve) = (lab.sign_in("ada").await, lab.sign_in("eve").await);
    let (store, now) = (&lab.lab.store, lab.lab.clock.now_ms());
    let mailed = store.identities(ada.user).await.unwrap()[0].id;
    let subject = Subject { provider: "acme".into(), subject: "4711".into(), email: None };
    let second = store.add_identity(ada.user, &subject, now).await.unwrap().id;
    let of_second = async || {
        let new = session::open(store, ada.user, second, &session::Browser::of(None), now).await.unwrap();
        let browser = lab.stranger();
        browser.keep(new.cookie().to_str().unwrap());
        browser
    };
    let (one, other) = (of_second().await, of_second().await);
    // She proves once more who she is; for a moment the token before it is taken, and whoever took it from her can do little with it.
    let old = one.cookies();
    ask_for(&one, "ada@example.com", "step_up").await;
    assert_eq!(open(&one, &letter(&lab, 1).await, None).await.status, StatusCode::OK);
    let thief = lab.stranger();
    thief.keep(&old);
    assert_eq!(thief.ask("GET", "/api/identities", None).await.status, StatusCode::OK);
    let path = format!("/api/identities/{second}");
    assert_eq!(code(&thief.ask("DELETE", &path, None).await), refused(403, "step_up_required"));
    let link = thief.ask("POST", "/api/sign-in/mail", Some(json!({ "address": "eve@example.com", "purpose": "link" }))).await;
    assert_eq!(code(&link), refused(403, "step_up_required"));

    let epoch = store.security_epoch().await.unwrap();
    assert_eq!(one.ask("DELETE", &path, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(store.security_epoch().await.unwrap(), epoch + 1);
    assert_eq!(code(&other.ask("GET", "/api/identities", None).await), refused(401, "signed_out"));
    for browser in [&one, &ada, &eve] {
        assert_eq!(browser.ask("GET", "/api/identities", None).await.status, StatusCode::OK);
    }
    assert_eq!(store.identities(ada.user).await.unwrap()[0].id, mailed);
}

#[tokio::test]
async fn whoever_leaves_leaves_no_links_behind() {
    let lab = lab(Registration::Closed).await;
    let (store, origin, now) = (&lab.lab.store, &lab.lab.origin, lab.lab.clock.now_ms());
    let token = |link: String| link.split("#link=").nth(1).unwrap().to_owned();
    let (adas, eves) = (invite(store, origin, "ada@example.com", now).await, invite(store, origin, "eve@example.com", now).await);
    let (adas, eves) = (token(adas.unwrap()), token(eves.unwrap()));
    let users = store.users().await.unwrap();
    let ada = users.iter().find(|user| user.name.starts_with("ada-")).unwrap().id;
    store.revoke_user(ada).await.unwrap();
    let hash = |token: &str| <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(token));
    assert!(store.link(&hash(&adas), now).await.unwrap().is_none());
    assert!(store.link(&hash(&eves), now).await.unwrap().is_some());
    // Also a second time, when the keys are gone.
    store.vault().shred(lab_server::vault::Scope::User(ada)).await.unwrap();
    store.revoke_user(ada).await.unwrap();
}

#[tokio::test]
async fn ways_of_signing_in_are_added_and_taken_away_by_whoever_is_fresh() {
    let lab = TestLab::start().await;
    let (ada, eve) = (lab.sign_in("ada").await, lab.sign_in("eve").await);
    let list = async || ada.ask("GET", "/api/identities", None).await.json()["data"].as_array().unwrap().clone();
    let first = format!("/api/identities/{}", list().await[0]["id"].as_str().unwrap());
    assert_eq!(code(&ada.ask("DELETE", &first, None).await), refused(409, "last_identity"));
    assert_eq!(code(&eve.ask("DELETE", &first, None).await), refused(404, "not_found"));

    ask_for(&ada, "ada@elsewhere.example", "link").await;
    let token = letter(&lab, 1).await;
    // Who opens it outside that session adds nothing, and uses it up.
    let thief = lab.stranger();
    thief.keep(ada.cookies().split("; ").find(|cookie| cookie.starts_with("__Host-1k4m")).unwrap());
    assert_eq!(code(&open(&thief, &token, None).await), refused(401, "signed_out"));
    ask_for(&ada, "ada@elsewhere.example", "link").await;
    let linked = open(&ada, &letter(&lab, 2).await, None).await;
    assert_eq!((linked.status, &linked.json()["result"]), (StatusCode::OK, &json!("linked")), "{}", linked.text());
    assert_eq!(list().await.len(), 2);
    // Another's address joins nothing.
    ask_for(&ada, "eve@example.com", "link").await;
    assert_eq!(code(&open(&ada, &letter(&lab, 3).await, None).await), refused(409, "another_account"));

    lab.lab.clock.advance(11 * MINUTE);
    let late = ada.ask("POST", "/api/sign-in/mail", Some(json!({ "address": "x@example.com", "purpose": "link" }))).await;
    assert_eq!(code(&late), refused(403, "step_up_required"));
    assert_eq!(code(&ada.ask("DELETE", &first, None).await), refused(403, "step_up_required"));
    // Whoever holds the browser but no mailbox of hers gets no further.
    ask_for(&ada, "eve@example.com", "step_up").await;
    assert_eq!(code(&open(&ada, &letter(&lab, 4).await, None).await), refused(409, "another_account"));
    ask_for(&ada, "ada@elsewhere.example", "step_up").await;
    let before = ada.cookies();
    assert_eq!(open(&ada, &letter(&lab, 5).await, None).await.status, StatusCode::OK);
    assert_ne!(ada.cookies(), before, "whoever proved more has another token");
    assert_eq!(ada.ask("DELETE", &first, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(list().await.len(), 1);
    let nobody =
        lab.stranger().ask("POST", "/api/sign-in/mail", Some(json!({ "address": "x@example.com", "purpose": "link" }))).await;
    assert_eq!(code(&nobody), refused(401, "signed_out"));
}

#[tokio::test]
async fn an_operator_lets_people_in() {
    let lab = lab(Registration::Closed).await;
    let (store, origin, now) = (&lab.lab.store, &lab.lab.origin, lab.lab.clock.now_ms());
    let link = invite(store, origin, "ada@example.com", now).await.unwrap();
    let token = link.strip_prefix(&format!("{origin}/sign-in#link=")).unwrap();
    let ada = lab.stranger();
    assert_eq!(open(&ada, token, None).await.status, StatusCode::OK);
    assert_eq!(code(&open(&lab.stranger(), token, None).await), refused(410, "sign_in_over"));
    assert_eq!(ada.ask("GET", "/api/projects", None).await.json()["data"][0]["name"], "Personal");
    add(store, "bob", Some("bob@example.com"), now).await.unwrap();
    assert!(add(store, "bobby", Some("Bob@example.com"), now).await.is_err());
    let bob = lab.stranger();
    ask(&bob, "eve@example.com").await;
    ask(&bob, "bob@example.com").await;
    assert_eq!(open(&bob, &letter(&lab, 1).await, None).await.status, StatusCode::OK);
    assert_eq!(store.users().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_workstation_is_paired_renamed_and_ended_in_the_browser() {
    let lab = TestLab::start().await;
    let (ada, eve) = (lab.sign_in("ada").await, lab.sign_in("eve").await);
    let key = SigningKey::from_bytes(&[7; 32]);
    let wanted = DeviceRequest {
        public_key: data_encoding::HEXLOWER.encode(key.verifying_key().as_bytes()),
        hostname: "gpu-box".into(),
        os: "Debian 13".into(),
        version: "0.1.0".into(),
    };
    let grant: DeviceGrant = serde_json::from_slice(&lab.post_json(AUTHORIZE_PATH, &wanted).await.body).unwrap();
    let review =
        async |browser: &Browser, code: &str| browser.ask("POST", "/api/pairings/review", Some(json!({ "user_code": code }))).await;
    let seen = review(&ada, &grant.user_code).await.json();
    assert_eq!((&seen["hostname"], &seen["os"], &seen["address"]), (&json!("gpu-box"), &json!("Debian 13"), &json!("127.0.0.1")));
    assert_eq!(seen["fingerprint"], Fingerprint::of(&key.verifying_key()).to_string());
    let decide = async |browser: &Browser, ticket: &Value, approve: bool| {
        browser.ask("POST", "/api/pairings/decide", Some(json!({ "ticket": ticket, "approve": approve }))).await
    };
    // Another's ticket is nobody's.
    assert_eq!(code(&decide(&eve, &seen["ticket"], true).await), refused(404, "not_found"));
    let seen = review(&ada, &grant.user_code).await.json();
    lab.lab.clock.advance(11 * MINUTE);
    assert_eq!(code(&decide(&ada, &seen["ticket"], true).await), refused(403, "step_up_required"));
    let fresh = lab.another_browser(ada.user, ada.project).await;
    assert_eq!(code(&decide(&fresh, &seen["ticket"], true).await), refused(404, "not_found"));
    let seen = review(&fresh, &grant.user_code).await.json();
    assert_eq!(decide(&fresh, &seen["ticket"], true).await.status, StatusCode::NO_CONTENT);
    let token = TokenRequest::sign(&key, lab.lab.origin.as_str(), grant.device_code.clone());
    assert_eq!(lab.post_json(TOKEN_PATH, &token).await.status, StatusCode::OK);

    let listed = ada.ask("GET", "/api/devices", None).await.json();
    let device = &listed["data"][0];
    assert_eq!((&device["name"], &device["presence"], &device["models"]), (&json!("gpu-box"), &json!("offline"), &json!(0)));
    let path = format!("/api/devices/{}", device["id"].as_str().unwrap());
    assert_eq!(eve.ask("GET", "/api/devices", None).await.json()["data"], json!([]));
    assert_eq!(code(&eve.ask("PATCH", &path, Some(json!({ "name": "mine" }))).await), refused(404, "not_found"));
    assert_eq!(code(&eve.ask("DELETE", &path, None).await), refused(404, "not_found"));
    assert_eq!(code(&ada.ask("PATCH", &path, Some(json!({ "name": "a b" }))).await), refused(400, "invalid_field"));
    assert_eq!(ada.ask("PATCH", &path, Some(json!({ "name": "attic" }))).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.ask("GET", "/api/devices", None).await.json()["data"][0]["name"], "attic");
    assert_eq!(ada.ask("DELETE", &path, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.ask("GET", "/api/devices", None).await.json()["data"], json!([]));

    let wrong = if grant.user_code == "BBBB-BBBB" { "CCCC-CCCC" } else { "BBBB-BBBB" };
    assert_eq!(code(&review(&ada, "AEIOUAEI").await), refused(400, "invalid_field"));
    for _ in 0..5 {
        assert_eq!(code(&review(&ada, wrong).await), refused(404, "not_found"));
    }
    assert_eq!(code(&review(&ada, wrong).await), refused(429, "too_many_requests"));
}
