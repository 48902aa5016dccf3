//! Row 7 of the issue "The Lab's server side": the Lab is killed in the middle of runs, and nobody who watches them loses or doubles
//! anything that they have seen; what was not finished says so.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
};

use journeys::{
    caller::Caller,
    fake_provider::{FakeProvider, Kind},
    programs::{Lab, Machine, test_dir},
    watcher::{Watcher, start_run},
};
use lab_server::{
    Config,
    account::session,
    store::{ConversationSettings, MAIL, NewConversation, Store, Subject, now_ms},
};
use tokio::{sync::watch, task::JoinSet};

/// Twenty seconds of tokens, one each 20 ms: they are interrupted before.
const PACED: &str = "gpt-paced-n1000-d20000";
/// Runs of one person at once.
const EACH: usize = 20;

/// A Lab of one provider whose words come slowly.
struct House {
    lab: Lab,
    _fake: FakeProvider,
    _dir: tempfile::TempDir,
}

impl House {
    fn open(people: usize) -> Self {
        let dir = test_dir();
        let fake = FakeProvider::start_forgetful(([127, 0, 0, 1], 0).into(), None, None, 2).expect("the fake providers");
        let machine = Machine::new(dir.path().join("lab"));
        machine.write_private(".config/1k4-lab/openai.secret", &fake.key(Kind::Openai));
        let mut text = "[limits]\nconcurrent = 1000\nrequests_per_minute = 100000\ntokens_per_minute = 100000000\n".to_owned();
        write!(
            text,
            "[[providers]]\nname = \"openai\"\n[[providers.channels]]\nname = \"openai-1\"\nbase_url = \"{}\"\n\
             secret = {{ file = \"openai.secret\" }}\n[[models]]\nid = \"{PACED}\"\nprovider = \"openai\"\nmax_input = 100000\n\
             max_output = 1000\nusd_per_mtok = {{ input = 1, output = 5 }}\n",
            fake.url(Kind::Openai)
        )
        .unwrap();
        machine.write(".config/1k4-lab/1k4-lab.toml", &text);
        let lab = Lab::serve(machine, ([127, 0, 0, 1], 0).into(), "https://localhost");
        for person in 0..people {
            let name = format!("person-{person}");
            lab.admin(&["users", "add", &name]);
            lab.admin(&["projects", "add", "work", "--user", &name]);
            lab.admin(&["credits", "grant", "1000", "--user", &name]);
        }
        Self { lab, _fake: fake, _dir: dir }
    }

    async fn store(&self) -> Store {
        Store::of(&Config::in_dir(self.lab.machine.home().join(".local/share/1k4-lab"))).await.expect("the database")
    }

    /// A page for each person, and conversations to fill: made beside the Lab, as its `admin` would.
    async fn pages(&self) -> Vec<(Caller, Vec<String>)> {
        let store = self.store().await;
        let mut pages = Vec::new();
        for (user, place) in store.users().await.expect("the people").into_iter().zip(2..) {
            let subject = Subject { provider: MAIL.to_owned(), subject: format!("{}@example.com", user.id), email: None };
            let identity = store.add_identity(user.id, &subject, now_ms()).await.expect("an identity").id;
            let new = session::open(&store, user.id, identity, &session::Browser::of(None), now_ms()).await.expect("a session");
            let project = store.projects(user.id).await.expect("the projects")[0].id;
            let mut conversations = Vec::new();
            for _ in 0..EACH {
                let new = NewConversation { project, folder: None, title: None, settings: ConversationSettings::default() };
                conversations.push(store.add_conversation(user.id, new).await.expect("a conversation").id.to_string());
            }
            // What one address may ask in ten seconds is rationed.
            let page = self.lab.caller("").with_session(&new).at(IpAddr::V4(Ipv4Addr::new(127, 0, 0, place)));
            pages.push((page, conversations));
        }
        store.close().await.expect("the database closes");
        pages
    }
}

/// `people` times twenty runs, two watchers each, and one kill in the middle.
async fn killed(people: usize) {
    let mut house = tokio::task::spawn_blocking(move || House::open(people)).await.expect("a Lab");
    let pages = house.pages().await;
    let (mut runs, mut watchers) = (Vec::new(), JoinSet::new());
    let (seen, mut slowest) = watch::channel(0_usize);
    for (page, conversations) in &pages {
        for conversation in conversations {
            let (run, _) = start_run(page, conversation, None, PACED).await;
            for _ in 0..2 {
                let (mut watcher, seen) = (Watcher::new(page, &run), seen.clone());
                watchers.spawn(async move {
                    // The kill comes when everybody is in the middle.
                    while watcher.events().len() < 10 && watcher.visit(10 - watcher.events().len()).await.is_ok() {}
                    seen.send_modify(|seen| *seen += 1);
                    watcher.watch(|| usize::MAX).await;
                    watcher
                });
            }
            runs.push((page.clone(), run));
        }
    }
    let everybody = runs.len() * 2;
    slowest.wait_for(|seen| *seen == everybody).await.expect("the watchers watch");
    house = tokio::task::spawn_blocking(move || {
        house.lab.service().kill();
        house.lab = Lab::serve(house.lab.machine.clone(), house.lab.addr, "https://localhost");
        house
    })
    .await
    .expect("the Lab starts again");
    let watched = watchers.join_all().await;
    let mut interrupted = 0;
    for (page, run) in &runs {
        let mut last = Watcher::new(page, run);
        last.watch(|| usize::MAX).await;
        let same = watched.iter().filter(|watcher| watcher.events() == last.events()).count();
        assert_eq!(same, 2, "both watchers of {run} have seen the record, once");
        let end = last.events().last().expect("an end");
        interrupted += usize::from(end["outcome"] == "interrupted");
        assert!(end["outcome"] == "interrupted" || end["outcome"] == "done", "{end}");
        let state = page.get(&format!("/api/runs/{run}")).await;
        assert_eq!(state.status, 200);
        let state = state.json().await;
        assert_eq!((&state["state"], &state["last_seq"]), (&end["outcome"], &end["seq"]));
    }
    println!("{interrupted} of {} runs were interrupted; {} visits", runs.len(), watched.iter().map(|w| w.visits).sum::<usize>());
    assert!(interrupted > runs.len() / 2, "the kill came too late: {interrupted} of {}", runs.len());
    drop(house);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the release programs: cargo xtask test"]
async fn twenty_runs_survive_a_kill() {
    killed(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: cargo xtask test --full"]
async fn full_a_hundred_runs_survive_a_kill() {
    killed(5).await;
}
