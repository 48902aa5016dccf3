//! Row 3 of the Lab's issue, and promises R13, R22 and R23: what is somebody's is nobody else's, whoever asks, however they ask.
//!
//! The routes come from the Lab's OpenAPI file. Every text of every request is either the identity of something, and then it is
//! attacked with another person's, a guessed, a deleted and a malformed one, or it is words. What is neither fails the test, so that
//! no route is forgotten.

mod asking;
mod people;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use http::StatusCode;
use journeys::{
    caller::Whole,
    description::{Description, Fill, Meaning, Operation, Place, Text, guess, makes, meaning},
    world::World,
};
use serde_json::Value;

use asking::{Asking, Role};
use people::{MODEL, Person};

/// How an identity is not the asking person's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// It is somebody else's.
    Others,
    /// It is well formed and nobody's.
    Guessed,
    /// It was theirs.
    Deleted,
    /// It is no identity.
    Malformed,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_somebodys_is_nobody_elses() {
    let world = World::start().await;
    let description = Description::of_this_lab();
    let operations = description.operations();
    let mut asking = Asking::of(&world);
    let victim = Person::with_everything(&world, &operations, &mut asking, world.user, "victim").await;
    let other = world.lab.store.add_user("other@example.com").await.expect("a user");
    let attacker = Person::with_everything(&world, &operations, &mut asking, other.id, "attacker").await;

    let before = victim.sees(&operations, &mut asking).await;
    let (mut cells, mut mistakes) = (0, Vec::new());
    for operation in &operations {
        for target in operation.texts() {
            let Meaning::Identity(noun) = meaning(operation, &target) else { continue };
            for wrong in [Wrong::Others, Wrong::Guessed, Wrong::Deleted, Wrong::Malformed] {
                let Some(id) = wrong_one(wrong, noun, &victim, &attacker) else {
                    if attacker.lacks(noun) {
                        continue;
                    }
                    mistakes.push(format!("{}: there is no {wrong:?} {noun} to try; make one in people.rs", operation.label()));
                    continue;
                };
                let draft = operation.draft(Fill::With(&target), &mut |text| attacker.chooses(operation, text, &target, &id));
                let draft = draft.completed(operation, MODEL);
                for role in Role::ALL {
                    let answer = asking.ask(&attacker, role, operation, &draft).await;
                    cells += 1;
                    let what = format!("{} with {}'s {wrong:?} {noun} as {role:?}", operation.label(), target.name);
                    let allowed = allowed(operation, role, &target, wrong);
                    if !allowed.contains(&answer.status.as_u16()) && !is_empty_list(&target, &answer) {
                        mistakes.push(format!("{what}: {} and not one of {allowed:?}: {}", answer.status, answer.text()));
                    }
                    if let Some(told) = victim.told_by(&answer) {
                        mistakes.push(format!("{what}: the answer tells {told}"));
                    }
                    if answer.status == StatusCode::FORBIDDEN && answer.json()["error"]["code"] != "key_scope" {
                        mistakes.push(format!("{what}: refused for another reason than the key's scope: {}", answer.text()));
                    }
                }
            }
        }
    }
    let after = victim.sees(&operations, &mut asking).await;
    mistakes.extend(differences(&before, &after));
    mistakes.extend(asking.mistakes());
    mistakes.extend(victim.excused().iter().map(|noun| format!("there are {noun}s now: take them off people.rs' list")));
    println!("{cells} cells, {} answers, {} things of the victim's", asking.answers(), victim.count());
    assert!(mistakes.is_empty(), "{} mistakes:\n{}", mistakes.len(), mistakes.join("\n"));
    assert!(cells >= 1_000, "only {cells} cells");
}

/// The same requests with what is theirs: if these were refused, the refusals above would prove nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_ones_own_is_there() {
    let world = World::start().await;
    let description = Description::of_this_lab();
    let operations = description.operations();
    let mut asking = Asking::of(&world);
    let person = Person::with_everything(&world, &operations, &mut asking, world.user, "owner").await;
    let mut mistakes = Vec::new();
    // What makes something was asked already, when the person came to have everything.
    let about_theirs = |operation: &&Operation<'_>| takes_identities(operation) && makes(operation).is_none();
    // What takes something away comes last, and a part before the whole that it is of.
    let mut ordered: Vec<_> = operations.iter().filter(about_theirs).collect();
    ordered.sort_by_key(|operation| {
        (ends_something(operation), Reverse(operation.path.matches('/').count()), operation.path == "/api/projects/{id}")
    });
    for operation in ordered {
        let role = if operation.credentials().contains(&"session") { Role::Session } else { Role::Inference };
        let draft = operation.draft(Fill::Least, &mut |text| person.chooses_own(operation, text));
        let draft = draft.completed(operation, MODEL);
        let answer = asking.ask(&person, role, operation, &draft).await;
        if operation.texts().iter().any(|text| matches!(meaning(operation, text), Meaning::Identity(noun) if person.lacks(noun))) {
            continue;
        }
        let is_there = !matches!(answer.status.as_u16(), 401 | 403 | 404 | 405 | 415);
        if !is_there {
            mistakes.push(format!("{} {}: {} {}", operation.label(), draft.path, answer.status, answer.text()));
        }
    }
    mistakes.extend(asking.mistakes());
    assert!(mistakes.is_empty(), "{} mistakes:\n{}", mistakes.len(), mistakes.join("\n"));
}

/// A page from elsewhere in the victim's own browser, whose cookie comes along.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_from_elsewhere_changes_nothing() {
    let world = World::start().await;
    let description = Description::of_this_lab();
    let operations = description.operations();
    let mut asking = Asking::of(&world);
    let victim = Person::with_everything(&world, &operations, &mut asking, world.user, "victim").await;
    let before = victim.sees(&operations, &mut asking).await;
    let (mut cells, mut mistakes) = (0, Vec::new());
    for operation in operations.iter().filter(|operation| !operation.is_safe() && operation.credentials().contains(&"session")) {
        let draft = operation.draft(Fill::Least, &mut |text| victim.chooses_own(operation, text));
        let draft = draft.completed(operation, MODEL);
        for (how, headers) in asking::FOREIGN {
            let answer = asking.ask_with(&victim, operation, &draft, headers).await;
            cells += 1;
            if answer.status != StatusCode::FORBIDDEN || answer.json()["error"]["code"] != "foreign_request" {
                mistakes.push(format!("{} from {how}: {} {}", operation.label(), answer.status, answer.text()));
            }
        }
    }
    let after = victim.sees(&operations, &mut asking).await;
    mistakes.extend(differences(&before, &after));
    mistakes.extend(asking.mistakes());
    println!("{cells} requests from elsewhere");
    assert!(mistakes.is_empty(), "{} mistakes:\n{}", mistakes.len(), mistakes.join("\n"));
    assert!(cells >= 150, "only {cells} cells");
}

/// Every text that the description knows has a meaning, and every identity can be guessed.
#[test]
fn every_text_is_an_identity_or_words() {
    let description = Description::of_this_lab();
    let mut unknown = BTreeSet::new();
    for operation in description.operations() {
        for text in operation.texts() {
            if meaning(&operation, &text) == Meaning::Unknown {
                unknown.insert(format!("{}: {} ({:?})", operation.label(), text.name, text.place));
            }
        }
    }
    assert!(unknown.is_empty(), "say in bola/meaning.rs whether these are identities or words:\n{unknown:#?}");
}

/// Whoever filters by what is not there finds nothing.
fn is_empty_list(target: &Text, answer: &Whole) -> bool {
    target.place == Place::Query && answer.status == StatusCode::OK && answer.json()["data"] == Value::Array(Vec::new())
}

fn takes_identities(operation: &Operation<'_>) -> bool {
    operation.texts().iter().any(|text| matches!(meaning(operation, text), Meaning::Identity(_)))
}

/// What is taken away or replaced is not there afterwards.
fn ends_something(operation: &Operation<'_>) -> bool {
    operation.method == http::Method::DELETE || operation.path.ends_with("/rotate")
}

fn wrong_one(wrong: Wrong, noun: &'static str, victim: &Person, attacker: &Person) -> Option<String> {
    match wrong {
        Wrong::Others => victim.thing(noun).map(str::to_owned),
        Wrong::Guessed => guess(noun),
        Wrong::Deleted => attacker.deleted(noun),
        Wrong::Malformed => Some(format!("{noun}_no-id'\"<")),
    }
}

/// What may be answered. There is nothing there, or nobody is let in; a key is told what it lacks before its request is looked at.
fn allowed(operation: &Operation<'_>, role: Role, target: &Text, wrong: Wrong) -> &'static [u16] {
    let takes = operation.credentials();
    let takes_key = takes.contains(&"key");
    match role {
        _ if takes.is_empty() => &[400, 401, 404],
        // In a list it is simply not there; in a body it may be said that it is no identity.
        Role::Session if !takes.contains(&"session") => &[401],
        Role::Manage if !takes_key => &[401],
        Role::Session | Role::Manage if target.place != Place::Path && wrong == Wrong::Malformed => &[400, 404],
        // A key that only manages asks no model, and looks up no request of one.
        Role::Manage if operation.path.starts_with("/v1/") => &[403],
        Role::Session | Role::Manage => &[404],
        Role::Inference if takes_key => &[403, 404],
        Role::Inference | Role::Nobody => &[401],
    }
}

fn differences(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Vec<String> {
    let changed = before.iter().filter(|(label, seen)| after.get(*label) != Some(seen));
    let short = |value: Option<&Value>| value.map(Value::to_string).unwrap_or_default().chars().take(400).collect::<String>();
    changed.map(|(label, seen)| format!("{label} was {} and is {}", short(Some(seen)), short(after.get(label)))).collect()
}
