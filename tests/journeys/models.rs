//! How the Lab itself asks models for people who are signed in: in every dialect, at the price of the record, and no longer than
//! somebody listens.

use std::time::{Duration, Instant};

use journeys::{
    fake_ollama,
    fake_provider::{Behaviour, Kind},
    scripted::Step,
    world::{
        Wishes, World,
        cloud::{CREDITS_NANO, CloudWishes, CloudWorld, HOME, PROVIDERS, soon},
        eventually,
    },
};
use lab_server::{
    Lab,
    lab::{
        content::{ModelChoice, Use},
        models::{Answer, Availability, Host, ModelView, Models},
        prompt::{Delta, ModelError, Payer, Prompt, Said, Stop, ToolSpec, Turn, Waiting},
    },
};
use serde_json::{Value, json};

fn models(lab: &Lab) -> &Models {
    lab.models.as_ref().expect("the Lab runs")
}

fn prompt(model: &str, turns: Vec<Turn>) -> Prompt {
    let choice = ModelChoice { model: model.to_owned(), max_output_tokens: None, temperature: None };
    Prompt { choice, system: Some("be brief".into()), turns, tools: Vec::new() }
}

fn question(model: &str) -> Prompt {
    prompt(model, vec![Turn::User(vec![Said::Text("what is in the file?".into())])])
}

fn tools() -> Vec<ToolSpec> {
    let spec = |name: &str| ToolSpec {
        name: name.to_owned(),
        description: "Does something.".to_owned(),
        parameters: json!({ "type": "object", "properties": { "path": { "type": "string" } } }),
    };
    vec![spec("read"), spec("list")]
}

/// What an answer came to.
#[derive(Debug, Default)]
struct Heard {
    text: String,
    thoughts: String,
    calls: Vec<(String, String, Value, Option<String>)>,
    waiting: Vec<Waiting>,
}

async fn hear(mut answer: Answer) -> (Heard, Result<(Stop, Use), ModelError>) {
    let mut heard = Heard::default();
    loop {
        match soon("a delta", answer.next()).await.expect("an end") {
            Ok(Delta::Waiting(waiting)) => heard.waiting.push(waiting),
            Ok(Delta::Text(text)) => heard.text += &text,
            Ok(Delta::Reasoning(text)) => heard.thoughts += &text,
            Ok(Delta::ToolCall { call, tool, arguments, echo }) => heard.calls.push((call, tool, arguments, echo)),
            Ok(Delta::End { stop, usage }) => {
                assert!(answer.next().await.is_none());
                return (heard, Ok((stop, usage)));
            }
            Err(error) => {
                assert!(answer.next().await.is_none());
                return (heard, Err(error));
            }
        }
    }
}

async fn until_text(answer: &mut Answer) {
    while !matches!(soon("text", answer.next()).await.expect("more").expect("no error"), Delta::Text(_)) {}
}

/// Asks once, answers both calls, and asks again.
async fn work(models: &Models, payer: Payer, model: &str) -> [Use; 2] {
    let mut asked = Prompt { tools: tools(), ..question(model) };
    let (heard, end) = hear(models.ask(payer, asked.clone()).await.expect("it is asked")).await;
    let (stop, first) = end.unwrap_or_else(|error| panic!("{model}: {} {error}", error.code));
    assert_eq!((heard.text.as_str(), heard.thoughts.as_str(), stop), ("Let me see: é東🦀", "hm, hm", Stop::ToolCalls), "{model}");
    let called: Vec<_> = heard.calls.iter().map(|(_, tool, arguments, _)| (tool.as_str(), arguments.clone())).collect();
    assert_eq!(called, [("read", json!({ "path": "a<b>é" })), ("list", json!({ "path": "." }))], "{model}");
    assert_ne!(heard.calls[0].0, heard.calls[1].0, "{model}");
    let (mut said, mut results) = (vec![Said::Text(heard.text)], Vec::new());
    for (call, tool, arguments, echo) in heard.calls {
        results.push(Said::ToolResult { call: call.clone(), tool: tool.clone(), text: "nothing".into(), ok: true });
        said.push(Said::ToolCall { call, tool, arguments, echo });
    }
    asked.turns.extend([Turn::Assistant(said), Turn::User(results)]);
    let (heard, end) = hear(models.ask(payer, asked).await.expect("it is asked")).await;
    let (stop, second) = end.unwrap_or_else(|error| panic!("{model}: {} {error}", error.code));
    assert_eq!((heard.text.as_str(), stop, heard.calls.len()), ("Nothing is in it.", Stop::Finished, 0), "{model}");
    [first, second]
}

fn part() -> [Step; 2] {
    [
        Step::call("read", &json!({ "path": "a<b>é" }))
            .and_call("list", &json!({ "path": "." }))
            .thinking("hm, hm")
            .saying("Let me see: é東🦀"),
        Step::say("Nothing is in it."),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_provider_is_worked_with_and_each_message_costs_what_its_record_says() {
    let world = CloudWorld::start().await;
    let payer = Payer { user: world.user, project: world.project };
    let mut uses = Vec::new();
    for provider in PROVIDERS {
        world.providers.plays(provider.model, part());
        uses.extend(work(models(&world.lab), payer, provider.model).await);
    }
    let records = world.records(uses.len()).await;
    for usage in &uses {
        let record = records.iter().find(|record| record.id == usage.request.to_string()).expect("a record");
        assert_eq!(record.key, "TheLabItself");
        assert_eq!((usage.cost_nano, usage.estimated, &usage.provider), (record.cost_nano, record.estimated, &record.provider));
        assert_eq!(usage.input_tokens.map(|n| n as i64), record.input_tokens);
        assert_eq!(usage.output_tokens.map(|n| n as i64), record.output_tokens);
        assert!(usage.cost_nano > 0 && usage.device.is_none() && usage.first_token_ms.is_some());
        let later = models(&world.lab).used(payer, usage.request, &usage.model).await.unwrap();
        assert_eq!(later.as_ref(), Some(usage));
    }
    let spent = world.spent(CREDITS_NANO, &records).await;
    assert_eq!(uses.iter().map(|usage| usage.cost_nano).sum::<i64>(), spent);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_provider_is_shown_a_picture() {
    let world = CloudWorld::start().await;
    let payer = Payer { user: world.user, project: world.project };
    for provider in PROVIDERS {
        world.providers.plays(provider.model, [Step::say("a cat")]);
        let picture = Said::Image { media_type: "image/png".into(), data: bytes::Bytes::from_static(b"not really") };
        let asked = prompt(provider.model, vec![Turn::User(vec![picture, Said::Text("what is it?".into())])]);
        let (heard, end) = hear(models(&world.lab).ask(payer, asked).await.unwrap()).await;
        assert!(end.is_ok() && heard.text == "a cat", "{}", provider.model);
        let seen = world.last_seen();
        let body = std::str::from_utf8(&seen.body).unwrap();
        // In base64, in whatever way the dialect has it.
        assert!(body.contains("bm90IHJlYWxseQ==") && body.contains("image/png"), "{body}");
    }
    let list = models(&world.lab).list(world.user);
    let view = |name: &str| list.iter().find(|model| model.name == name).unwrap_or_else(|| panic!("{name} is listed"));
    // Nobody says of this world's own models what they can; the catalogue does of its own.
    assert_eq!(view("ofake").unsure, ["tools", "vision", "thinking"]);
    assert_eq!(view("ofake").capabilities, ["completion"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_conversation_has_its_workstation_make_room_and_no_more_than_the_owner_lets() {
    let policy = bridge_core::policy::Policy { num_ctx: 16_384, ..bridge_core::policy::Policy::default() };
    let world = World::with(Wishes { policy, ..Wishes::default() }).await;
    let project = world.lab.store.projects(world.user).await.unwrap()[0].id;
    let payer = Payer { user: world.user, project };
    world.ollama.plays("thinker", [Step::say("yes")]);
    let asked = async |bytes: usize| {
        let turns = vec![Turn::User(vec![Said::Text("x".repeat(bytes))])];
        let (_, end) = hear(models(&world.lab).ask(payer, prompt("local/thinker", turns)).await.unwrap()).await;
        end.unwrap();
        let seen = world.ollama.log().into_iter().rfind(|seen| seen.path == "/api/chat").unwrap();
        serde_json::from_slice::<Value>(&seen.body).unwrap()["options"]["num_ctx"].as_u64()
    };
    assert_eq!(asked(60).await, None, "the owner's own length");
    assert_eq!(asked(9_000).await, Some(8_192));
    assert_eq!(asked(10_000).await, Some(8_192));
    assert_eq!(asked(90_000).await, Some(16_384));
    let list = models(&world.lab).list(world.user);
    let here = list.iter().find(|model| model.name == "local@workstation/thinker:latest").unwrap();
    assert_eq!(here.context_length, Some(16_384));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sees_what_its_workstation_is_at() {
    let (world, payer) = local().await;
    let browser = world.sign_in().await;
    let state = async || {
        let list = browser.get("/api/models").await.json().await;
        let of = |name: &str| list["data"].as_array().unwrap().iter().find(|model| model["name"] == name).cloned().unwrap();
        let (any, here) = (of("local/tiny:latest"), of("local@workstation/tiny:latest"));
        assert_eq!((&any["host"], &any["availability"]), (&json!("any_device"), &here["availability"]));
        here
    };
    let is = async |availability: &str| {
        journeys::world::eventually(availability, async || state().await["availability"] == availability).await;
        state().await
    };
    let idle = is("online").await;
    assert_eq!((&idle["loaded"], &idle["last_seen"], &idle["running"]), (&json!(false), &Value::Null, &json!(0)));
    world.ollama.hold_before_headers("tiny");
    let answer = models(&world.lab).ask(payer, question("local/tiny")).await.unwrap();
    let hearing = tokio::spawn(hear(answer));
    assert_eq!(is("busy").await["running"], 1);
    world.ollama.release();
    hearing.await.unwrap().1.unwrap();
    journeys::world::eventually("it is loaded", async || state().await["loaded"] == true).await;
    world.bridge.pause(None);
    is("paused").await;
    world.bridge.resume();
    is("online").await;
    world.network.set(journeys::fault_proxy::Fault::Refuse);
    world.network.cut();
    let away = is("away").await;
    assert!(away["last_seen"].is_i64() && away["loaded"] == false, "{away}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_no_json_are_told_and_break_nothing() {
    let world = CloudWorld::start().await;
    let payer = Payer { user: world.user, project: world.project };
    for model in ["ofake", "afake", "hfake"] {
        world.providers.plays(model, [Step::default().and_call_in_words("read", "{\"path\": oops")]);
        let (heard, end) = hear(models(&world.lab).ask(payer, question(model)).await.unwrap()).await;
        assert_eq!(heard.calls[0].2, json!("{\"path\": oops"), "{model}");
        assert_eq!(end.unwrap().0, Stop::ToolCalls, "{model}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_broken_answers_are_told_in_our_words() {
    let wishes = CloudWishes { models: vec!["hfake-e3", "hfake-x3", "hfake-f3", "gfake-e3", "afake-x2"], ..CloudWishes::default() };
    let world = CloudWorld::with(wishes).await;
    let payer = Payer { user: world.user, project: world.project };
    let models = models(&world.lab);
    let code = async |model: &str| {
        let answer = match models.ask(payer, question(model)).await {
            Ok(answer) => answer,
            Err(error) => return error.code,
        };
        let (_, end) = hear(answer).await;
        let error = end.expect_err("it does not come to its end");
        assert!(!error.message.contains("fake") && !error.message.is_empty(), "{error:?}");
        error.code
    };
    assert_eq!(code("no-such-model").await, "model_not_found");
    assert_eq!(code("local/a b").await, "invalid_model");
    assert_eq!(code("local/none").await, "bridge_offline");
    assert_eq!(code("hfake-e3").await, "upstream_error");
    assert_eq!(code("gfake-e3").await, "upstream_error");
    assert_eq!(code("hfake-f3").await, "upstream_truncated");
    assert_eq!(code("hfake-x3").await, "provider_error");
    assert_eq!(code("afake-x2").await, "provider_error");
    world.providers.next(Kind::Compatible, Behaviour::of("h400"));
    assert_eq!(code("hfake").await, "provider_error");
    let stranger = world.lab.store.add_user("stranger").await.unwrap().id;
    let theirs = Payer { user: stranger, project: world.project };
    let (_, end) = hear(models.ask(theirs, question("hfake")).await.unwrap()).await;
    assert_eq!(end.unwrap_err().code, "invalid_api_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credits_nobody_is_asked() {
    let world = CloudWorld::with(CloudWishes { credits_nano: 0, ..CloudWishes::default() }).await;
    let payer = Payer { user: world.user, project: world.project };
    let (_, end) = hear(models(&world.lab).ask(payer, question(HOME.model)).await.unwrap()).await;
    assert_eq!(end.unwrap_err().code, "trial_exhausted");
    assert_eq!(world.providers.totals().started, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_goes_takes_its_answers_with_it_and_a_dropped_one_hangs_up() {
    let world = CloudWorld::start().await;
    let payer = Payer { user: world.user, project: world.project };
    world.providers.hold_at_token("hfake", 2);
    let mut answer = models(&world.lab).ask(payer, question("hfake")).await.unwrap();
    until_text(&mut answer).await;
    let dropped = Instant::now();
    drop(answer);
    assert!(world.hung_up().await.duration_since(dropped) < Duration::from_millis(500));
    let answer = models(&world.lab).ask(payer, question("hfake")).await.unwrap();
    let hearing = tokio::spawn(hear(answer));
    world.held(1).await;
    world.lab.revocations.delete_project(world.user, world.project).await.unwrap();
    let (_, end) = soon("the end", hearing).await.unwrap();
    assert_eq!(end.unwrap_err().code, "invalid_api_key");
}

async fn local() -> (World, Payer) {
    let models = ["babel-n5000-d5000", "babel-n400-d5000"].map(str::to_owned).to_vec();
    let world = World::with(Wishes { models, ..Wishes::default() }).await;
    let project = world.lab.store.projects(world.user).await.unwrap()[0].id;
    let payer = Payer { user: world.user, project };
    (world, payer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workstation_is_worked_with_and_listed_with_its_state() {
    let (world, payer) = local().await;
    world.ollama.plays("thinker", part());
    let [first, second] = work(models(&world.lab), payer, "local/thinker").await;
    for usage in [&first, &second] {
        assert_eq!((usage.device.as_deref(), usage.provider.as_ref(), usage.cost_nano), (Some("workstation"), None, 0));
        assert!(usage.output_tokens > Some(0) && usage.input_tokens > Some(0) && usage.load_ms.is_some());
    }
    assert!(world.ollama.violations().is_empty());
    // A model that says that it cannot is not asked.
    let asked = Prompt { tools: tools(), ..question("local/seer") };
    assert_eq!(models(&world.lab).ask(payer, asked).await.err().unwrap().code, "tools_not_supported");
    let picture = Said::Image { media_type: "image/png".into(), data: bytes::Bytes::from_static(b"png") };
    let asked = prompt("local/tiny", vec![Turn::User(vec![picture])]);
    assert_eq!(models(&world.lab).ask(payer, asked).await.err().unwrap().code, "images_not_supported");

    // The last answer has ended here a moment before its bridge says so.
    let any_of = |list: &[ModelView]| list.iter().find(|model| model.name == "local/thinker:latest").expect("on any").host.clone();
    let idle = Host::AnyDevice { devices: vec![world.device], availability: Availability::Online };
    eventually("the workstation is idle", async || any_of(&models(&world.lab).list(world.user)) == idle).await;
    let list = models(&world.lab).list(world.user);
    let here = list.iter().find(|model| model.name == "local@workstation/thinker:latest").expect("on this one");
    let Host::Device { device, device_name, state } = &here.host else { panic!("{here:?}") };
    assert_eq!((*device, device_name.as_str()), (world.device, "workstation"));
    assert!(here.capabilities.iter().any(|can| can == "tools") && here.context_length.is_some());
    assert_eq!((state.availability, state.last_seen), (Availability::Online, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_answer_frees_the_graphics_card_at_once() {
    let (world, payer) = local().await;
    let mut worst = Duration::ZERO;
    for round in 1..=20 {
        let mut answer = models(&world.lab).ask(payer, question("local/babel-n5000-d5000")).await.unwrap();
        until_text(&mut answer).await;
        let dropped = Instant::now();
        drop(answer);
        let gone = |seen: &fake_ollama::Seen| match seen.outcome {
            fake_ollama::Outcome::ClientGone { at, .. } => Some(at),
            _ => None,
        };
        world.ollama.wait_for(|log| log.iter().filter_map(gone).count() == round).await;
        let at = world.ollama.log().iter().filter_map(gone).max().unwrap();
        worst = worst.max(at.saturating_duration_since(dropped));
    }
    println!("from the drop to the fake Ollama's noticing, worst of 20: {worst:?}");
    assert!(worst <= Duration::from_millis(100), "{worst:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_on_over_a_cut_link_without_losing_or_doubling_a_word() {
    let (world, payer) = local().await;
    let model = "local/babel-n400-d5000";
    let (whole, _) = hear(models(&world.lab).ask(payer, question(model)).await.unwrap()).await;
    for _ in 0..3 {
        let mut answer = models(&world.lab).ask(payer, question(model)).await.unwrap();
        let (mut text, mut away, mut deltas) = (String::new(), false, 0);
        loop {
            match soon("a delta", answer.next()).await.expect("an end").expect("no error") {
                Delta::Text(more) => {
                    text += &more;
                    deltas += 1;
                    if deltas == 50 {
                        world.network.cut();
                    }
                }
                Delta::Waiting(waiting) => away |= waiting == Waiting::Away,
                Delta::End { .. } => break,
                Delta::Reasoning(_) | Delta::ToolCall { .. } => {}
            }
        }
        assert_eq!(text, whole.text);
        assert!(away, "it is told that the workstation is waited for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_nothing_comes_is_told() {
    let (world, payer) = local().await;
    world.ollama.hold_before_headers("tiny");
    let (told, mut waits) = tokio::sync::mpsc::unbounded_channel();
    let mut hearing = Vec::new();
    for _ in 0..12 {
        let mut answer = models(&world.lab).ask(payer, question("local/tiny")).await.unwrap();
        let told = told.clone();
        hearing.push(tokio::spawn(async move {
            let mut first = None;
            loop {
                match soon("a delta", answer.next()).await.expect("an end").expect("no error") {
                    Delta::Waiting(waiting) => {
                        first.get_or_insert(waiting);
                        let _ = told.send(waiting);
                    }
                    Delta::End { .. } => return first,
                    Delta::Text(_) | Delta::Reasoning(_) | Delta::ToolCall { .. } => {}
                }
            }
        }));
    }
    let (mut loads, mut queues) = (false, false);
    while !(loads && queues) {
        let waiting = soon("a reason", waits.recv()).await.expect("somebody waits");
        loads |= waiting == Waiting::Loading;
        queues |= matches!(waiting, Waiting::Queued { ahead } if ahead > 0);
    }
    world.ollama.release();
    for heard in hearing {
        assert_eq!(soon("the end", heard).await.unwrap(), Some(Waiting::Asked));
    }
}
