//! Every way of falsifying a log that SECURITY 4.8 names, a thousand times each, and what comes of it.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use serde_json::json;

use super::{
    chain::Head,
    verify::{Walk, verify},
    *,
};
use crate::{
    lab::files::Files,
    store::{BEGINNING, FileRef, FileVersion, scratch::Scratch},
};

#[tokio::test]
async fn rows_are_numbered_linked_and_readable() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let (ada, eve) = (store.add_user("ada").await.unwrap().id, store.add_user("eve").await.unwrap().id);
    let project = store.add_project(ada, "p").await.unwrap().id;
    let key = store.vault().create(Scope::Project(ada, project)).await.unwrap();
    let log = Log::new(store.clone());
    let did = |path: &str| Operation::by_person(Action::FileWritten, Some(path.into()), json!({ "size": 3 }));
    assert!(matches!(log.record(eve, project, did("x")).await, Err(StoreError::Vault(_) | StoreError::Missing(_))));
    let many = (0..20).map(|_| log.record(ada, project, did("a")));
    let mut seqs: Vec<u64> = futures_util::future::join_all(many).await.into_iter().map(Result::unwrap).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
    assert!(log.0.appending().is_empty());
    let rows = store.operations_from(project, 1, 100).await.unwrap();
    let mut previous = BEGINNING.to_vec();
    for (row, seq) in rows.iter().zip(1..) {
        assert_eq!((row.seq, &row.previous_hash), (seq, &previous));
        let hash = chain::link(&row.project_id, row.seq, row.time, &row.entry_sealed, &row.previous_hash);
        assert_eq!(row.hash, hash);
        assert_eq!(open(&key, project, seq, &row.entry_sealed).unwrap(), did("a"));
        previous.clone_from(&row.hash);
    }
    assert_eq!(rows.len(), 20);
    let newest = log.read(ada, project, Part::Before(Some(20)), 2).await.unwrap();
    assert_eq!(newest.iter().map(|row| row.seq).collect::<Vec<_>>(), [19, 18]);
    let oldest = log.read(ada, project, Part::After(18), 9).await.unwrap();
    assert_eq!(oldest.iter().map(|row| row.seq).collect::<Vec<_>>(), [19, 20]);
    assert_eq!(log.read(eve, project, Part::After(0), 9).await.unwrap(), []);
}

#[tokio::test]
async fn a_version_that_no_line_tells_of_is_logged_when_the_lab_starts() {
    let scratch = Scratch::new().await;
    let store = &scratch.store;
    let ada = store.add_user("ada").await.unwrap().id;
    let project = store.add_project(ada, "p").await.unwrap().id;
    let files = Files::open(store.clone(), scratch.dir.join("blobs")).await.unwrap();
    let log = Log::new(store.clone());
    let write = async |path: &str, text: &str| {
        files.write(ada, project, &path.parse().unwrap(), None, text.as_bytes(), Actor::Person).await.unwrap()
    };
    let told = |action, version: &FileVersion| {
        Operation::by_person(action, Some("a".into()), json!({ "file": version.file, "version": version.version }))
    };
    let logged = write("a", "one").await;
    log.record(ada, project, told(Action::FileWritten, &logged)).await.unwrap();
    let lost = write("a", "two and more").await;
    let renamed = files.rename(ada, project, &FileRef::Id(lost.file), &"b".parse().unwrap(), Actor::Person).await.unwrap();
    log.record(ada, project, told(Action::FileRenamed, &renamed)).await.unwrap();
    let new = write("c", "3").await;
    for _ in 0..2 {
        log.recover().await.unwrap();
        let lines = log.read(ada, project, Part::After(0), 100).await.unwrap();
        let mut found: Vec<_> = lines[2..]
            .iter()
            .map(|line| (line.operation.action, line.operation.target.clone().unwrap(), line.operation.arguments.clone()))
            .collect();
        found.sort_by(|one, other| one.1.cmp(&other.1));
        let expected = |path: &str, version: &FileVersion| {
            let arguments = json!({ "file": version.file, "version": version.version, "bytes": version.size });
            (Action::FileRecovered, path.to_owned(), arguments)
        };
        assert_eq!(found, [expected("a", &lost), expected("c", &new)]);
    }
}

const ROWS: i64 = 60;
const TIMES: usize = 1_000;

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }

    /// A line from `first` to `last`.
    fn line(&mut self, first: i64, last: i64) -> i64 {
        first + i64::try_from(self.below(usize::try_from(last - first + 1).unwrap())).unwrap()
    }
}

/// Rows as a log's are, without their content.
fn chain_of(project: ProjectId, dice: &mut Dice) -> Vec<OperationRow> {
    let mut previous = BEGINNING.to_vec();
    let rows = (1..=ROWS).map(|seq| {
        let entry_sealed: Vec<u8> = (0..40 + dice.below(60)).map(|_| u8::try_from(dice.below(256)).unwrap()).collect();
        let (project_id, time) = (project.to_string(), 1_800_000_000_000 + seq * 7);
        let hash = chain::link(&project_id, seq, time, &entry_sealed, &previous).to_vec();
        OperationRow { project_id, seq, time, entry_sealed, previous_hash: std::mem::replace(&mut previous, hash.clone()), hash }
    });
    rows.collect()
}

fn heads_at(key: &SigningKey, project: ProjectId, rows: &[OperationRow], seqs: &[i64]) -> BTreeMap<i64, Vec<Head>> {
    let at = |seq: i64| rows[usize::try_from(seq - 1).unwrap()].hash.clone().try_into().unwrap();
    seqs.iter().map(|seq| (*seq, vec![Head::sign(key, project, *seq, 1, at(*seq), false)])).collect()
}

/// What the walk over those of the rows that say they are this project's finds.
fn walked(project: ProjectId, rows: &[OperationRow], heads: &BTreeMap<i64, Vec<Head>>) -> Result<Sound, Finding> {
    let mut rows: Vec<_> = rows.iter().filter(|row| row.project_id == project.to_string()).collect();
    rows.sort_by_key(|row| row.seq);
    let mut walk = Walk::new(project, heads, None);
    for row in rows {
        walk.row(project, row)?;
    }
    walk.end(project)
}

fn relinked(rows: &mut [OperationRow], from: usize) {
    for at in from..rows.len() {
        if at > from {
            rows[at].previous_hash = rows[at - 1].hash.clone();
        }
        let row = &mut rows[at];
        row.hash = chain::link(&row.project_id, row.seq, row.time, &row.entry_sealed, &row.previous_hash).to_vec();
    }
}

/// Falsifies a fresh log a thousand times with `change`, which says what the first bad line is then.
fn a_thousand_times(what: &str, mut change: impl FnMut(&mut Vec<OperationRow>, &[OperationRow], &mut Dice) -> i64) {
    let mut dice = Dice(0x1234_5678_9abc_def1);
    let (project, other) = (ProjectId::random(), ProjectId::random());
    let (rows, others) = (chain_of(project, &mut dice), chain_of(other, &mut dice));
    let heads = heads_at(&SigningKey::from_bytes(&[7; 32]), project, &rows, &[20, 40, ROWS]);
    let sound = walked(project, &rows, &heads).unwrap();
    assert_eq!((sound.rows, sound.signed_to), (ROWS, ROWS));
    for time in 0..TIMES {
        let mut changed = rows.clone();
        let expected = change(&mut changed, &others, &mut dice);
        let finding = walked(project, &changed, &heads).expect_err(&format!("{what} {time}: nothing found"));
        assert_eq!((finding.line, finding.until), (expected, None), "{what} {time}: {finding:?}");
    }
}

fn at(line: i64) -> usize {
    usize::try_from(line - 1).unwrap()
}

#[test]
fn every_flipped_byte_is_found() {
    a_thousand_times("flip", |rows, _, dice| {
        let line = dice.line(1, ROWS);
        let mask = u8::try_from(1 + dice.below(255)).unwrap();
        let (column, seqs) = (dice.below(6), rows.len());
        let row = &mut rows[at(line)];
        match column {
            0 => {
                let mut text = std::mem::take(&mut row.project_id).into_bytes();
                let place = dice.below(text.len());
                text[place] ^= mask;
                row.project_id = String::from_utf8_lossy(&text).into_owned();
            }
            1 => {
                let mut bytes = row.seq.to_be_bytes();
                bytes[dice.below(8)] ^= mask;
                let seq = i64::from_be_bytes(bytes);
                // No two rows have one number.
                if (1..=i64::try_from(seqs).unwrap()).contains(&seq) {
                    row.seq = -1;
                } else {
                    row.seq = seq;
                }
                return line.min(row.seq);
            }
            2 => {
                let mut bytes = row.time.to_be_bytes();
                bytes[dice.below(8)] ^= mask;
                row.time = i64::from_be_bytes(bytes);
            }
            other => {
                let bytes = [&mut row.entry_sealed, &mut row.previous_hash, &mut row.hash].into_iter().nth(other - 3).unwrap();
                let place = dice.below(bytes.len());
                bytes[place] ^= mask;
            }
        }
        line
    });
}

#[test]
fn every_dropped_line_is_found() {
    a_thousand_times("drop", |rows, _, dice| {
        let line = dice.line(1, ROWS);
        rows.remove(at(line));
        line
    });
    a_thousand_times("drop and close the gap", |rows, _, dice| {
        let line = dice.line(1, ROWS);
        rows.remove(at(line));
        rows[at(line)..].iter_mut().for_each(|row| row.seq -= 1);
        line
    });
}

#[test]
fn every_other_order_is_found() {
    a_thousand_times("swap", |rows, _, dice| {
        let first = dice.line(1, ROWS - 1);
        let second = dice.line(first + 1, ROWS);
        (rows[at(first)].seq, rows[at(second)].seq) = (second, first);
        first
    });
    a_thousand_times("move", |rows, _, dice| {
        let first = dice.line(1, ROWS - 1);
        let second = dice.line(first + 1, ROWS);
        rows[at(first)..=at(second)].rotate_left(1);
        rows.iter_mut().zip(1..).for_each(|(row, seq)| row.seq = seq);
        first
    });
}

#[test]
fn every_end_that_was_cut_off_is_found_up_to_the_last_signed_head() {
    a_thousand_times("truncate", |rows, _, dice| {
        let left = dice.line(0, ROWS - 1);
        rows.truncate(usize::try_from(left).unwrap());
        left + 1
    });
    // What no head speaks for yet can go unnoticed, and nothing before it.
    let mut dice = Dice(1);
    let project = ProjectId::random();
    let rows = chain_of(project, &mut dice);
    let heads = heads_at(&SigningKey::from_bytes(&[7; 32]), project, &rows, &[20, 40]);
    for left in 0..=ROWS {
        let found = walked(project, &rows[..usize::try_from(left).unwrap()], &heads);
        if left >= 40 {
            assert_eq!(found.map(|sound| (sound.rows, sound.signed_to)), Ok((left, 40)));
        } else {
            let finding = found.unwrap_err();
            assert_eq!((finding.line, finding.problem), (left + 1, Problem::CutOff));
        }
    }
}

#[test]
fn every_line_of_another_log_is_found() {
    a_thousand_times("splice", |rows, others, dice| {
        let (line, taken) = (dice.line(1, ROWS), dice.line(1, ROWS));
        let project_id = rows[0].project_id.clone();
        let foreign = OperationRow { project_id, seq: line, ..others[at(taken)].clone() };
        match dice.below(3) {
            0 => rows[at(line)] = foreign,
            1 => {
                rows[at(line)..].iter_mut().for_each(|row| row.seq += 1);
                rows.insert(at(line), foreign);
            }
            _ => {
                rows.push(OperationRow { seq: ROWS + 1, ..foreign });
                return ROWS + 1;
            }
        }
        line
    });
}

#[test]
fn a_line_that_was_written_anew_with_its_hash_is_found() {
    a_thousand_times("one line", |rows, _, dice| {
        // Where a head speaks for the very line, all since the head before could have been written anew: that is the next test's.
        let line = dice.line(0, ROWS / 20 - 1) * 20 + dice.line(1, 19);
        rows[at(line)].time += 1;
        let end = at(line) + 1;
        relinked(&mut rows[..end], at(line));
        line
    });
}

#[test]
fn a_log_that_was_written_anew_is_found_by_its_heads() {
    let mut dice = Dice(99);
    let project = ProjectId::random();
    let rows = chain_of(project, &mut dice);
    let heads = heads_at(&SigningKey::from_bytes(&[7; 32]), project, &rows, &[20, 40, ROWS]);
    for line in 1..=ROWS {
        let mut changed = rows.clone();
        changed[at(line)].time += 1;
        relinked(&mut changed, at(line));
        let finding = walked(project, &changed, &heads).unwrap_err();
        let (since, until) = ((line - 1) / 20 * 20 + 1, (line - 1) / 20 * 20 + 20);
        assert_eq!((finding.line, finding.until, finding.problem), (since, Some(until), Problem::Rewritten));
    }
}

struct World {
    scratch: Scratch,
    owner: UserId,
    project: ProjectId,
    other: ProjectId,
    log: Log,
    raw: DatabaseConnection,
}

impl World {
    async fn new() -> Self {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let owner = store.add_user("ada").await.unwrap().id;
        let mut projects = Vec::new();
        for name in ["p", "q"] {
            let project = store.add_project(owner, name).await.unwrap().id;
            store.vault().create(Scope::Project(owner, project)).await.unwrap();
            projects.push(project);
        }
        let raw = Database::connect(format!("sqlite:{}", scratch.dir.join("lab.sqlite").display())).await.unwrap();
        let log = Log::new(store.clone());
        log.open_heads(&scratch.dir.join("heads.jsonl")).await.unwrap();
        Self { owner, project: projects[0], other: projects[1], log, raw, scratch }
    }

    async fn add(&self, rows: i64) {
        for _ in 0..rows {
            for project in [self.project, self.other] {
                let operation = Operation::by_person(Action::TaskCreated, Some("CANARY".into()), json!({ "n": 1 }));
                self.log.record(self.owner, project, operation).await.unwrap();
            }
        }
    }

    async fn sql(&self, sql: &str) {
        self.raw.execute_unprepared("PRAGMA foreign_keys = OFF").await.unwrap();
        self.raw.execute_unprepared(&sql.replace('@', &self.project.to_string())).await.unwrap();
    }

    async fn verify(&self) -> Report {
        verify(&self.scratch.store, None, Some(&self.scratch.dir.join("heads.jsonl"))).await.unwrap()
    }

    async fn found(&self) -> Vec<(i64, Problem)> {
        self.verify().await.findings.iter().map(|finding| (finding.line, finding.problem)).collect()
    }
}

#[tokio::test]
async fn what_is_done_to_the_database_is_found_there() {
    for (sql, expected) in [
        ("UPDATE operations SET time = time + 1 WHERE project_id = '@' AND seq = 7", vec![(7, Problem::Changed)]),
        ("UPDATE operations SET time = 'late' WHERE project_id = '@' AND seq = 7", vec![(7, Problem::Changed)]),
        ("DELETE FROM operations WHERE project_id = '@' AND seq = 4", vec![(4, Problem::Missing)]),
        ("DELETE FROM operations WHERE project_id = '@' AND seq > 8", vec![(9, Problem::CutOff)]),
        ("DELETE FROM operations WHERE project_id = '@'", vec![(1, Problem::CutOff)]),
        ("DELETE FROM operations WHERE project_id = '@' AND seq > 10", vec![]),
        (
            "UPDATE operations SET project_id = CAST(x'ff00' AS TEXT) WHERE project_id = '@' AND seq = 3",
            vec![(0, Problem::Foreign), (3, Problem::Missing)],
        ),
        ("UPDATE operation_heads SET seq = 5 WHERE project_id = '@'", vec![(5, Problem::ForgedHead)]),
        ("DELETE FROM operation_heads", vec![]),
        (
            "UPDATE operations SET entry_sealed = (SELECT entry_sealed FROM operations WHERE seq = 2) WHERE project_id = '@' AND seq = 12",
            vec![(12, Problem::Changed)],
        ),
    ] {
        let world = World::new().await;
        world.add(10).await;
        world.log.sign_heads().await.unwrap();
        world.add(2).await;
        let before = world.verify().await;
        assert!(before.sound, "{before:?}");
        assert_eq!(before.logs.iter().map(|log| (log.rows, log.opened, log.signed_to)).collect::<Vec<_>>(), [(12, 12, 10); 2]);
        world.sql(sql).await;
        assert_eq!(world.found().await, expected, "{sql}");
        assert_eq!(world.log.verify(world.other).await.unwrap().findings, [], "{sql}");
    }
}

#[tokio::test]
async fn a_log_is_whole_without_its_key_and_after_its_deletion() {
    let world = World::new().await;
    world.add(3).await;
    world.log.sign_heads().await.unwrap();
    world.scratch.store.vault().shred(Scope::Project(world.owner, world.project)).await.unwrap();
    let report = world.verify().await;
    assert!(report.sound, "{report:?}");
    let opened: BTreeMap<ProjectId, i64> = report.logs.iter().map(|log| (log.project, log.opened)).collect();
    assert_eq!((opened[&world.project], opened[&world.other]), (0, 3));
    // The keys open what is sealed, and say so where the rows alone look right.
    world.log.end(world.project).await.unwrap();
    world.sql("DELETE FROM operations WHERE project_id = '@'").await;
    world.sql("DELETE FROM operation_heads WHERE project_id = '@'").await;
    let report = world.verify().await;
    assert!(report.sound, "{report:?}");
    assert!(report.logs.iter().any(|log| log.project == world.project && log.ended));
    // Nobody else's word ends a log.
    let text = std::fs::read_to_string(world.scratch.dir.join("heads.jsonl")).unwrap();
    let forged = text.replace(",\"ended\":true", "");
    assert_ne!(text, forged);
    std::fs::write(world.scratch.dir.join("heads.jsonl"), forged).unwrap();
    assert_eq!(world.found().await, [(3, Problem::ForgedHead), (1, Problem::CutOff)]);
}

#[tokio::test]
async fn the_file_of_heads_is_checked_line_by_line() {
    let world = World::new().await;
    world.add(1).await;
    world.log.sign_heads().await.unwrap();
    let path = world.scratch.dir.join("heads.jsonl");
    let mut text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2);
    text.push_str("{\"project\":");
    std::fs::write(&path, text).unwrap();
    // The next head does not stand on the line that was torn.
    let again = Log::new(world.scratch.store.clone());
    let keeper = again.keep_heads(&path).await.unwrap();
    again.record(world.owner, world.project, Operation::by_person(Action::RunStarted, None, Value::Null)).await.unwrap();
    keeper.finish().await;
    assert_eq!(world.found().await, [(3, Problem::BrokenHead)]);
    let report = again.verify(world.project).await.unwrap();
    assert_eq!((report.logs[0].rows, report.logs[0].signed_to), (2, 2));
}
