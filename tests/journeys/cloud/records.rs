//! One record for each request, small, at once, and for nobody else.

use futures_util::future::join_all;
use http::Method;
use journeys::world::cloud::{CREDITS_NANO, CloudWorld, INPUT_NANO, OUTPUT_NANO};
use lab_server::{
    account,
    store::{KeyTerms, RequestRecord},
};
use serde_json::{Value, json};

use super::{CHAT, MESSAGES, chat};

/// Bytes of a record: its texts, and eight for each number.
fn size(record: &RequestRecord) -> usize {
    let fields = serde_json::to_value(record).expect("JSON");
    let size = |value: &Value| match value {
        Value::String(text) => text.len() + 1,
        Value::Number(_) => 8,
        _ => 1,
    };
    fields.as_object().expect("fields").values().map(size).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_mixed_requests_leave_a_thousand_records() {
    const LINES: usize = 10;
    let world = CloudWorld::with_models(&["hfake-h400", "xfake-u"]).await;
    let gemini = json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}).to_string();
    // Ten of each line's hundred, in turns.
    let kinds: [(Method, &str, String, u16); 10] = [
        (Method::POST, CHAT, chat("ofake", false).to_string(), 200),
        (Method::POST, CHAT, chat("xfake-u", true).to_string(), 200),
        (Method::POST, MESSAGES, chat("afake", true).to_string(), 200),
        (Method::POST, "/v1beta/models/gfake:streamGenerateContent", gemini, 200),
        (Method::POST, "/v1/embeddings", json!({"model": "ofake", "input": "hello"}).to_string(), 200),
        (Method::POST, CHAT, chat("hfake-h400", false).to_string(), 400),
        (Method::POST, CHAT, chat("nothing", false).to_string(), 404),
        (Method::POST, MESSAGES, "{".to_owned(), 400),
        (Method::GET, "/v1/models", String::new(), 200),
        (Method::POST, "/api/chat", json!({"model": "tiny"}).to_string(), 503),
    ];
    let ids = join_all((0..LINES).map(|_| async {
        let mut line = world.caller.line().await;
        let mut ids = Vec::new();
        for turn in 0..100 {
            let (method, path, body, status) = &kinds[turn % kinds.len()];
            let answer = line.ask(method.clone(), path, &[], body.clone()).await;
            assert_eq!(answer.status.as_u16(), *status, "{path}: {}", answer.text());
            assert_eq!(answer.header("x-1k4-receipt"), format!("/v1/requests/{}", answer.header("x-1k4-request-id")));
            ids.push(answer.header("x-1k4-request-id").to_owned());
        }
        ids
    }))
    .await;
    let mut ids: Vec<String> = ids.concat();
    let records = world.records(1_000).await;
    let mut recorded: Vec<String> = records.iter().map(|record| record.id.clone()).collect();
    ids.sort_unstable();
    recorded.sort_unstable();
    assert_eq!(recorded, ids, "each answer's id is a record's");
    let largest = records.iter().map(size).max().expect("records");
    println!("the largest record has {largest} bytes");
    assert!(largest <= 512, "{largest}");
    world.spent(CREDITS_NANO, &records).await;
    // Nothing but what stands in DESIGN 5.
    let fields = serde_json::to_value(&records[0]).expect("JSON");
    let names: Vec<&String> = fields.as_object().expect("fields").keys().collect();
    let expected = "cost_nano device estimated first_token_ms id input_tokens key latency_ms model operation outcome output_tokens prices \
                    project provider status stream time user";
    let mut names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_there_when_the_answer_is_and_for_its_project_only() {
    let world = CloudWorld::start().await;
    let other = world.lab.store.add_project(world.user, "other").await.expect("a project").id;
    let (other, _) = account::create_key(&world.lab.store, other, "other", KeyTerms::default()).await.expect("a key");
    let (mut line, mut stranger) = (world.caller.line().await, world.caller_with(&other).line().await);
    for turn in 0..50 {
        let stream = turn % 2 == 1;
        let answer = line.ask(Method::POST, CHAT, &[], chat("hfake", stream).to_string()).await;
        assert_eq!(answer.status, 200);
        let receipt = answer.header("x-1k4-receipt");
        let record = line.ask(Method::GET, receipt, &[], "").await;
        assert_eq!(record.status, 200, "request {turn}: {}", record.text());
        let record = record.json();
        assert_eq!(record["id"], answer.header("x-1k4-request-id"));
        assert_eq!(
            (&record["model"], &record["provider"], &record["outcome"]),
            (&"hfake".into(), &"home".into(), &"complete".into())
        );
        if !stream {
            assert_eq!(
                (&record["input_tokens"], &record["output_tokens"], &record["estimated"]),
                (&2.into(), &16.into(), &false.into())
            );
            assert_eq!(record["cost_nano"], 2 * INPUT_NANO + 16 * OUTPUT_NANO);
        }
        let refused = stranger.ask(Method::GET, receipt, &[], "").await;
        assert_eq!(refused.status, 404, "another project's key sees nothing");
    }
}
