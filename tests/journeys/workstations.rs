//! What its owner sees of a workstation from the Lab, and can have done there.

use bridge_core::policy::{Policy, Pull};
use journeys::world::{Wishes, World, eventually};
use serde_json::{Value, json};

const MODEL: &str = "fake-n3-d0";

#[tokio::test(flavor = "multi_thread")]
async fn a_workstation_is_seen_with_what_is_in_its_memory_and_is_told_to_forget_it() {
    let world = World::with(Wishes { models: vec![MODEL.to_owned()], ..Wishes::default() }).await;
    let browser = world.sign_in().await;
    let id = browser.get("/api/devices").await.json().await["data"][0]["id"].as_str().expect("a device").to_owned();
    let path = format!("/api/devices/{id}");
    let see = async || browser.get(&path).await.json().await;
    let model = |seen: &Value| {
        let models = seen["workstation"]["models"].as_array().expect("models");
        models.iter().find(|model| model["name"] == format!("{MODEL}:latest")).expect("the model").clone()
    };
    let seen = see().await;
    assert_eq!((&seen["availability"], &seen["losses"], &seen["last_seen"]), (&json!("online"), &json!([]), &Value::Null));
    assert!(seen["linked_since"].as_i64().is_some());
    assert_eq!(seen["workstation"]["ollama"]["state"], "running");
    assert_eq!(model(&seen)["loaded"], Value::Null);

    let body = json!({ "model": format!("local/{MODEL}"), "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(world.caller.post("/v1/chat/completions", &body).await.status, 200);
    eventually("it is seen in memory", async || model(&see().await)["loaded"].is_object()).await;
    let one = json!({ "model": MODEL });
    assert_eq!(browser.post(&format!("{path}/models/unload"), &one).await.status, 204);
    eventually("it is seen to be gone", async || model(&see().await)["loaded"].is_null()).await;

    // A key may not, and another's workstation is none.
    assert_eq!(world.caller.post(&format!("{path}/models/unload"), &one).await.status, 401);
    let refused = browser.post(&format!("{path}/models/pull"), &one).await;
    assert_eq!((refused.status.as_u16(), &refused.json().await["error"]["code"]), (409, &json!("operation_not_shared")));
    world.bridge.shutdown().await;
    eventually("the link is seen to be lost", async || see().await["linked_since"].is_null()).await;
    let seen = see().await;
    assert_eq!(seen["losses"], json!([seen["last_seen"]]));
    let gone = browser.post(&format!("{path}/models/pull"), &one).await;
    assert_eq!((gone.status.as_u16(), &gone.json().await["error"]["code"]), (409, &json!("device_offline")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_downloaded_where_its_owner_allows_it() {
    let policy = Policy { may_pull: Pull::Allow, ..Policy::default() };
    let world = World::with(Wishes { policy, ..Wishes::default() }).await;
    let browser = world.sign_in().await;
    let id = browser.get("/api/devices").await.json().await["data"][0]["id"].as_str().expect("a device").to_owned();
    let pull = format!("/api/devices/{id}/models/pull");
    let answer = browser.post(&pull, &json!({ "model": "fake-n7-d0" })).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/x-ndjson"));
    let text = answer.text().await;
    let steps: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(steps.last().expect("a step")["step"], "success", "{text}");
    let listed = async || browser.get("/api/models").await.text().await.contains("local/fake-n7-d0");
    eventually("it is listed", listed).await;

    let answer = browser.post(&pull, &json!({ "model": "registry.example/some/model" })).await;
    assert_eq!((answer.status.as_u16(), &answer.json().await["error"]["code"]), (409, &json!("model_not_shared")));
    let answer = browser.post(&pull, &json!({ "model": "no name" })).await;
    assert_eq!((answer.status.as_u16(), &answer.json().await["error"]["code"]), (400, &json!("invalid_field")));
}
