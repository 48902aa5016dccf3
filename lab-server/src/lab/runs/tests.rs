//! Runs over a real store, with runners that say what a test wants.

use tokio::sync::mpsc as channel;

use super::*;
use crate::{
    lab::content::Part,
    store::{ConversationSettings, NewConversation, scratch::Scratch},
};

/// What a test tells a run to do.
enum Say {
    Event(Event),
    End(Outcome),
    Panic,
    /// It waits until it is told the next thing, whatever that is.
    Wait,
}

/// A store with one person who has one conversation, and runs that do as they are told.
struct World {
    scratch: Scratch,
    owner: UserId,
    conversation: ConversationId,
    runs: Runs,
    /// One for each run, in the order of their beginning.
    begun: channel::UnboundedReceiver<channel::UnboundedSender<Say>>,
}

fn obedient() -> (Runner, channel::UnboundedReceiver<channel::UnboundedSender<Say>>) {
    let (begins, begun) = channel::unbounded_channel();
    let runner: Runner = Box::new(move |writer, _| {
        let (say, mut said) = channel::unbounded_channel();
        let _ = begins.send(say);
        Box::pin(async move {
            let (stopped, mut waits) = (writer.stopped(), false);
            loop {
                let next = async { if waits { writer.aside(said.recv()).await } else { said.recv().await } };
                tokio::select! {
                    () = stopped.cancelled() => return Outcome::Stopped,
                    say = next => match say {
                        Some(Say::Wait) => {
                            waits = true;
                            writer.push(Event::Asked { step: 1, model: "waits".into() });
                            continue;
                        }
                        Some(Say::Event(event)) => writer.push(event),
                        Some(Say::End(outcome)) => return outcome,
                        Some(Say::Panic) => panic!("as it was told"),
                        None => std::future::pending().await,
                    },
                }
                waits = false;
            }
        })
    });
    (runner, begun)
}

impl World {
    async fn new() -> Self {
        Self::with_room(TOTAL).await
    }

    async fn with_room(room: usize) -> Self {
        let scratch = Scratch::new().await;
        let owner = scratch.store.add_user("ada").await.unwrap().id;
        let project = scratch.store.add_project(owner, "talk").await.unwrap().id;
        let new = NewConversation { project, folder: None, title: None, settings: ConversationSettings::default() };
        let conversation = scratch.store.add_conversation(owner, new).await.unwrap().id;
        let (runner, begun) = obedient();
        let runs = Runs::with_room(scratch.store.clone(), &scratch.dir.join("runs"), News::default(), runner, room).await.unwrap();
        Self { scratch, owner, conversation, runs, begun }
    }

    fn new_run(&self, parent: Option<MessageId>, says: Option<&str>) -> NewRun {
        let content = says.map(|text| Content { parts: vec![Part::Text { text: text.into() }], usage: Vec::new() });
        let choice = ModelChoice { model: "fake".into(), max_output_tokens: None, temperature: None };
        NewRun { conversation: self.conversation, parent, content, kind: RunKind::Chat, order: Order { choice, agent: None } }
    }

    async fn start(&self, parent: Option<MessageId>) -> Run {
        self.runs.start(self.owner, self.new_run(parent, Some("hello"))).await.unwrap().run
    }

    async fn follow(&self, run: &Run, after: u64) -> Follow {
        self.runs.follow(self.owner, run.id, after).await.unwrap()
    }

    async fn message(&self, run: &Run) -> Content {
        self.scratch.store.message(self.owner, run.message).await.unwrap().unwrap().content
    }

    /// The Lab once more, over what the one before left.
    async fn open_again(&self) -> Runs {
        Runs::open(self.scratch.store.clone(), &self.tails(), News::default(), obedient().0).await.unwrap()
    }

    fn tails(&self) -> PathBuf {
        self.scratch.dir.join("runs")
    }
}

fn text(text: &str) -> Event {
    Event::Text { text: text.into() }
}

/// Everything that is still to come.
async fn rest(follow: &mut Follow) -> Vec<Arc<Numbered>> {
    let mut all = Vec::new();
    while let Some(events) = follow.next().await.unwrap() {
        assert!(!events.is_empty());
        all.extend(events);
    }
    all
}

fn numbers(events: &[Arc<Numbered>]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

#[tokio::test]
async fn what_is_pushed_is_shown_written_and_folded() {
    let mut world = World::new().await;
    let run = world.start(None).await;
    assert_eq!((run.state, run.last_seq), (RunState::Queued, 0));
    let say = world.begun.recv().await.unwrap();
    let mut watcher = world.follow(&run, 0).await;
    for word in ["one", " two"] {
        say.send(Say::Event(text(word))).unwrap();
        let events = watcher.next().await.unwrap().unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].event, text(word));
    }
    assert_eq!(world.runs.get(world.owner, run.id).await.unwrap().state, RunState::Running);
    say.send(Say::End(Outcome::Done)).unwrap();
    let last = rest(&mut watcher).await;
    assert_eq!(last.len(), 1);
    assert_eq!((last[0].seq, &last[0].event), (3, &Event::Ended { outcome: Outcome::Done }));
    // Whoever has seen the end finds the message.
    assert_eq!(world.message(&run).await.parts, [Part::Text { text: "one two".into() }]);
    let kept = world.runs.get(world.owner, run.id).await.unwrap();
    assert_eq!((kept.state, kept.last_seq), (RunState::Done, 3));
    assert!(kept.ended_at.is_some());
    // Who comes later is told the same.
    for after in 0..5 {
        let events = rest(&mut world.follow(&run, after).await).await;
        assert_eq!(numbers(&events), (after + 1..=3).collect::<Vec<_>>());
    }
    let stranger = world.scratch.store.add_user("eve").await.unwrap().id;
    assert!(matches!(world.runs.follow(stranger, run.id, 0).await, Err(StoreError::Missing("run"))));
    assert!(matches!(world.runs.stop(stranger, run.id).await, Err(StoreError::Missing("run"))));
    world.runs.stop(world.owner, run.id).await.unwrap();
    assert_eq!(world.runs.get(world.owner, run.id).await.unwrap().state, RunState::Done);
}

#[tokio::test]
async fn a_slow_watcher_is_told_everything() {
    let mut world = World::new().await;
    let run = world.start(None).await;
    let say = world.begun.recv().await.unwrap();
    let mut slow = world.follow(&run, 0).await;
    let mut fast = world.follow(&run, 0).await;
    // Three times what is kept at hand.
    let words = "x".repeat(4096);
    let mut seen = Vec::new();
    for _ in 0..800 {
        say.send(Say::Event(text(&words))).unwrap();
    }
    say.send(Say::End(Outcome::Done)).unwrap();
    while let Some(events) = fast.next().await.unwrap() {
        seen.extend(numbers(&events));
    }
    assert_eq!(seen, (1..=801).collect::<Vec<_>>());
    assert_eq!(numbers(&rest(&mut slow).await), seen);
    let Part::Text { text } = &world.message(&run).await.parts[0] else { panic!("no text") };
    assert_eq!(text.len(), 800 * 4096);
}

#[tokio::test]
async fn a_run_that_follows_another_waits_and_a_branch_does_not() {
    let mut world = World::new().await;
    let first = world.runs.start(world.owner, world.new_run(None, Some("one"))).await.unwrap();
    let say = world.begun.recv().await.unwrap();
    let second = world.start(Some(first.run.message)).await;
    let third = world.start(Some(second.message)).await;
    // The same question once more: another branch.
    let again = world.runs.start(world.owner, world.new_run(first.asked, None)).await.unwrap();
    let say_again = world.begun.recv().await.unwrap();
    assert_eq!(again.asked, None);
    let state = async |run: &Run| world.runs.get(world.owner, run.id).await.unwrap().state;
    assert_eq!(state(&second).await, RunState::Queued);
    // Stopped before its turn.
    world.runs.stop(world.owner, third.id).await.unwrap();
    assert_eq!(rest(&mut world.follow(&third, 0).await).await[0].event, Event::Ended { outcome: Outcome::Stopped });
    assert_eq!(state(&second).await, RunState::Queued);
    // Whatever the first comes to, the second has its turn.
    say.send(Say::End(Outcome::Exhausted { budget: "tokens".into() })).unwrap();
    let say = world.begun.recv().await.unwrap();
    assert_eq!(world.runs.get(world.owner, first.run.id).await.unwrap().state, RunState::Exhausted);
    say.send(Say::Event(text("two"))).unwrap();
    say.send(Say::End(Outcome::Done)).unwrap();
    assert_eq!(rest(&mut world.follow(&second, 0).await).await.len(), 2);
    say_again.send(Say::End(Outcome::Done)).unwrap();
    assert_eq!(rest(&mut world.follow(&again.run, 0).await).await.len(), 1);
    let refused = world.runs.start(world.owner, world.new_run(first.asked, Some("below a person's words"))).await;
    assert!(matches!(refused, Err(RunError::Store(StoreError::Refused(_)))));
    let refused = world.runs.start(world.owner, world.new_run(Some(second.message), None)).await;
    assert!(matches!(refused, Err(RunError::Store(StoreError::Refused(_)))));
    let (runs, next) = world.runs.list(world.owner, world.conversation, None, 3).await.unwrap();
    let (rest, end) = world.runs.list(world.owner, world.conversation, next, 3).await.unwrap();
    let ids: Vec<_> = runs.iter().chain(&rest).map(|run| run.id).collect();
    assert_eq!((ids, end), (vec![again.run.id, third.id, second.id, first.run.id], None));
}

#[tokio::test]
async fn a_run_that_is_stopped_panics_or_says_too_much_has_an_end() {
    let mut world = World::new().await;
    let failed = |event: &Numbered| match &event.event {
        Event::Ended { outcome: Outcome::Failed { code, .. } } => code.clone(),
        other => panic!("{other:?}"),
    };
    let run = world.start(None).await;
    let say = world.begun.recv().await.unwrap();
    say.send(Say::Event(text("kept"))).unwrap();
    let mut watcher = world.follow(&run, 0).await;
    assert_eq!(watcher.next().await.unwrap().unwrap().len(), 1);
    world.runs.stop(world.owner, run.id).await.unwrap();
    world.runs.stop(world.owner, run.id).await.unwrap();
    assert_eq!(rest(&mut watcher).await[0].event, Event::Ended { outcome: Outcome::Stopped });
    assert_eq!(world.message(&run).await.parts, [Part::Text { text: "kept".into() }]);

    let run = world.start(None).await;
    world.begun.recv().await.unwrap().send(Say::Panic).unwrap();
    assert_eq!(failed(&rest(&mut world.follow(&run, 0).await).await[0]), "internal");

    let run = world.start(None).await;
    let say = world.begun.recv().await.unwrap();
    say.send(Say::Event(text("kept"))).unwrap();
    say.send(Say::Event(text(&"x".repeat(300 << 10)))).unwrap();
    let events = rest(&mut world.follow(&run, 0).await).await;
    assert_eq!((events.len(), failed(&events[1]).as_str()), (2, "event_too_large"));

    // Many pieces that are not too large, of a run that is.
    let run = world.start(None).await;
    let say = world.begun.recv().await.unwrap();
    let mut watcher = world.follow(&run, 0).await;
    for _ in 0..70 {
        say.send(Say::Event(text(&"x".repeat(250 << 10)))).unwrap();
    }
    let events = rest(&mut watcher).await;
    assert_eq!((events.len(), failed(events.last().unwrap()).as_str()), (66, "run_too_long"));
    let kept = world.message(&run).await.parts;
    assert!(matches!(&kept[..], [Part::Text { text }] if text.len() == 65 * (250 << 10)));
}

#[tokio::test]
async fn a_person_has_so_many_unfinished_runs() {
    let world = World::new().await;
    for _ in 0..PER_PERSON {
        world.start(None).await;
    }
    let more = world.runs.start(world.owner, world.new_run(None, Some("more"))).await;
    assert!(matches!(more, Err(RunError::TooMany)));
    let (runs, _) = world.runs.list(world.owner, world.conversation, None, 1).await.unwrap();
    let mut watcher = world.follow(&runs[0], 0).await;
    world.runs.stop(world.owner, runs[0].id).await.unwrap();
    rest(&mut watcher).await;
    world.start(None).await;
}

#[tokio::test]
async fn a_run_that_waits_keeps_nobody_from_working() {
    let mut world = World::with_room(2).await;
    let more = async |world: &World| world.runs.start(world.owner, world.new_run(None, Some("more"))).await;
    let first = world.start(None).await;
    let says = world.begun.recv().await.unwrap();
    // A run that waits for another one has no place; the other one and this are two of them.
    let follower = world.start(Some(first.message)).await;
    let second = started(&world).await;
    let says_too = world.begun.recv().await.unwrap();
    assert!(matches!(more(&world).await, Err(RunError::Busy)));

    // Their owner is asked, and is away for days: two others work meanwhile.
    let mut watchers = [world.follow(&first, 0).await, world.follow(&second, 0).await];
    says.send(Say::Wait).unwrap();
    says_too.send(Say::Wait).unwrap();
    for watcher in &mut watchers {
        watcher.next().await.unwrap().unwrap();
    }
    let mut others = Vec::new();
    for _ in 0..2 {
        started(&world).await;
        others.push(world.begun.recv().await.unwrap());
    }
    assert!(matches!(more(&world).await, Err(RunError::Busy)));

    // The answer comes, and the run goes on when there is a place, before anybody new.
    says.send(Say::Event(text("answered"))).unwrap();
    says_too.send(Say::Event(text("answered"))).unwrap();
    others.pop().unwrap().send(Say::End(Outcome::Done)).unwrap();
    while watchers[0].next().await.unwrap().unwrap().last().unwrap().event != text("answered") {}
    assert!(matches!(more(&world).await, Err(RunError::Busy)));
    // One that waits for a place can be stopped like any other.
    world.runs.stop(world.owner, second.id).await.unwrap();
    assert_eq!(rest(&mut watchers[1]).await.last().unwrap().event, Event::Ended { outcome: Outcome::Stopped });
    // The follower takes the place of the run that it waited for.
    says.send(Say::End(Outcome::Done)).unwrap();
    world.begun.recv().await.unwrap().send(Say::End(Outcome::Done)).unwrap();
    let ends = rest(&mut world.follow(&follower, 0).await).await;
    assert_eq!(ends.last().unwrap().event, Event::Ended { outcome: Outcome::Done });
    others.pop().unwrap().send(Say::End(Outcome::Done)).unwrap();
    eventually_all_places(&world).await;
}

/// A run that is started as soon as there is a place: who waits says so a moment before the place is left.
async fn started(world: &World) -> Run {
    let there_is_room = async {
        loop {
            match world.runs.start(world.owner, world.new_run(None, Some("hello"))).await {
                Ok(started) => return started.run,
                Err(RunError::Busy) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), there_is_room).await.expect("a place")
}

/// Every place is given back in the end.
async fn eventually_all_places(world: &World) {
    world.runs.shutdown(Duration::from_secs(5)).await;
    assert_eq!(world.runs.0.live.room.available_permits(), 2);
}

#[tokio::test]
async fn who_stops_the_lab_ends_its_runs_in_order() {
    let mut world = World::new().await;
    let run = world.start(None).await;
    let say = world.begun.recv().await.unwrap();
    let queued = world.start(Some(run.message)).await;
    say.send(Say::Event(text("so far"))).unwrap();
    let (mut watcher, mut other) = (world.follow(&run, 0).await, world.follow(&queued, 0).await);
    world.runs.shutdown(Duration::from_millis(1)).await;
    let interrupted = Event::Ended { outcome: Outcome::Interrupted };
    let events = rest(&mut watcher).await;
    assert_eq!((numbers(&events), &events[1].event), (vec![1, 2], &interrupted));
    assert_eq!(rest(&mut other).await[0].event, interrupted);
    assert_eq!(world.message(&run).await.parts, [Part::Text { text: "so far".into() }]);
    let late = world.runs.start(world.owner, world.new_run(None, Some("late"))).await;
    assert!(matches!(late, Err(RunError::Stopping)));
    assert_eq!(world.scratch.store.unfinished_runs().await.unwrap(), []);
    assert_eq!(std::fs::read_dir(world.tails()).unwrap().count(), 0);
}

/// What the database has, and what only the tail has, of a run whose Lab was killed; the tail is cut at `cut` of its bytes.
async fn killed(world: &World, written: u64, tailed: u64, ended: bool, cut: impl FnOnce(usize) -> usize) -> Run {
    let store = &world.scratch.store;
    let key = store.vault().key(Scope::Conversation(world.owner, world.conversation)).await.unwrap();
    let NewRun { conversation, parent, content, kind, order } = world.new_run(None, Some("hello"));
    let beginning = RunBeginning { run: RunId::random(), conversation, parent, says: content, kind, order: &order };
    let run = store.begin_run(world.owner, &key, beginning).await.unwrap().run;
    let event = |seq: u64| {
        let event = if ended && seq == tailed { Event::Ended { outcome: Outcome::Done } } else { text(&format!("{seq} ")) };
        Arc::new(Numbered { seq, time: 1, event })
    };
    let state = Some(RunState::Running);
    let events = (1..=written).map(event).collect();
    store
        .write_progress(&[RunProgress { run: run.id, owner: world.owner, key: key.clone(), events, state, end: None }])
        .await
        .unwrap();
    let mut frames = Vec::new();
    // The tail overlaps with the database: the Lab died before it could be dropped.
    for seq in written.max(1)..=tailed {
        tail::put_frame(&mut frames, &key, run.id, &[event(seq)], seq);
    }
    frames.truncate(cut(frames.len()));
    crate::store::make_private_dir(&world.tails()).unwrap();
    std::fs::write(world.tails().join(format!("{:020}.tail", 7)), frames).unwrap();
    run
}

#[tokio::test]
async fn a_run_is_said_to_have_ended_when_its_message_is_kept() {
    let world = World::new().await;
    world.runs.shutdown(Duration::ZERO).await;
    let store = &world.scratch.store;
    let key = store.vault().key(Scope::Conversation(world.owner, world.conversation)).await.unwrap();
    let NewRun { conversation, parent, content, kind, order } = world.new_run(None, Some("hello"));
    let beginning = RunBeginning { run: RunId::random(), conversation, parent, says: content, kind, order: &order };
    let run = store.begin_run(world.owner, &key, beginning).await.unwrap().run;
    let log = Arc::new(Log::new(world.owner, run, key, mpsc::channel().0, Arc::default()));
    log.begin();
    log.push(text("said"));
    log.end(Outcome::Done);
    assert_eq!(log.run().state, RunState::Running);
    let progress = log.progress().unwrap();
    assert_eq!(progress.state, Some(RunState::Done));
    store.write_progress(std::slice::from_ref(&progress)).await.unwrap();
    log.written(&progress);
    assert_eq!((log.run().state, log.run().last_seq), (RunState::Done, 2));
}

#[tokio::test]
async fn what_a_killed_lab_has_shown_is_found_and_ended() {
    let world = World::new().await;
    world.runs.shutdown(Duration::ZERO).await;
    for (written, tailed, ended) in [(0, 0, false), (3, 0, false), (0, 3, false), (3, 5, false), (3, 5, true)] {
        let run = killed(&world, written, tailed, ended, |whole| whole).await;
        let runs = world.open_again().await;
        let events = rest(&mut runs.follow(world.owner, run.id, 0).await.unwrap()).await;
        let all = written.max(tailed) + u64::from(!ended);
        assert_eq!(numbers(&events), (1..=all).collect::<Vec<_>>(), "{written} {tailed}");
        let outcome = if ended { Outcome::Done } else { Outcome::Interrupted };
        assert_eq!(events.last().unwrap().event, Event::Ended { outcome: outcome.clone() });
        let kept = runs.get(world.owner, run.id).await.unwrap();
        assert_eq!((kept.state, kept.last_seq), (RunState::of(&outcome), all));
        let said: String = (1..all).map(|seq| format!("{seq} ")).collect();
        let parts = if said.is_empty() { Vec::new() } else { vec![Part::Text { text: said }] };
        assert_eq!(world.message(&run).await.parts, parts);
        assert_eq!(std::fs::read_dir(world.tails()).unwrap().count(), 0);
        runs.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn a_torn_tail_is_as_good_as_its_whole_frames() {
    let world = World::new().await;
    world.runs.shutdown(Duration::ZERO).await;
    let key = world.scratch.store.vault().key(Scope::Conversation(world.owner, world.conversation)).await.unwrap();
    let run = RunId::random();
    let (mut frames, mut ends) = (Vec::new(), Vec::new());
    for seq in 1..=5 {
        tail::put_frame(&mut frames, &key, run, &[Numbered { seq, time: 1, event: text("x") }], seq);
        ends.push(frames.len());
    }
    let dir = world.scratch.dir.join("torn");
    crate::store::make_private_dir(&dir).unwrap();
    let read = |bytes: &[u8]| {
        std::fs::write(dir.join(format!("{:020}.tail", 1)), bytes).unwrap();
        let (_, left) = Tail::open(&dir).unwrap();
        left.get(&run).map_or(0, |left| tail::read(&key, run, left, 0).len())
    };
    for cut in 0..=frames.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(read(&frames[..cut]), whole, "cut at {cut}");
    }
    // A byte that is another one hides what stands behind it, and nothing else.
    for at in 0..frames.len() {
        let mut other = frames.clone();
        other[at] ^= 1;
        let before = ends.iter().filter(|end| **end <= at).count();
        assert_eq!(read(&other), before, "changed at {at}");
    }
    // A frame at another run's or event's place is none.
    assert_eq!(tail::read(&key, RunId::random(), &Tail::open(&dir).unwrap().1.remove(&run).unwrap_or_default(), 0).len(), 0);
}

#[tokio::test]
async fn a_tail_that_cannot_be_written_holds_nobody_up() {
    let mut world = World::new().await;
    std::fs::remove_dir_all(world.tails()).unwrap();
    let run = world.start(None).await;
    let say = world.begun.recv().await.unwrap();
    say.send(Say::Event(text("still"))).unwrap();
    let mut watcher = world.follow(&run, 0).await;
    assert_eq!(watcher.next().await.unwrap().unwrap()[0].event, text("still"));
    // It was in the database before it was shown.
    assert_eq!(world.scratch.store.last_event(run.id).await.unwrap(), 1);
    say.send(Say::End(Outcome::Done)).unwrap();
    assert_eq!(rest(&mut watcher).await.len(), 1);
}

#[tokio::test]
async fn a_deleted_conversation_ends_its_runs() {
    let mut world = World::new().await;
    let run = world.start(None).await;
    let say = world.begun.recv().await.unwrap();
    let mut watcher = world.follow(&run, 0).await;
    world.scratch.store.delete_conversation(world.owner, world.conversation).await.unwrap();
    say.send(Say::Event(text("to nobody"))).unwrap();
    let events = rest(&mut watcher).await;
    assert!(events.iter().all(|event| !matches!(event.event, Event::Ended { .. })));
    say.closed().await;
    assert!(matches!(world.runs.get(world.owner, run.id).await, Err(StoreError::Missing("run"))));
}

/// Row 12, without the network: 200 runs, each pushing a token every 20 ms, each with a watcher.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures for ten seconds: cargo xtask test --full"]
async fn full_two_hundred_runs_stall_nobody() {
    const RUNS: usize = 200;
    const TOKENS: u32 = 500;
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let runner: Runner = Box::new(|writer, _| {
        async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            for token in 0..TOKENS {
                tick.tick().await;
                writer.push(text(&format!("{token} ")));
            }
            Outcome::Done
        }
        .boxed()
    });
    let runs = Runs::open(store.clone(), &scratch.dir.join("runs"), News::default(), runner).await.unwrap();
    let mut conversations = Vec::new();
    for person in 0..RUNS.div_ceil(PER_PERSON) {
        let owner = store.add_user(&format!("person {person}")).await.unwrap().id;
        let project = store.add_project(owner, "talk").await.unwrap().id;
        let new = NewConversation { project, folder: None, title: None, settings: ConversationSettings::default() };
        conversations.push((owner, store.add_conversation(owner, new).await.unwrap().id));
    }
    let (begun, mut watchers) = (std::time::Instant::now(), tokio::task::JoinSet::new());
    for number in 0..RUNS {
        let (owner, conversation) = conversations[number / PER_PERSON];
        let choice = ModelChoice { model: "fake".into(), max_output_tokens: None, temperature: None };
        let content = Some(Content { parts: vec![Part::Text { text: "count".into() }], usage: Vec::new() });
        let order = Order { choice, agent: None };
        let run = runs.start(owner, NewRun { conversation, parent: None, content, kind: RunKind::Chat, order }).await.unwrap().run;
        let mut follow = runs.follow(owner, run.id, 0).await.unwrap();
        watchers.spawn(async move {
            let (mut late, mut gaps, mut last, mut seen) = (Vec::new(), Vec::new(), None, 0);
            while let Some(events) = follow.next().await.unwrap() {
                let now = now_ms();
                for event in &events {
                    assert_eq!(event.seq, seen + 1);
                    seen += 1;
                    late.push(now - event.time);
                }
                gaps.extend(last.map(|last| now - last));
                last = Some(now);
            }
            assert_eq!(seen, u64::from(TOKENS) + 1);
            (late, gaps)
        });
    }
    let (mut late, mut gaps) = (Vec::new(), Vec::new());
    for (theirs, between) in watchers.join_all().await {
        late.extend(theirs);
        gaps.extend(between);
    }
    let took = begun.elapsed().as_secs_f64();
    late.sort_unstable();
    gaps.sort_unstable();
    let at = |sorted: &[i64], part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize];
    // Rows of events, and the two changes of state of each run: its beginning and its end.
    let writes = (store.run_event_rows().await.unwrap() + 3 * RUNS as u64) as f64 / RUNS as f64 / took;
    println!(
        "{took:.1} s; from push to watcher p50 {} p99 {} ms; gap p50 {} p99 {} max {} ms; {writes:.2} writes per run and second",
        at(&late, 0.5),
        at(&late, 0.99),
        at(&gaps, 0.5),
        at(&gaps, 0.99),
        at(&gaps, 1.0)
    );
    assert!(at(&gaps, 0.99) <= 100 && writes <= 5.0);
}

#[tokio::test]
async fn the_runs_of_somebody_whom_another_process_deletes_are_stopped() {
    let mut world = World::new().await;
    let revocations = crate::account::revocation::Revocations::follow(world.scratch.store.clone()).await.unwrap();
    tokio::spawn(world.runs.clone().follow_deletions(revocations.watch()));
    let eve = world.scratch.store.add_user("eve").await.unwrap().id;
    let project = world.scratch.store.add_project(eve, "talk").await.unwrap().id;
    let new = NewConversation { project, folder: None, title: None, settings: ConversationSettings::default() };
    let hers = world.scratch.store.add_conversation(eve, new).await.unwrap().id;
    world.start(None).await;
    let run = NewRun { conversation: hers, ..world.new_run(None, Some("hello")) };
    world.runs.start(eve, run).await.unwrap();
    let (of_ada, of_eve) = (world.begun.recv().await.unwrap(), world.begun.recv().await.unwrap());

    let elsewhere = Scratch::open(&world.scratch.dir).await;
    let log = crate::lab::operations::Log::new(elsewhere.clone());
    let mut epochs = revocations.watch();
    epochs.mark_unchanged();
    elsewhere.revoke_user(eve).await.unwrap();
    // Whoever looked now would find her keys still there.
    epochs.changed().await.unwrap();
    assert!(!of_eve.is_closed());
    let blobs = world.scratch.dir.join("blobs");
    crate::account::farewell::farewell(&elsewhere, &log, &blobs, eve).await.unwrap();
    tokio::time::timeout(Duration::from_secs(1), of_eve.closed()).await.expect("her run goes on");
    assert!(!of_ada.is_closed());
}
