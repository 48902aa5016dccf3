//! Who deletes an account ends all that works for it, wherever that is said.

use std::time::{Duration, Instant};

use clap::Parser;
use http::{Method, StatusCode};
use journeys::{
    caller::{Answer, Caller},
    watcher::{Watcher, start_run},
    world::{Wishes, World, eventually, sign_in},
};
use lab_server::{
    Config,
    admin::{self, Admin},
    store::{ConversationSettings, NewConversation, Store},
};
use serde_json::json;

/// Twenty seconds of words.
const LONG: &str = "fake-n5000-d4000";
/// How long anything may go on after the word.
const AT_ONCE: Duration = Duration::from_secs(1);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    admin: Admin,
}

/// Everything that can be at work for an account.
struct AtWork {
    world: World,
    page: Caller,
    second: Caller,
    run: String,
    stream: Answer,
    file: std::path::PathBuf,
}

impl AtWork {
    async fn begin() -> Self {
        let world = World::with(Wishes { models: vec![LONG.to_owned()], ..Wishes::default() }).await;
        let page = world.sign_in().await;
        let second = world.caller.with_session(&sign_in(&world.lab, world.user).await);
        let store = &world.lab.store;
        let project = store.projects(world.user).await.expect("the projects")[0].id;
        let put = format!("/api/projects/{project}/files/content");
        let headers = [("content-type", "application/octet-stream"), ("x-1k4-path", "notes/a.txt")];
        let put = page.send_with(Method::PUT, &put, &headers, "words".into()).await.expect("an answer");
        assert!(put.status.is_success(), "{}", put.status);
        let file = world.dir().join("lab/blobs").join(project.to_string());
        assert!(file.exists());
        let new = NewConversation { project, folder: None, title: None, settings: ConversationSettings::default() };
        let conversation = store.add_conversation(world.user, new).await.expect("a conversation").id.to_string();
        let (run, _) = start_run(&page, &conversation, None, &format!("local/{LONG}")).await;
        let mut watcher = Watcher::new(&page, &run);
        watcher.visit(5).await.expect("the first words");
        let body = json!({"model": format!("local/{LONG}"), "stream": true, "messages": [{"role": "user", "content": "tell me"}]});
        let mut stream = world.caller.post("/v1/chat/completions", &body).await;
        assert_eq!(stream.status, StatusCode::OK);
        stream.chunk().await.expect("the first words").expect("more");
        Self { world, page, second, run, stream, file }
    }

    /// `at` is when whoever deleted the account was told that it is done.
    async fn all_ended(self, at: Instant) {
        let Self { world, page, second, run, stream, file } = self;
        let (rest, _) = stream.read().await;
        let took = at.elapsed();
        println!("the key's stream had ended after {took:?}");
        assert!(took < AT_ONCE, "{took:?}");
        assert!(!String::from_utf8_lossy(&rest).contains("[DONE]"));
        eventually("the workstation is not linked any more", async || {
            world.lab.store.active_devices().await.expect("the devices").is_empty()
        })
        .await;
        for signed_in in [&page, &second] {
            for path in ["/api/account", &format!("/api/runs/{run}")] {
                assert_eq!(signed_in.get(path).await.status, StatusCode::UNAUTHORIZED);
            }
        }
        assert_eq!(world.caller.get("/v1/models").await.status, StatusCode::UNAUTHORIZED);
        world.wait(|status| !matches!(status.link, bridge_core::status::LinkState::Online { .. })).await;
        assert!(at.elapsed() < AT_ONCE * 2, "{:?}", at.elapsed());
        assert!(!file.exists());
        assert_eq!(world.lab.store.user(world.user).await.expect("the user"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_deletes_their_account_ends_all_that_works_for_it() {
    let at_work = AtWork::begin().await;
    let body = json!({"confirm": "owner@example.com"}).to_string();
    let headers = [("content-type", "application/json")];
    let gone = at_work.page.send_with(Method::DELETE, "/api/account", &headers, body.into()).await.expect("an answer");
    let at = Instant::now();
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    at_work.all_ended(at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_the_labs_owner_from_another_process() {
    let at_work = AtWork::begin().await;
    let config = Config::in_dir(at_work.world.dir().join("lab"));
    // A connection and a keystore of its own, as another process has.
    let store = Store::of(&config).await.expect("the store");
    let words = ["admin", "users", "delete", "owner@example.com", "--confirm", "owner@example.com"];
    let cli = Cli::try_parse_from(words).expect("a command");
    admin::run(&store, cli.admin, &config, &mut Vec::new()).await.expect("the account is deleted");
    let at = Instant::now();
    store.close().await.expect("the store");
    at_work.all_ended(at).await;
}
