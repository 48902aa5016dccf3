//! Runs over a real store, with runners that say what a test wants.

use sea_orm::{ConnectionTrait, ExprTrait, sea_query::Query};
use tokio::sync::mpsc as channel;

use super::*;
use crate::{lab::content::Part, store::scratch::Scratch};

/// What a test tells a run to do.
enum Say {
    Event(Event),
    End(Outcome),
    Panic,
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
            let stopped = writer.stopped();
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return Outcome::Stopped,
                    say = said.recv() => match say {
                        Some(Say::Event(event)) => writer.push(event),
                        Some(Say::End(outcome)) => return outcome,
                        Some(Say::Panic) => panic!("as it was told"),
                        None => std::future::pending().await,
                    },
                }
            }
        })
    });
    (runner, begun)
}

async fn conversation_of(store: &Store, owner: UserId, project: ProjectId) -> ConversationId {
    let conversation = ConversationId::random();
    store.vault().create(Scope::Conversation(owner, conversation)).await.unwrap();
    let insert = Query::insert()
        .into_table("conversations")
        .columns(["id", "user_id", "project_id", "title_sealed", "settings_sealed", "version", "created_at", "updated_at"])
        .values_panic([
            conversation.to_string().into(),
            owner.to_string().into(),
            project.to_string().into(),
            vec![0_u8].into(),
            vec![0_u8].into(),
            1.into(),
            1.into(),
            1.into(),
        ])
        .take();
    store.connection().execute(&insert).await.unwrap();
    conversation
}

impl World {
    async fn new() -> Self {
        let scratch = Scratch::new().await;
        let owner = scratch.store.add_user("ada").await.unwrap().id;
        let project = scratch.store.add_project(owner, "talk").await.unwrap().id;
        let conversation = conversation_of(&scratch.store, owner, project).await;
        let (runner, begun) = obedient();
        let runs = Runs::open(scratch.store.clone(), &scratch.dir.join("runs"), runner).await.unwrap();
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
        message(&self.scratch.store, self.owner, run).await
    }
}

/// What stands in a run's message, and its version.
async fn message(store: &Store, owner: UserId, run: &Run) -> Content {
    let query = Query::select()
        .columns(["content_sealed", "version"])
        .from("messages")
        .and_where(sea_orm::sea_query::Expr::col("id").eq(run.message.to_string()))
        .take();
    let row = store.connection().query_one(&query).await.unwrap().unwrap();
    let (sealed, version): (Vec<u8>, i64) = (row.try_get("", "content_sealed").unwrap(), row.try_get("", "version").unwrap());
    let key = store.vault().key(Scope::Conversation(owner, run.conversation)).await.unwrap();
    let name = run.message.to_string();
    let place = crate::vault::Place { table: "messages", column: "content_sealed", row: &name, version };
    serde_json::from_slice(&key.open(place, &sealed).unwrap()).unwrap()
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
