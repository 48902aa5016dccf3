//! People at a Lab, for the benchmark: many who watch answers being made, or one who has kept much.
//!
//! They are signed in beside the Lab, in its database, as its `admin` would do it; everything that is measured goes over TLS. Each of
//! them has an address of this machine's own, because the Lab rations what one address may ask. Prints lines of JSON.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::{Parser, Subcommand};
use hdrhistogram::Histogram;
use http::Method;
use journeys::{caller::Caller, watcher::start_run};
use lab_server::{
    Config,
    account::session,
    lab::content::{Content, Part},
    store::{ConversationSettings, MAIL, NewConversation, Role, Store, Subject, now_ms},
};
use serde::Deserialize;
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};
use wire::{ConversationId, ProjectId, UserId};

/// People at a Lab.
#[derive(Debug, Parser)]
struct Args {
    /// Where the Lab listens.
    #[arg(long)]
    lab: SocketAddr,
    /// The Lab's CA.
    #[arg(long)]
    ca_file: PathBuf,
    /// The Lab's data folder.
    #[arg(long)]
    data_dir: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Everybody who has a project asks in so many conversations at once, and watches each answer. Prints `{"watching": N}` once
    /// all are in the middle, and what came of the time from then on when it is over
    Watch {
        /// The model.
        #[arg(long)]
        model: String,
        /// Its milliseconds for a token.
        #[arg(long)]
        pace_ms: u64,
        /// Answers in all.
        #[arg(long)]
        runs: usize,
        /// Of one person, at most.
        #[arg(long)]
        each: usize,
        /// How long it is measured.
        #[arg(long)]
        seconds: u64,
    },
    /// One who has kept so many messages looks for a word that stands in the oldest, and takes everything along
    Keep {
        /// How many.
        #[arg(long)]
        messages: usize,
        /// How long each is.
        #[arg(long)]
        bytes: usize,
    },
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("people: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let store = Store::of(&Config::in_dir(&args.data_dir)).await.context("the Lab's database cannot be opened")?;
    let ca = fs::read_to_string(&args.ca_file).context("the CA cannot be read")?;
    let lab = Caller::new(args.lab, &ca, None);
    match args.what {
        What::Watch { model, pace_ms, runs, each, seconds } => {
            let pace = Duration::from_millis(pace_ms);
            watch(&store, &lab, Crowd { model, pace, runs, each, measured: Duration::from_secs(seconds) }).await?;
        }
        What::Keep { messages, bytes } => keep(&store, &lab, messages, bytes).await?,
    }
    store.close().await?;
    Ok(())
}

/// Somebody who is signed in.
struct Person {
    user: UserId,
    project: ProjectId,
    page: Caller,
}

impl Person {
    /// Everybody of this Lab who has a project.
    async fn all(store: &Store, lab: &Caller) -> anyhow::Result<Vec<Self>> {
        let mut people = Vec::new();
        for (user, address) in store.users().await?.into_iter().zip(2..=u8::MAX) {
            let Some(project) = store.projects(user.id).await?.into_iter().next() else { continue };
            let subject = Subject { provider: MAIL.to_owned(), subject: format!("{}@example.com", user.id), email: None };
            let identity = store.add_identity(user.id, &subject, now_ms()).await?.id;
            let new = session::open(store, user.id, identity, &session::Browser::of(None), now_ms()).await?;
            let page = lab.with_session(&new).at(IpAddr::V4(Ipv4Addr::new(127, 0, 0, address)));
            people.push(Self { user: user.id, project: project.id, page });
        }
        Ok(people)
    }

    async fn conversation(&self, store: &Store) -> anyhow::Result<ConversationId> {
        let new = NewConversation { project: self.project, folder: None, title: None, settings: ConversationSettings::default() };
        Ok(store.add_conversation(self.user, new).await?.id)
    }
}

struct Crowd {
    model: String,
    pace: Duration,
    runs: usize,
    each: usize,
    measured: Duration,
}

/// What a watcher has seen while it was measured.
struct Seen {
    events: u64,
    /// Microseconds from one event to the next.
    gaps: Histogram<u64>,
    /// Milliseconds from an event in the Lab to its watcher.
    late: Histogram<u64>,
}

impl Seen {
    fn nothing() -> anyhow::Result<Self> {
        Ok(Self { events: 0, gaps: Histogram::new(3)?, late: Histogram::new(3)? })
    }
}

/// What a stream's line says, as far as it matters.
#[derive(Deserialize)]
struct Line {
    seq: u64,
    time: i64,
    #[serde(rename = "type")]
    kind: String,
}

async fn watch(store: &Store, lab: &Caller, crowd: Crowd) -> anyhow::Result<()> {
    let people = Person::all(store, lab).await?;
    ensure!(people.len() * crowd.each >= crowd.runs, "{} people are too few for {} runs", people.len(), crowd.runs);
    let (arrived, mut slowest) = watch::channel(0_usize);
    let measuring = Arc::new(AtomicBool::new(false));
    let mut watchers = JoinSet::new();
    for number in 0..crowd.runs {
        let person = &people[number % people.len()];
        let conversation = person.conversation(store).await?.to_string();
        let (run, _) = start_run(&person.page, &conversation, None, &crowd.model).await;
        watchers.spawn(follow(person.page.clone(), run, arrived.clone(), Arc::clone(&measuring)));
    }
    tokio::select! {
        all = slowest.wait_for(|arrived| *arrived == crowd.runs) => drop(all?),
        // None of them ends before all are there.
        ended = watchers.join_next() => { ended.context("nobody watches")???; anyhow::bail!("an answer ended too soon") }
    }
    let rows = store.run_event_rows().await?;
    let begun = Instant::now();
    measuring.store(true, Ordering::Relaxed);
    println!("{}", json!({"watching": crowd.runs}));
    tokio::time::sleep(crowd.measured).await;
    measuring.store(false, Ordering::Relaxed);
    let took = begun.elapsed().as_secs_f64();
    let rows = store.run_event_rows().await? - rows;
    println!("{}", json!({"watched": crowd.runs}));
    let mut all = Seen::nothing()?;
    while let Some(seen) = watchers.join_next().await {
        let seen = seen??;
        all.events += seen.events;
        all.gaps.add(seen.gaps)?;
        all.late.add(seen.late)?;
    }
    let pace_ms = crowd.pace.as_secs_f64() * 1e3;
    let beyond = |part: f64| (all.gaps.value_at_quantile(part) as f64 / 1e3 - pace_ms).max(0.0);
    println!(
        "{}",
        json!({
            "events": all.events,
            "events_per_run_s": all.events as f64 / crowd.runs as f64 / took,
            "writes_per_run_s": rows as f64 / crowd.runs as f64 / took,
            "gap_beyond_p50_ms": beyond(0.5), "gap_beyond_p99_ms": beyond(0.99), "gap_beyond_max_ms": beyond(1.0),
            "late_p50_ms": all.late.value_at_quantile(0.5), "late_p99_ms": all.late.value_at_quantile(0.99),
        })
    );
    Ok(())
}

/// Watches a run from its beginning to its end; tells once when it is in the middle.
async fn follow(page: Caller, run: String, arrived: watch::Sender<usize>, measuring: Arc<AtomicBool>) -> anyhow::Result<Seen> {
    let mut answer = page.get(&format!("/api/runs/{run}/events")).await;
    ensure!(answer.status == 200, "the stream is refused: {}", answer.status);
    let mut seen = Seen::nothing()?;
    let (mut text, mut count, mut last) = (String::new(), 0, None::<Instant>);
    while let Some(chunk) = answer.chunk().await? {
        let (now, wall) = (Instant::now(), now_ms());
        let is_measured = measuring.load(Ordering::Relaxed);
        text.push_str(std::str::from_utf8(&chunk)?);
        let whole = text.rfind("\n\n").map_or(0, |at| at + 2);
        for line in text[..whole].lines().filter_map(|line| line.strip_prefix("data: ")) {
            let line: Line = serde_json::from_str(line)?;
            count += 1;
            ensure!(line.seq == count, "event {} follows {} others", line.seq, count - 1);
            if count == 5 {
                arrived.send_modify(|arrived| *arrived += 1);
            }
            ensure!(line.kind != "ended" || !is_measured, "an answer ended while it was measured");
            if is_measured {
                seen.events += 1;
                seen.late.record(u64::try_from(wall - line.time).unwrap_or(0))?;
                if let Some(last) = last {
                    seen.gaps.record(u64::try_from(now.duration_since(last).as_micros())?)?;
                }
            }
            last = Some(now);
        }
        text.drain(..whole);
    }
    Ok(seen)
}

/// Messages of a conversation.
const LENGTH: usize = 1000;

async fn keep(store: &Store, lab: &Caller, messages: usize, bytes: usize) -> anyhow::Result<()> {
    let person = Person::all(store, lab).await?.into_iter().next().context("nobody is there")?;
    let mut needle = None;
    for _ in 0..messages.div_ceil(LENGTH) {
        let conversation = person.conversation(store).await?;
        let mut above = None;
        for number in 0..LENGTH.min(messages) {
            let mut text = if needle.is_none() { "A needle, in hay. ".to_owned() } else { format!("{number} ") };
            text.extend("lorem ipsum dolor sit amet ".chars().cycle().take(bytes.saturating_sub(text.len())));
            let role = if number % 2 == 0 { Role::User } else { Role::Assistant };
            let content = Content { parts: vec![Part::Text { text }], usage: Vec::new() };
            let said = store.add_message(person.user, conversation, above, role, content, None).await?.id;
            above = Some(said);
            needle.get_or_insert(said);
        }
    }
    let needle = needle.context("no messages")?.to_string();
    let mut line = person.page.line().await;
    let mut took = Vec::new();
    for _ in 0..9 {
        let begun = Instant::now();
        let wanted = json!({"q": "hay NEEDLE"}).to_string();
        let found = line.ask(Method::POST, "/api/search", &[], wanted).await;
        took.push(begun.elapsed());
        ensure!(found.status == 200, "the search is refused: {}", found.text());
        let page = found.json();
        ensure!(page["next"].is_null(), "the search did not come to its end at once");
        let finds = page["data"].as_array().context("no finds")?;
        ensure!(finds.len() == 1 && finds[0]["message"] == needle.as_str(), "the search found something else: {}", found.text());
    }
    took.sort_unstable();
    let begun = Instant::now();
    let export = line.ask(Method::GET, "/api/account/export", &[], Bytes::new()).await;
    ensure!(export.status == 200 && export.body.starts_with(b"PK"), "the export is refused: {}", export.status);
    println!(
        "{}",
        json!({
            "search_ms": took[took.len() / 2].as_secs_f64() * 1e3,
            "export_s": begun.elapsed().as_secs_f64(),
            "export_bytes": export.body.len(),
        })
    );
    Ok(())
}
