//! The Lab's own HTTP API, by people's programs.

use std::collections::BTreeSet;

use http::StatusCode;
use lab_server::{
    account::api_key::Kid,
    api,
    store::{Charge, RequestRecord, Scope, Settlement, now_ms},
};
use serde_json::{Value, json};
use wire::{ProjectId, RequestId, UserId};

use crate::client::{Answer, TestLab, request};

const ALL: [Scope; 3] = Scope::ALL;
const PROGRAM: [Scope; 2] = [Scope::Inference, Scope::Usage];

fn code(answer: &Answer) -> (StatusCode, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

fn refused(status: u16, code: &str) -> (StatusCode, String) {
    (StatusCode::from_u16(status).unwrap(), code.to_owned())
}

fn kid(key: &str) -> String {
    key[9..21].to_owned()
}

/// A record that cost `cost_nano`, in the database.
async fn record(lab: &TestLab, user: UserId, project: ProjectId, key: &str, time: i64, cost_nano: i64) -> RequestRecord {
    let record = RequestRecord {
        id: RequestId::random().to_string(),
        time,
        model: "gpt-5.5".into(),
        operation: "openai.chat".into(),
        device: None,
        provider: Some("openai".into()),
        input_tokens: Some(10),
        output_tokens: None,
        cost_nano,
        user: user.to_string(),
        project: project.to_string(),
        key: kid(key),
        latency_ms: 12,
        first_token_ms: Some(3),
        stream: true,
        status: 200,
        outcome: "complete".into(),
        estimated: false,
        prices: Some("0123456789abcdef".into()),
    };
    let charge = if cost_nano > 0 { Charge::Credits } else { Charge::Nothing };
    lab.lab.store.write_settlements(&[Settlement { record: record.clone(), charge }]).await.unwrap();
    record
}

#[tokio::test]
async fn another_persons_ids_are_as_unknown_as_no_ids() {
    let lab = TestLab::start().await;
    let (ada, project, hers) = lab.user_with_scopes("ada", &ALL).await;
    let (_, _, eve) = lab.user_with_scopes("eve", &ALL).await;
    let request = record(&lab, ada.id, project, &hers, now_ms(), 0).await.id;
    // Every route that takes an id and a key, as the description lists them: a new one must be added here.
    let routes = [
        ("GET", "/api/projects/{id}", None),
        ("PATCH", "/api/projects/{id}", Some(json!({ "name": "mine" }))),
        ("DELETE", "/api/projects/{id}", None),
        ("GET", "/api/projects/{id}/keys", None),
        ("POST", "/api/projects/{id}/keys", Some(json!({ "name": "mine" }))),
        ("GET", "/api/keys/{kid}", None),
        ("PATCH", "/api/keys/{kid}", Some(json!({ "name": "mine" }))),
        ("DELETE", "/api/keys/{kid}", None),
        ("POST", "/api/keys/{kid}/rotate", Some(json!({}))),
        ("GET", "/v1/requests/{id}", None),
    ];
    let document: Value = serde_json::from_str(&api::document().unwrap()).unwrap();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(path, _)| path.contains('{'))
        .flat_map(|(path, verbs)| verbs.as_object().unwrap().iter().map(move |(verb, operation)| (path, verb, operation)))
        // Keys open none of what takes a session only.
        .filter(|(_, _, operation)| operation["security"] != json!([{ "session": [] }]))
        // And a provider's name, which anybody may know, is no id of a person's.
        .filter(|(_, _, operation)| operation["security"] != json!([{}]))
        .map(|(path, verb, _)| (verb.to_uppercase(), path.clone()))
        .collect();
    let tried = routes.iter().map(|(verb, path, _)| ((*verb).to_owned(), (*path).to_owned())).collect();
    assert_eq!(described, tried);

    let nobodys = [ProjectId::random().to_string(), "000000000000".to_owned(), RequestId::random().to_string()];
    for (verb, route, body) in routes {
        let fill = |project: &str, kid: &str, request: &str| {
            let id = if route.starts_with("/v1/requests/") { request } else { project };
            route.replace("{id}", id).replace("{kid}", kid)
        };
        let theirs = lab.ask(&eve, verb, &fill(&project.to_string(), &kid(&hers), &request), body.clone()).await;
        let none = lab.ask(&eve, verb, &fill(&nobodys[0], &nobodys[1], &nobodys[2]), body.clone()).await;
        let garbage = lab.ask(&eve, verb, &fill("x", "x", "x"), body.clone()).await;
        assert_eq!(code(&theirs), refused(404, "not_found"), "{verb} {route}");
        for other in [none, garbage] {
            assert_eq!((other.status, other.text()), (theirs.status, theirs.text()), "{verb} {route}");
        }
    }
    for filter in [format!("project={project}"), format!("key={}", kid(&hers))] {
        for route in ["/api/requests", "/api/usage"] {
            assert_eq!(
                code(&lab.ask(&eve, "GET", &format!("{route}?{filter}"), None).await),
                refused(404, "not_found"),
                "{route}?{filter}"
            );
        }
    }
    // Nothing of hers was touched, and lists hold one's own only.
    assert_eq!(lab.ask(&hers, "GET", &format!("/v1/requests/{request}"), None).await.json()["id"], request);
    assert_eq!(lab.ask(&hers, "GET", "/api/projects", None).await.json()["data"][0]["name"], "default");
    assert_eq!(lab.ask(&eve, "GET", "/api/requests", None).await.json()["data"], json!([]));
    let projects = lab.ask(&eve, "GET", "/api/projects", None).await.json();
    assert_eq!(projects["data"].as_array().unwrap().len(), 1);
    assert_ne!(projects["data"][0]["id"], project.to_string());
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_say() {
    let lab = TestLab::start().await;
    let (ada, project, manager) = lab.user_with_scopes("ada", &[Scope::Manage]).await;
    let program = lab.key(project, &PROGRAM).await;
    let inference = lab.key(project, &[Scope::Inference]).await;
    let other = lab.lab.store.add_project(ada.id, "other").await.unwrap().id;
    let elsewhere = lab.key(other, &PROGRAM).await;
    let mine = record(&lab, ada.id, project, &program, now_ms(), 0).await.id;
    let theirs = record(&lab, ada.id, other, &elsewhere, now_ms(), 0).await.id;

    let managing = [
        ("GET", "/api/projects".to_owned()),
        ("POST", "/api/projects".to_owned()),
        ("GET", format!("/api/projects/{project}")),
        ("PATCH", format!("/api/projects/{project}")),
        ("DELETE", format!("/api/projects/{project}")),
        ("GET", format!("/api/projects/{project}/keys")),
        ("POST", format!("/api/projects/{project}/keys")),
        ("GET", format!("/api/keys/{}", kid(&program))),
        ("PATCH", format!("/api/keys/{}", kid(&program))),
        ("DELETE", format!("/api/keys/{}", kid(&program))),
        ("POST", format!("/api/keys/{}/rotate", kid(&program))),
        ("GET", "/api/account".to_owned()),
        ("GET", "/api/ledger".to_owned()),
    ];
    for (verb, path) in &managing {
        let body = (*verb != "GET").then(|| json!({}));
        assert_eq!(code(&lab.ask(&program, verb, path, body.clone()).await), refused(403, "key_scope"), "{verb} {path}");
        // Without a key, and with one that nobody has, the answer is the same.
        let nobody = lab.send(request(verb, path).body(bytes::Bytes::new().into()).unwrap()).await;
        let mut forged = program.clone().into_bytes();
        forged[30] = if forged[30] == b'x' { b'y' } else { b'x' };
        let wrong = lab.ask(&String::from_utf8(forged).unwrap(), verb, path, body).await;
        assert_eq!(code(&nobody), refused(401, "invalid_api_key"), "{verb} {path}");
        assert_eq!((wrong.status, wrong.text()), (nobody.status, nobody.text()), "{verb} {path}");
        assert_eq!(
            (&nobody.headers["cache-control"], &nobody.headers["www-authenticate"]),
            (&"no-store".parse().unwrap(), &"Bearer".parse().unwrap())
        );
    }

    let ids = |answer: Answer| -> BTreeSet<String> {
        answer.json()["data"].as_array().unwrap().iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(lab.ask(&manager, "GET", "/api/requests", None).await), [mine.clone(), theirs.clone()].into());
    assert_eq!(ids(lab.ask(&program, "GET", "/api/requests", None).await), [mine.clone()].into());
    assert_eq!(code(&lab.ask(&program, "GET", &format!("/api/requests?project={other}"), None).await), refused(404, "not_found"));
    assert_eq!(code(&lab.ask(&inference, "GET", "/api/requests", None).await), refused(403, "key_scope"));
    assert_eq!(code(&lab.ask(&inference, "GET", "/api/usage", None).await), refused(403, "key_scope"));
    // One's own request by any key of the project; another project's is not there.
    for (key, id, status) in [
        (&inference, &mine, 200),
        (&program, &mine, 200),
        (&program, &theirs, 404),
        (&elsewhere, &mine, 404),
        (&manager, &mine, 403),
    ] {
        assert_eq!(lab.ask(key, "GET", &format!("/v1/requests/{id}"), None).await.status.as_u16(), status, "{id}");
    }
    // Any spelling of a key that the model API takes.
    for (name, value) in [("x-api-key", manager.clone()), ("api-key", manager.clone()), ("x-goog-api-key", manager.clone())] {
        let answer = lab.send(request("GET", "/api/account").header(name, value).body(bytes::Bytes::new().into()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}");
    }
    // Below `/v1/` errors have OpenAI's shape too.
    let unknown = lab.ask(&program, "GET", &format!("/v1/requests/{theirs}"), None).await.json();
    assert_eq!(unknown["error"]["type"], "invalid_request_error");
}

#[tokio::test]
async fn a_key_is_shown_once_changed_rotated_and_revoked() {
    let lab = TestLab::start().await;
    let (_, _, manager) = lab.user_with_scopes("ada", &ALL).await;
    let project = lab.ask(&manager, "POST", "/api/projects", Some(json!({ "name": " work " }))).await;
    assert_eq!((project.status, &project.json()["name"]), (StatusCode::CREATED, &json!("work")));
    assert_eq!(code(&lab.ask(&manager, "POST", "/api/projects", Some(json!({ "name": "work" }))).await), refused(409, "taken"));
    let project = project.json()["id"].as_str().unwrap().to_owned();
    let changed = lab
        .ask(
            &manager,
            "PATCH",
            &format!("/api/projects/{project}"),
            Some(json!({ "exact_usage": true, "rates": { "concurrent": 2 } })),
        )
        .await
        .json();
    assert_eq!((&changed["name"], &changed["exact_usage"]), (&json!("work"), &json!(true)));
    assert_eq!(changed["rates"], json!({ "requests_per_minute": null, "tokens_per_minute": null, "concurrent": 2 }));

    let keys = format!("/api/projects/{project}/keys");
    let terms = json!({
        "name": "ci", "environment": "test", "scopes": ["inference"], "spending": { "day": "0.01", "total": "5" },
        "rates": { "requests_per_minute": 60 }, "models": ["gpt-5*"], "expires_at": 4_102_444_800_000_i64,
    });
    let made = lab.ask(&manager, "POST", &keys, Some(terms)).await;
    assert_eq!((made.status, &made.headers["cache-control"]), (StatusCode::CREATED, &http::HeaderValue::from_static("no-store")));
    let made = made.json();
    let key = made["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("1k4_test_") && key.len() == 71, "{}", key.len());
    assert_eq!(made["spending"], json!({ "day": "0.01", "month": null, "total": "5" }));
    assert_eq!(
        (&made["scopes"], &made["models"], &made["environment"]),
        (&json!(["inference"]), &json!(["gpt-5*"]), &json!("test"))
    );
    let path = format!("/api/keys/{}", kid(&key));
    for route in [&keys, &path] {
        let shown = lab.ask(&manager, "GET", route, None).await;
        assert!(shown.text().contains(&kid(&key)) && !shown.text().contains(&key[22..65]), "{route}");
    }
    let changed = lab.ask(&manager, "PATCH", &path, Some(json!({ "models": null, "spending": { "month": "1.5" } }))).await.json();
    assert_eq!((&changed["models"], &changed["spending"]), (&Value::Null, &json!({ "day": null, "month": "1.5", "total": null })));
    assert_eq!((&changed["name"], &changed["expires_at"]), (&json!("ci"), &json!(4_102_444_800_000_i64)));

    let rotated = lab.ask(&manager, "POST", &format!("{path}/rotate"), Some(json!({ "overlap_s": 3600 }))).await;
    assert_eq!(rotated.status, StatusCode::CREATED);
    let new = rotated.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(lab.ask(&manager, "GET", &path, None).await.json()["replaced_by"], kid(&new));
    let models = async |key: &str| lab.ask(key, "GET", "/v1/models", None).await.status;
    assert_eq!((models(&key).await, models(&new).await), (StatusCode::OK, StatusCode::OK));
    // Every field has a default, so that there need not be a body.
    let again = lab.ask(&manager, "POST", &format!("/api/keys/{}/rotate", kid(&new)), None).await;
    assert_eq!((again.status, models(&new).await), (StatusCode::CREATED, StatusCode::UNAUTHORIZED));
    let newest = again.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(
        code(&lab.ask(&manager, "POST", &format!("{path}/rotate"), Some(json!({ "x": 1 }))).await),
        refused(400, "invalid_body")
    );
    for old in [&key, &newest] {
        // With the answer it is no longer taken: no waiting in between.
        assert_eq!(lab.ask(&manager, "DELETE", &format!("/api/keys/{}", kid(old)), None).await.status, StatusCode::NO_CONTENT);
        assert_eq!(models(old).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(code(&lab.ask(&manager, "PATCH", &path, Some(json!({ "name": "x" }))).await), refused(404, "not_found"));
    let third = lab.ask(&manager, "POST", &keys, Some(json!({ "name": "third" }))).await.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(models(&third).await, StatusCode::OK);
    assert_eq!(lab.ask(&manager, "DELETE", &format!("/api/projects/{project}"), None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(models(&third).await, StatusCode::UNAUTHORIZED);
    assert_eq!(code(&lab.ask(&manager, "GET", &keys, None).await), refused(404, "not_found"));
}

#[tokio::test]
async fn bodies_and_queries_are_checked_and_never_quoted() {
    let lab = TestLab::start().await;
    let (_, project, manager) = lab.user_with_scopes("ada", &ALL).await;
    let keys = format!("/api/projects/{project}/keys");
    for body in [
        json!({ "name": "k", "spending": { "day": 0.01 } }),
        json!({ "name": "k", "spending": { "day": "1e3" } }),
        json!({ "name": "k", "spending": { "day": "0.0000000001" } }),
        json!({ "name": "k", "scopes": ["CANARY"] }),
        json!({ "name": "k", "rates": { "concurrent": 0 } }),
        json!({ "name": "k", "models": ["a*b"] }),
        json!({ "name": "k", "CANARY": 1 }),
        json!({}),
    ] {
        let answer = lab.ask(&manager, "POST", &keys, Some(body.clone())).await;
        assert_eq!(code(&answer), refused(400, "invalid_body"), "{body}");
        assert!(!answer.text().contains("CANARY"));
    }
    for (body, field) in [
        (json!({ "name": "  " }), "name"),
        (json!({ "name": "k", "scopes": [] }), "scopes"),
        (json!({ "name": "k", "spending": { "day": "-1" } }), "spending"),
        (json!({ "name": "k", "expires_at": 1 }), "expires_at"),
    ] {
        let answer = lab.ask(&manager, "POST", &keys, Some(body.clone())).await;
        assert_eq!(code(&answer), refused(400, "invalid_field"), "{body}");
        assert!(answer.json()["error"]["message"].as_str().unwrap().starts_with(&format!("{field} must be ")), "{}", answer.text());
    }
    for query in ["limit=0", "limit=1001", "cursor=CANARY", "from=2026-13-01", "CANARY=1", "format=xml"] {
        let answer = lab.ask(&manager, "GET", &format!("/api/requests?{query}"), None).await;
        assert_eq!(code(&answer), refused(400, "invalid_field"), "{query}");
        assert!(!answer.text().contains("CANARY"));
    }
    let plain =
        request("POST", "/api/projects").header("authorization", format!("Bearer {manager}")).header("content-type", "text/plain");
    assert_eq!(code(&lab.send(plain.body("{\"name\":\"x\"}".into()).unwrap()).await), refused(415, "not_json"));
    let large = json!({ "name": "x".repeat(1024 * 1024) });
    assert_eq!(code(&lab.ask(&manager, "POST", "/api/projects", Some(large)).await), refused(413, "too_large"));
    assert_eq!(code(&lab.ask(&manager, "PUT", "/api/projects", None).await), refused(405, "method_not_allowed"));
    assert_eq!(code(&lab.ask(&manager, "GET", "/api/nothing", None).await), refused(404, "not_found"));
}

#[tokio::test]
async fn money_records_and_sums_are_exact_in_json_and_csv() {
    let lab = TestLab::start().await;
    let (ada, project, manager) = lab.user_with_scopes("ada", &ALL).await;
    lab.lab.store.grant(ada.id, 1_000_000_001, "g").await.unwrap();
    const DAY: i64 = 86_400_000;
    // 2026-11-19 and the day after it.
    let days = 20_776 * DAY;
    let first = record(&lab, ada.id, project, &manager, days, 1).await;
    record(&lab, ada.id, project, &manager, days + DAY, 10_000_000).await;
    record(&lab, ada.id, project, &manager, days + DAY + 1, 0).await;

    let account = lab.ask(&manager, "GET", "/api/account", None).await.json();
    assert_eq!((&account["balance"], &account["balance_nano"]), (&json!("0.99"), &json!(990_000_000)));
    assert_eq!((&account["free_requests_left"], &account["name"]), (&json!(20), &json!("ada")));
    let ledger = lab.ask(&manager, "GET", "/api/ledger?limit=2", None).await.json();
    assert_eq!((&ledger["data"][0]["amount"], &ledger["data"][1]["amount"]), (&json!("-0.01"), &json!("-0.000000001")));
    let rest = lab.ask(&manager, "GET", &format!("/api/ledger?cursor={}", ledger["next"].as_str().unwrap()), None).await.json();
    assert_eq!(
        (&rest["data"][0]["amount"], &rest["data"][0]["kind"], &rest["next"]),
        (&json!("1.000000001"), &json!("grant"), &Value::Null)
    );

    let page = lab.ask(&manager, "GET", "/api/requests?limit=2", None).await.json();
    assert_eq!((&page["data"][0]["cost"], &page["data"][1]["cost"]), (&json!("0"), &json!("0.01")));
    let cursor = page["next"].as_str().unwrap();
    let csv = lab.ask(&manager, "GET", &format!("/api/requests?limit=2&cursor={cursor}&format=csv"), None).await;
    assert_eq!(csv.headers["content-type"], "text/csv; charset=utf-8; header=present");
    let kid: Kid = kid(&manager).parse().unwrap();
    assert_eq!(
        csv.text(),
        format!(
            "id,time,model,operation,device,provider,input_tokens,output_tokens,estimated,cost,prices,project,key,latency_ms,\
             first_token_ms,stream,status,outcome\r\n\
             {},{days},gpt-5.5,openai.chat,,openai,10,,false,0.000000001,0123456789abcdef,{project},{kid},12,3,true,200,complete\r\n",
            first.id
        )
    );
    let first_page = lab.ask(&manager, "GET", "/api/requests?limit=2&format=csv", None).await;
    assert_eq!(first_page.headers["x-1k4-next-cursor"], cursor);
    let narrow = lab.ask(&manager, "GET", "/api/requests?from=2026-11-19&to=2026-11-20", None).await.json();
    assert_eq!((narrow["data"].as_array().unwrap().len(), &narrow["data"][0]["id"]), (1, &json!(first.id)));

    let sums = lab.ask(&manager, "GET", "/api/usage?by=day", None).await.json();
    assert_eq!(
        sums["data"],
        json!([
            { "bucket": "2026-11-19", "requests": 1, "input_tokens": 10, "output_tokens": 0, "cost": "0.000000001", "cost_nano": 1 },
            { "bucket": "2026-11-20", "requests": 2, "input_tokens": 20, "output_tokens": 0, "cost": "0.01", "cost_nano": 10_000_000 },
        ])
    );
    for (by, bucket) in [("model", "gpt-5.5".to_owned()), ("key", kid.to_string()), ("project", project.to_string())] {
        let request = request("GET", &format!("/api/usage?by={by}"))
            .header("authorization", format!("Bearer {manager}"))
            .header("accept", "text/csv");
        let csv = lab.send(request.body(bytes::Bytes::new().into()).unwrap()).await;
        assert_eq!(csv.text(), format!("bucket,requests,input_tokens,output_tokens,cost\r\n{bucket},3,30,0,0.010000001\r\n"));
    }
}

#[tokio::test]
async fn what_is_public_needs_no_key_and_tries_are_rationed() {
    let lab = TestLab::start().await;
    let providers = lab.get("/api/providers").await;
    assert_eq!(providers.status, StatusCode::OK);
    let names: Vec<String> =
        providers.json()["providers"].as_array().unwrap().iter().map(|p| p["provider"].as_str().unwrap().into()).collect();
    assert_eq!(names, ["openai", "anthropic", "google", "xai", "azure"]);
    let document = lab.get("/api/openapi.json").await;
    assert_eq!((document.json()["openapi"].as_str(), document.text()), (Some("3.1.0"), api::document().unwrap().as_str()));

    let refusal = async {
        for _ in 0..400 {
            let answer = lab.get("/api/account").await;
            if answer.status != StatusCode::UNAUTHORIZED {
                return answer;
            }
        }
        panic!("400 tries were let through");
    };
    let refusal = refusal.await;
    assert_eq!(code(&refusal), refused(429, "too_many_requests"));
    assert_eq!(refusal.headers["retry-after"], "1");
}

/// `ONEK4_BLESS=1 cargo test -p lab-server --test lab openapi` writes the file anew.
#[test]
fn the_committed_openapi_is_this_one() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let document = api::document().unwrap();
    if std::env::var_os("ONEK4_BLESS").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == document, "lab-server/openapi.json is stale: ONEK4_BLESS=1 cargo test -p lab-server --test lab openapi");
}

/// Addresses are kept: by proxies, by browsers, by whoever is asked why something is slow. What people write, and what they call
/// things, is sent in bodies and headers only.
#[test]
fn no_address_has_place_for_anybodys_words() {
    const IDENTITIES: [&str; 10] = ["id", "kid", "file", "rule", "server", "project", "folder", "leaf", "run", "key"];
    // Where a list goes on, days, and models as records name them.
    const OTHERS: [&str; 4] = ["cursor", "from", "to", "model"];
    // A provider sends the browser back with these, each good for one sign-in (RFC 6749 4.1.2, RFC 9207).
    const CALLBACK: (&str, [&str; 5]) = ("/api/sign-in/callback/{provider}", ["provider", "code", "state", "error", "iss"]);
    let document: Value = serde_json::from_str(&api::document().unwrap()).unwrap();
    let mut looked_at = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let (place, name) = (parameter["in"].as_str().unwrap(), parameter["name"].as_str().unwrap());
                let schema = &parameter["schema"];
                let free = schema["enum"].is_null() && !matches!(schema["type"].as_str(), Some("integer" | "boolean"));
                if free && place != "header" {
                    looked_at += 1;
                    let by_standard = path == CALLBACK.0 && CALLBACK.1.contains(&name);
                    let known = IDENTITIES.contains(&name) || (place == "query" && OTHERS.contains(&name)) || by_standard;
                    assert!(known, "{method} {path} takes `{name}` in its {place}: send it in the body or in a header");
                }
            }
        }
    }
    assert!(looked_at > 50, "{looked_at}");
}

#[tokio::test]
async fn what_is_no_endpoint_of_ours_is_answered_in_its_callers_protocol() {
    let lab = TestLab::start().await;
    let (_, _, key) = lab.user_with_scopes("ada", &PROGRAM).await;
    let gemini = lab.ask(&key, "GET", "/v1beta/models", None).await;
    assert_eq!((gemini.status, gemini.json()["models"].is_array()), (StatusCode::OK, true), "{}", gemini.text());
    assert_eq!(lab.ask(&key, "GET", "/openai/v1/models", None).await.json()["object"], "list");
    for (verb, path, shape) in [
        ("POST", "/v1/audio/speech", "/error/type"),
        ("POST", "/v1/nothing", "/error/type"),
        ("POST", "/v1/messages/nothing", "/error/type"),
        ("POST", "/v1beta/models/x:nothing", "/error/status"),
        ("POST", "/openai/deployments/x/nothing", "/error/type"),
        ("POST", "/api/pull", "/error"),
        ("DELETE", "/api/delete", "/error"),
    ] {
        let answer = lab.ask(&key, verb, path, Some(json!({ "model": "x" }))).await;
        assert!(answer.status.is_client_error(), "{verb} {path}: {}", answer.status);
        assert!(answer.json().pointer(shape).is_some_and(Value::is_string), "{verb} {path}: {}", answer.text());
        // Ours has a code and a sentence and nothing else.
        let ours = |error: &serde_json::Map<String, Value>| error.keys().eq(["code", "message"]);
        assert!(!answer.json()["error"].as_object().is_some_and(ours), "{verb} {path}: {}", answer.text());
    }
    for path in ["/v1", "/v2/models", "/api", "/api/nothing", "/metrics"] {
        assert_eq!(code(&lab.ask(&key, "GET", path, None).await), refused(404, "not_found"), "{path}");
    }
}

#[tokio::test]
async fn a_list_is_no_body() {
    let lab = TestLab::start().await;
    let (_, project, key) = lab.user_with_scopes("ada", &[Scope::Manage]).await;
    for body in [json!([null, null]), json!(["other", true]), json!([]), json!("x"), json!(null)] {
        let answer = lab.ask(&key, "PATCH", &format!("/api/projects/{project}"), Some(body.clone())).await;
        assert_eq!(code(&answer), refused(400, "invalid_body"), "{body}");
    }
    assert_eq!(lab.ask(&key, "PATCH", &format!("/api/projects/{project}"), Some(json!({}))).await.status, StatusCode::OK);
}
