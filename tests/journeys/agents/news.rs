//! Whoever shows something is told that it has changed, and an agent is told why not.

use std::collections::BTreeSet;

use journeys::{caller::Answer, scripted::Step, world::eventually};
use serde_json::{Value, json};

use super::{Desk, results, world};

/// A stream of news that is read.
struct News {
    answer: Answer,
    text: String,
    /// What has changed and was not asked for yet.
    heard: BTreeSet<String>,
}

impl News {
    async fn of(desk: &Desk) -> Self {
        let answer = desk.browser.get("/api/news").await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "text/event-stream"));
        let mut news = Self { answer, text: String::new(), heard: BTreeSet::new() };
        // Its first words come when it listens.
        news.read().await;
        news
    }

    async fn read(&mut self) {
        let chunk = self.answer.chunk().await.expect("more").expect("a stream without an end");
        self.text.push_str(std::str::from_utf8(&chunk).expect("text"));
        let whole = self.text.rfind("\n\n").map_or(0, |at| at + 2);
        let said: String = self.text.drain(..whole).collect();
        for line in said.lines().filter_map(|line| line.strip_prefix("data: ")) {
            let news: Value = serde_json::from_str(line).expect("JSON");
            self.heard
                .extend(news["about"].as_array().expect("a list").iter().map(|about| about.as_str().expect("a word").to_owned()));
        }
    }

    /// Reads until something has changed about this.
    async fn hear(&mut self, about: &str) {
        while !self.heard.remove(about) {
            self.read().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_told_and_a_refusal_comes_with_its_reason() {
    let write = Step::call("files_write", &json!({ "path": "a.md", "text": "a" }));
    let world = world(&[("writer", vec![write, Step::say("then not")])]).await;
    let desk = Desk::of(&world).await;
    assert_eq!(desk.get("/api/runs").await, json!({ "data": [] }));
    let mut news = News::of(&desk).await;
    let run = desk.start("local/writer", json!({ "budgets": null })).await;
    news.hear("runs").await;
    let unfinished = desk.get("/api/runs").await;
    assert_eq!((unfinished["data"].as_array().expect("a list").len(), &unfinished["data"][0]["id"]), (1, &Value::from(&*run)));
    let shown = desk.get(&format!("/api/runs/{run}")).await;
    assert_eq!((&shown["model"]["model"], &shown["agent"]["plan_first"]), (&Value::from("local/writer"), &Value::from(false)));
    let brief = desk.get(&format!("/api/projects/{}/brief", desk.project)).await;
    assert_eq!(shown["agent"]["budgets"], brief["agents"]["budgets"]);

    let question = desk.question().await;
    news.hear("approvals").await;
    desk.answer(&question, json!({ "decision": "deny", "words": "the docs are frozen until Monday" })).await;
    news.hear("approvals").await;
    let (state, parts) = desk.end(&run).await;
    assert_eq!(state, "done");
    let told = results(&parts);
    assert!(!told[0].0 && told[0].1.ends_with("They say: the docs are frozen until Monday"), "{told:?}");
    news.hear("runs").await;
    assert_eq!(desk.get("/api/runs").await, json!({ "data": [] }));

    // What else was told by now was told of the run.
    let mut news = News::of(&desk).await;
    world.bridge.shutdown().await;
    news.hear("devices").await;
    eventually("the workstation is seen to be away", async || desk.get("/api/devices").await["data"][0]["presence"] != "online")
        .await;
}
