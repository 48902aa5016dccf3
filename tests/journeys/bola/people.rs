//! People who have everything that a person can have.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use journeys::{
    caller::Whole,
    description::{Fill, Meaning, Operation, Place, Text, guess, made, makes, meaning},
    world::{PATIENCE, World, sign_in},
};
use lab_server::{
    account::create_key,
    store::{Enrolment, KeyTerms, Scope, Subject},
};
use serde_json::Value;
use wire::{ProjectId, UserId};

use super::asking::{Asking, Role};

/// What nobody can delete, so that there is no deleted one to try; what was revoked can be revoked again by its owner.
const LASTING: &[&str] = &["request", "key", "device", "run", "message"];
/// What no route makes yet, though some take its identity: only guesses of these are tried.
const NOT_YET: &[&str] = &["approval"];
/// The model that answers them.
pub(super) const MODEL: &str = "local/fake-n20";
/// What a look at somebody's things may change, as it tells when they were looked at or how they are just now.
const PASSING: &[&str] = &["used_at", "last_used_at", "seen_at", "last_seen_at", "last_seen", "tokens_per_second"];

/// Somebody with everything.
pub(super) struct Person {
    /// A text that stands in every name of theirs.
    mark: String,
    cookie: String,
    manage: String,
    inference: String,
    things: HashMap<&'static str, String>,
    gone: HashMap<&'static str, String>,
    /// Where their newest file lies.
    path: String,
    /// How many names they have given.
    named: AtomicU32,
}

impl Person {
    /// Makes them. What can be made through the API is, by whatever creates things of that kind.
    pub(super) async fn with_everything(
        world: &World,
        operations: &[Operation<'_>],
        asking: &mut Asking,
        user: UserId,
        name: &str,
    ) -> Self {
        let store = &world.lab.store;
        let mark = format!("mark-of-{name}");
        let project = store.add_project(user, &mark).await.expect("a project").id;
        let cookie =
            sign_in(&world.lab, user).await.cookie().to_str().expect("a cookie").split(';').next().unwrap_or_default().to_owned();
        let manage = key(world, project, Scope::Manage).await;
        let inference = key(world, project, Scope::Inference).await;
        let (things, gone) = (HashMap::from([("project", project.to_string())]), HashMap::new());
        let mut person = Self { mark, cookie, manage, inference, things, gone, path: String::new(), named: AtomicU32::new(0) };
        person.enrol(world, user).await;
        person.ask_a_model(asking).await;
        person.create(operations, asking).await;
        person
    }

    async fn enrol(&mut self, world: &World, user: UserId) {
        let store = &world.lab.store;
        for deleted in [true, false] {
            let key = ed25519_dalek::SigningKey::from_bytes(&random());
            let public_key = key.verifying_key();
            let hostname = self.mark.as_str();
            let enrolment = Enrolment { owner: user, public_key: public_key.as_bytes(), hostname, os: "test", version: "0.0.0" };
            let device = store.enrol_device(&enrolment).await.expect("a device").id;
            if deleted {
                store.revoke_device(user, device).await.expect("revoked");
            }
            self.keep("device", device.to_string(), deleted);
            let subject = Subject { provider: "github".into(), subject: format!("{} {deleted}", self.mark), email: None };
            let identity = store.add_identity(user, &subject, world.lab.clock.now_ms()).await.expect("an identity").id;
            self.keep("identity", identity.to_string(), deleted);
            let session = sign_in(&world.lab, user).await.id();
            self.keep("session", session.to_string(), deleted);
        }
    }

    /// So that there is a record of it.
    async fn ask_a_model(&mut self, asking: &mut Asking) {
        let bearer = format!("Bearer {}", self.inference);
        let body = br#"{"model":"no-such-model","messages":[{"role":"user","content":"x"}]}"#.to_vec();
        let headers = [("authorization", bearer.as_str())];
        let answer = asking.plain(Method::POST, "/v1/chat/completions", &headers, body).await;
        let id = answer.header("x-1k4-request-id").to_owned();
        self.keep("request", id.clone(), false);
        // Records are written one after the other: whoever looks before and after something must not see one more of them.
        let is_written = |records: &Value| records.to_string().contains(&id);
        self.wait_for(asking, "/api/requests", is_written).await;
    }

    /// One of each kind that stays and one that is deleted again, outer things first.
    async fn create(&mut self, operations: &[Operation<'_>], asking: &mut Asking) {
        let mut making: Vec<_> = operations
            .iter()
            .filter(|operation| operation.credentials().contains(&"session"))
            .filter_map(|operation| Some((operation, makes(operation)?)))
            .collect();
        making.sort_by_key(|(operation, _)| operation.path.matches('/').count());
        for (operation, noun) in making {
            let mut lacks = false;
            operation.draft(Fill::Least, &mut |text| {
                lacks |= matches!(meaning(operation, text), Meaning::Identity(noun) if self.thing(noun).is_none());
                self.chooses_own(operation, text)
            });
            if lacks {
                continue;
            }
            let (deleted, kept) = (self.make(operation, asking).await, self.make(operation, asking).await);
            self.keep(noun, kept, false);
            if self.end(operations, asking, noun, &deleted).await {
                self.keep(noun, deleted, true);
            }
        }
        for noun in ["identity", "session"] {
            let deleted = self.gone.get(noun).cloned().unwrap_or_default();
            self.end(operations, asking, noun, &deleted).await;
        }
    }

    /// Deletes one, where that can be done.
    async fn end(&self, operations: &[Operation<'_>], asking: &mut Asking, noun: &'static str, id: &str) -> bool {
        let ends = |operation: &&Operation<'_>| {
            let last = operation.path.rsplit('/').next().unwrap_or_default();
            let mut texts = operation.texts().into_iter().filter(|text| last == format!("{{{}}}", text.name));
            operation.method == Method::DELETE && texts.any(|text| meaning(operation, &text) == Meaning::Identity(noun))
        };
        let Some(ending) = operations.iter().find(ends) else { return false };
        // All of it, where there is less than all.
        let draft = ending.draft(Fill::Most, &mut |text| match meaning(ending, text) {
            Meaning::Identity(found) if found == noun => id.to_owned(),
            Meaning::Identity(_) | Meaning::Words | Meaning::Unknown => self.chooses_own(ending, text),
        });
        let answer = asking.ask(self, Role::Session, ending, &draft).await;
        // The second of a kind may have taken the first one's place, as a rule about the same does.
        let is_gone = answer.status.is_success() || answer.status == StatusCode::NOT_FOUND;
        assert!(is_gone, "{} {}: {}", ending.label(), answer.status, answer.text());
        true
    }

    async fn make(&mut self, operation: &Operation<'_>, asking: &mut Asking) -> String {
        if makes(operation) == Some("file") {
            self.path = format!("{}-{}.txt", self.mark, self.named.fetch_add(1, Ordering::Relaxed));
        }
        let draft = operation.draft(Fill::Least, &mut |text| self.chooses_own(operation, text));
        let draft = draft.completed(operation, MODEL);
        let answer = asking.ask(self, Role::Session, operation, &draft).await;
        let id = serde_json::from_slice(&answer.body).ok().and_then(|answer| made(&answer).map(str::to_owned));
        let Some(id) = id.filter(|_| answer.status.is_success()) else {
            panic!("{} {}: {} {}", operation.label(), draft.path, answer.status, answer.text());
        };
        if operation.path == "/api/runs" {
            self.wait_for(asking, &format!("/api/runs/{id}"), |run| run["ended_at"].is_number()).await;
        }
        id
    }

    /// Waits for an end that somebody else works towards.
    async fn wait_for(&self, asking: &mut Asking, path: &str, is_so: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = asking.plain(Method::GET, path, &[("cookie", &self.cookie)], Vec::new()).await;
            if is_so(&answer.json()) {
                return;
            }
            assert!(Instant::now() < deadline, "not in time: {}", answer.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn keep(&mut self, noun: &'static str, id: String, deleted: bool) {
        if deleted { &mut self.gone } else { &mut self.things }.insert(noun, id);
    }

    /// How they show who they are.
    pub(super) fn credential(&self, role: Role) -> Option<(&'static str, String)> {
        match role {
            Role::Session => Some(("cookie", self.cookie.clone())),
            Role::Manage => Some(("authorization", format!("Bearer {}", self.manage))),
            Role::Inference => Some(("authorization", format!("Bearer {}", self.inference))),
            Role::Nobody => None,
        }
    }

    /// What this battery excuses although it has none; what there is must not be excused.
    pub(super) fn lacks(&self, noun: &str) -> bool {
        NOT_YET.contains(&noun) && self.thing(noun).is_none()
    }

    /// What is excused without need.
    pub(super) fn excused(&self) -> Vec<&'static str> {
        NOT_YET.iter().copied().filter(|noun| self.thing(noun).is_some()).collect()
    }

    pub(super) fn thing(&self, noun: &str) -> Option<&str> {
        self.things.get(noun).map(String::as_str)
    }

    /// One that was theirs; of what nobody can delete, one that never was.
    pub(super) fn deleted(&self, noun: &'static str) -> Option<String> {
        if LASTING.contains(&noun) { guess(noun) } else { self.gone.get(noun).cloned() }
    }

    pub(super) fn count(&self) -> usize {
        self.things.len()
    }

    /// What they put into a request of theirs whose `target` is `id`.
    pub(super) fn chooses(&self, operation: &Operation<'_>, text: &Text, target: &Text, id: &str) -> String {
        if (text.place, &text.name) == (target.place, &target.name) { id.to_owned() } else { self.chooses_own(operation, text) }
    }

    /// What they put into a request about their own things.
    pub(super) fn chooses_own(&self, operation: &Operation<'_>, text: &Text) -> String {
        match meaning(operation, text) {
            Meaning::Identity(noun) => self.thing(noun).map(str::to_owned).or_else(|| guess(noun)).unwrap_or_default(),
            Meaning::Words | Meaning::Unknown => self.words(text),
        }
    }

    /// Words of theirs that the field takes.
    fn words(&self, text: &Text) -> String {
        let words = match text.name.as_str() {
            "path" | "x-1k4-path" => self.path.clone(),
            "by" => "day".to_owned(),
            "day" | "month" | "total" | "spending.day" | "spending.month" | "spending.total" => "1.5".to_owned(),
            "from" | "to" => "2026-11-20".to_owned(),
            "cursor" | "after" => "1".to_owned(),
            "media_type" => "text/plain".to_owned(),
            "tool" => "files_write".to_owned(),
            "url" => "https://tools.example/mcp".to_owned(),
            _ if text.place == Place::Query => self.mark.clone(),
            // Some names may be given once.
            _ => format!("{}-{}", self.mark, self.named.fetch_add(1, Ordering::Relaxed)),
        };
        let longest = text.longest.and_then(|longest| usize::try_from(longest).ok()).unwrap_or(words.len());
        words.chars().take(longest).collect()
    }

    /// All that they see of theirs.
    pub(super) async fn sees(&self, operations: &[Operation<'_>], asking: &mut Asking) -> BTreeMap<String, Value> {
        let mut seen = BTreeMap::new();
        for operation in operations {
            if operation.method != Method::GET || !operation.credentials().contains(&"session") || operation.streams() {
                continue;
            }
            let draft = operation.draft(Fill::Least, &mut |text| self.chooses_own(operation, text));
            let answer = asking.ask(self, Role::Session, operation, &draft).await;
            if answer.status == StatusCode::OK {
                let mut body = serde_json::from_slice(&answer.body).unwrap_or_else(|_| Value::from(answer.body.to_vec()));
                forget_passing(&mut body);
                seen.insert(operation.label(), body);
            }
        }
        assert!(!seen.is_empty(), "they see something");
        seen
    }

    /// What an answer to somebody else tells of theirs.
    pub(super) fn told_by(&self, answer: &Whole) -> Option<String> {
        let told = format!("{:?} {}", answer.headers, answer.text());
        let mut theirs = self.things.iter().map(|(noun, id)| (*noun, id)).chain([("words", &self.mark)]);
        theirs.find(|(_, text)| told.contains(text.as_str())).map(|(noun, _)| format!("the victim's {noun}"))
    }
}

fn forget_passing(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !PASSING.contains(&name.as_str()));
            fields.values_mut().for_each(forget_passing);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_passing),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A key's 256 bits.
fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("randomness");
    bytes
}

async fn key(world: &World, project: ProjectId, scope: Scope) -> String {
    let terms = KeyTerms { scopes: [scope].into_iter().collect(), ..KeyTerms::default() };
    let (key, _) = create_key(&world.lab.store, project, "test", terms).await.expect("a key");
    key.reveal().to_owned()
}
