//! Whether a log is what was written: hashes, links, numbers, heads. It takes no key of anybody's; with one, rows are opened too.
//!
//! What is found: every row that was changed, taken out, put in, moved or replaced; a chain whose end was cut off before its last
//! signed head, or that was written anew from some row on that a head speaks for. What no head speaks for yet, the last 1,000 rows or
//! 60 s at most, can be cut off unnoticed by whoever can write the database. Whoever has the Lab's own key as well is found out only
//! by a copy of the heads that they cannot reach.
//!
//! A Lab that was restored from a backup looks like one whose logs were cut off: the heads know of more than the backup. Nothing can
//! tell one from the other but its operator, who knows which they did; so both are told, and what to do after the one.

use std::{collections::BTreeMap, io::BufRead, path::Path};

use ed25519_dalek::VerifyingKey;
use serde::Serialize;
use utoipa::ToSchema;
use wire::ProjectId;

use super::{
    Log,
    chain::{self, Head},
    heads::{HeadsError, signing_key},
    open,
};
use crate::{
    store::{BEGINNING, HeadRow, OperationRow, Store, StoreError},
    vault::{Key, Scope},
};

/// Rows that are looked at together.
const TOGETHER: u64 = 1_000;

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// Whose log, as it stands there.
    pub project: String,
    /// The first bad line.
    pub line: i64,
    /// Where it cannot be said which of several lines is the first bad one, the last of them.
    pub until: Option<i64>,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The line is not there, and later ones are.
    Missing,
    /// There is a line where none can be: below the first, or in a log of no project.
    Foreign,
    /// The line is not as it was written.
    Changed,
    /// The line's content does not open with its project's key.
    Unreadable,
    /// A signed head says that the log was another one up to there.
    Rewritten,
    /// A signed head says that the line was there; the log ends before it.
    CutOff,
    /// What should be a signed head of this line is none of this Lab's.
    ForgedHead,
    /// This line of the file of heads is no head.
    BrokenHead,
}

/// What was looked at in a log that is sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sound {
    /// Whose log.
    #[schema(value_type = String)]
    pub project: ProjectId,
    /// How many rows it has.
    pub rows: i64,
    /// How many of them were opened.
    pub opened: i64,
    /// The last row that a signed head speaks for; 0 for none. What follows could be cut off unnoticed.
    pub signed_to: i64,
    /// Whether it is no longer there because its owner had it deleted.
    pub ended: bool,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub sound: bool,
    /// The Lab's public key for heads, in URL-safe base64.
    pub key: String,
    /// The logs that are as they were written.
    pub logs: Vec<Sound>,
    /// What is wrong: for each log the first bad line, and every bad head.
    pub findings: Vec<Finding>,
}

/// The signed heads of one log by row.
type Heads = BTreeMap<i64, Vec<Head>>;

/// A log as it is walked from its first row to its last.
pub(super) struct Walk<'a> {
    project: String,
    heads: &'a Heads,
    key: Option<&'a Key>,
    next: i64,
    previous: Vec<u8>,
    signed_to: i64,
    opened: i64,
    /// The row before, if it does not go with the one before it although its own hash is right: the next row tells which of both is
    /// the wrong one.
    suspect: Option<i64>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(project: ProjectId, heads: &'a Heads, key: Option<&'a Key>) -> Self {
        let previous = BEGINNING.to_vec();
        Self { project: project.to_string(), heads, key, next: 1, previous, signed_to: 0, opened: 0, suspect: None }
    }

    /// Goes on by one row, in the order of their numbers.
    pub(super) fn row(&mut self, project: ProjectId, row: &OperationRow) -> Result<(), Finding> {
        if row.seq < self.next {
            return Err(self.finding(row.seq, Problem::Foreign));
        }
        let links = row.seq == self.next && row.previous_hash == self.previous;
        if let Some(suspect) = self.suspect {
            // A row that the next one goes with is as it was written: what is wrong is the one before it.
            return Err(self.finding(if links { suspect - 1 } else { suspect }, Problem::Changed));
        }
        if row.seq > self.next {
            return Err(self.finding(self.next, Problem::Missing));
        }
        if chain::link(&self.project, row.seq, row.time, &row.entry_sealed, &row.previous_hash)[..] != row.hash[..] {
            return Err(self.finding(row.seq, Problem::Changed));
        }
        if links {
            if let Some(key) = self.key {
                if open(key, project, row.seq, &row.entry_sealed).is_err() {
                    return Err(self.finding(row.seq, Problem::Unreadable));
                }
                self.opened += 1;
            }
        } else if row.seq == 1 {
            return Err(self.finding(1, Problem::Changed));
        } else {
            self.suspect = Some(row.seq);
        }
        if let Some(heads) = self.heads.get(&row.seq) {
            let agree = heads.iter().all(|head| head.hash[..] == row.hash[..]);
            match (agree, self.suspect) {
                (true, Some(suspect)) => return Err(self.finding(suspect - 1, Problem::Changed)),
                (true, None) => self.signed_to = row.seq,
                (false, _) => {
                    let until = Some(row.seq);
                    return Err(Finding { until, ..self.finding(self.signed_to + 1, Problem::Rewritten) });
                }
            }
        }
        self.previous.clone_from(&row.hash);
        self.next += 1;
        Ok(())
    }

    /// Says what the whole log is.
    pub(super) fn end(self, project: ProjectId) -> Result<Sound, Finding> {
        if let Some(suspect) = self.suspect {
            return Err(Finding { until: Some(suspect), ..self.finding(suspect - 1, Problem::Changed) });
        }
        let last = self.heads.last_key_value();
        let ended = self.next == 1 && last.is_some_and(|(_, heads)| heads.iter().any(|head| head.ended));
        if !ended && last.is_some_and(|(seq, _)| *seq >= self.next) {
            return Err(self.finding(self.next, Problem::CutOff));
        }
        Ok(Sound { project, rows: self.next - 1, opened: self.opened, signed_to: self.signed_to, ended })
    }

    fn finding(&self, line: i64, problem: Problem) -> Finding {
        Finding { project: self.project.clone(), line, until: None, problem }
    }
}

impl Log {
    /// Checks one log with the heads of the database, opening its rows where the project's key is still there.
    ///
    /// # Errors
    /// When the database fails; what is wrong with the log is no error.
    pub async fn verify(&self, project: ProjectId) -> Result<Report, StoreError> {
        let store = &self.0.store;
        let key = signing_key(store).await?.verifying_key();
        let mut findings = Vec::new();
        let heads = heads_of(store, project, &key, &mut findings).await?;
        let logs = walk(store, project, &heads, &mut findings).await?;
        Ok(report(&key, logs.into_iter().collect(), findings))
    }
}

/// Checks the log of one project or of all, with the heads of the database and those of a file.
///
/// # Errors
/// When the database or the file cannot be read; what is wrong with a log is no error.
pub async fn verify(store: &Store, only: Option<ProjectId>, file: Option<&Path>) -> Result<Report, HeadsError> {
    let key = signing_key(store).await?.verifying_key();
    let mut findings = Vec::new();
    let mut kept: BTreeMap<ProjectId, Heads> = BTreeMap::new();
    if let Some(path) = file {
        let (path, only) = (path.to_owned(), only);
        let in_file = |source| HeadsError::File { path: path.clone(), source };
        let found = read_heads(&path, only, &key, &mut findings).map_err(in_file)?;
        found.into_iter().for_each(|head| kept.entry(head.project).or_default().entry(head.seq).or_default().push(head));
    }
    match only {
        Some(project) => {
            kept.entry(project).or_default();
        }
        None => {
            for named in store.operation_projects().await? {
                let project = String::from_utf8(named).map_err(|error| error.into_bytes().escape_ascii().to_string());
                match project.and_then(|text| text.parse::<ProjectId>().map_err(|_| text.escape_default().to_string())) {
                    Ok(project) => drop(kept.entry(project).or_default()),
                    Err(project) => findings.push(Finding { project, line: 0, until: None, problem: Problem::Foreign }),
                }
            }
        }
    }
    let mut logs = Vec::new();
    for (project, mut heads) in kept {
        for (seq, more) in heads_of(store, project, &key, &mut findings).await? {
            heads.entry(seq).or_default().extend(more);
        }
        logs.extend(walk(store, project, &heads, &mut findings).await?);
    }
    Ok(report(&key, logs, findings))
}

fn report(key: &VerifyingKey, logs: Vec<Sound>, findings: Vec<Finding>) -> Report {
    Report { sound: findings.is_empty(), key: chain::encode(key.as_bytes()), logs, findings }
}

/// The heads of a log that stand in the database. One that the Lab did not sign is found, and speaks for nothing.
async fn heads_of(store: &Store, project: ProjectId, key: &VerifyingKey, findings: &mut Vec<Finding>) -> Result<Heads, StoreError> {
    let mut heads = Heads::new();
    for row in store.operation_heads(project).await? {
        let seq = row.seq;
        match head_of(project, row).filter(|head| head.holds(key)) {
            Some(head) => heads.entry(seq).or_default().push(head),
            None => {
                findings.push(Finding { project: project.to_string(), line: seq, until: None, problem: Problem::ForgedHead });
            }
        }
    }
    Ok(heads)
}

fn head_of(project: ProjectId, row: HeadRow) -> Option<Head> {
    let (hash, signature) = (row.hash.try_into().ok()?, row.signature.try_into().ok()?);
    Some(Head { project, seq: row.seq, time: row.time, hash, ended: false, signature })
}

/// The heads of a file. A line that is none is found by its number.
fn read_heads(path: &Path, only: Option<ProjectId>, key: &VerifyingKey, findings: &mut Vec<Finding>) -> std::io::Result<Vec<Head>> {
    let mut heads = Vec::new();
    for (line, number) in std::io::BufReader::new(std::fs::File::open(path)?).split(b'\n').zip(1..) {
        let head = String::from_utf8(line?).ok().and_then(|line| Head::from_line(&line));
        let Some(head) = head else {
            findings.push(Finding { project: String::new(), line: number, until: None, problem: Problem::BrokenHead });
            continue;
        };
        if only.is_some_and(|only| only != head.project) {
            continue;
        }
        if head.holds(key) {
            heads.push(head);
        } else {
            let project = head.project.to_string();
            findings.push(Finding { project, line: head.seq, until: None, problem: Problem::ForgedHead });
        }
    }
    Ok(heads)
}

/// Walks one log. What is wrong with it joins `findings`.
async fn walk(store: &Store, project: ProjectId, heads: &Heads, findings: &mut Vec<Finding>) -> Result<Option<Sound>, StoreError> {
    // Whoever deleted the project's key wanted nobody to read it; that it is whole can be seen without.
    let key = match store.owner_of_project(project).await? {
        Some(owner) => store.vault().key(Scope::Project(owner, project)).await.ok(),
        None => None,
    };
    let mut walk = Walk::new(project, heads, key.as_ref());
    let (mut from, mut together) = (i64::MIN, TOGETHER);
    loop {
        let rows = match store.operations_from(project, from, together).await {
            Ok(rows) => rows,
            // One of them holds what no row can: they are taken one by one to find it.
            Err(error) if error.is_undecodable() && together > 1 => {
                together = 1;
                continue;
            }
            Err(error) if error.is_undecodable() => {
                findings.push(walk.finding(walk.next, Problem::Changed));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        for row in &rows {
            if let Err(finding) = walk.row(project, row) {
                findings.push(finding);
                return Ok(None);
            }
        }
        match rows.last() {
            Some(last) => from = last.seq.saturating_add(1),
            None => break,
        }
    }
    walk.end(project).map(Some).or_else(|finding| {
        findings.push(finding);
        Ok(None)
    })
}

impl Finding {
    /// For people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { project, line, until, problem } = self;
        match problem {
            Problem::Missing => format!("{project} line {line}: it is missing"),
            Problem::Foreign if *line == 0 => format!("{project}: there is no such project, and it has lines"),
            Problem::Foreign => format!("{project} line {line}: no log has such a line"),
            Problem::Changed => match until {
                Some(until) => format!("{project} line {line}: it or line {until} is not as it was written"),
                None => format!("{project} line {line}: it is not as it was written"),
            },
            Problem::Unreadable => format!("{project} line {line}: its content is not what was written, it does not open"),
            Problem::Rewritten => {
                format!(
                    "{project} line {line}: from some line on, {line} at the earliest, all was written anew up to {}",
                    until.unwrap_or(*line)
                )
            }
            Problem::CutOff => format!(
                "{project} line {line}: it and what followed was cut off, or the lab was restored from a backup that is older than \
                 the file of heads"
            ),
            Problem::ForgedHead => format!("{project} line {line}: its head was not signed by this lab"),
            Problem::BrokenHead => format!("line {line} of the file of heads is no head"),
        }
    }
}
