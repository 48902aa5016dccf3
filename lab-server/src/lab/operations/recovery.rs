//! Lines that a Lab before this one owed its logs when it was ended from outside.
//!
//! What is done is logged right behind the effect, in another transaction. A process that is killed between the two leaves a version
//! of a file that no line tells of, or a run with no end. Both are looked for when the Lab starts, before anybody works in it.

use std::collections::{HashMap, HashSet};

use serde_json::json;
use wire::{FileId, ProjectId, RunId, UserId};

use super::{Action, Approval, Log, Operation, Outcome, Part, Recorded};
use crate::{
    lab::content::Actor,
    store::{FileRef, MadeVersion, RunKind, StoreError},
};

/// How long before the newest version one may have been made whose line was still to be written: its writer had nothing else to do.
const SPAN_MS: i64 = 10 * 60 * 1000;
/// Lines that are read at once.
const AT_ONCE: u64 = 200;

impl Log {
    /// Writes what is missing. Call it before runs that were interrupted are brought to their end.
    ///
    /// # Errors
    /// When the database fails. A project whose log cannot be read keeps the Lab from nothing; that is the verifier's to tell.
    pub async fn recover(&self) -> Result<(), StoreError> {
        let mut versions: HashMap<(UserId, ProjectId), Vec<MadeVersion>> = HashMap::new();
        for made in self.0.store.newest_file_versions(SPAN_MS).await? {
            versions.entry((made.owner, made.project)).or_default().push(made);
        }
        for ((owner, project), versions) in versions {
            if let Err(error) = self.recover_versions(owner, project, &versions).await {
                tracing::error!(%error, %project, "cannot compare the files of a project with its log");
            }
        }
        for unfinished in
            self.0.store.unfinished_runs().await?.into_iter().filter(|unfinished| unfinished.run.kind == RunKind::Agent)
        {
            let (owner, run) = (unfinished.owner, unfinished.run);
            if let Err(error) = self.recover_end(owner, run.project, run.id, run.created_at).await {
                tracing::error!(%error, run = %run.id, "cannot log that a run was interrupted");
            }
        }
        Ok(())
    }

    async fn recover_versions(&self, owner: UserId, project: ProjectId, made: &[MadeVersion]) -> Result<(), StoreError> {
        let oldest = made.iter().map(|made| made.created_at).min().unwrap_or_default();
        let lines = self.since(owner, project, oldest).await?;
        let told: HashSet<(FileId, i64)> = lines.iter().filter_map(|line| version_in(&line.operation)).collect();
        for &MadeVersion { file, version, .. } in made.iter().filter(|made| !told.contains(&(made.file, made.version))) {
            let found = self.0.store.file_version(owner, project, &FileRef::Id(file), Some(version)).await?;
            let Some(found) = found else { continue };
            let recovered = Operation {
                actor: found.actor,
                target: Some(found.path.as_str().to_owned()),
                arguments: json!({ "file": file, "version": version, "bytes": found.size }),
                ..Operation::by_person(Action::FileRecovered, None, serde_json::Value::Null)
            };
            self.record(owner, project, recovered).await?;
            tracing::warn!(%project, %file, version, "a version of a file had no line in its log; it has one now");
        }
        Ok(())
    }

    /// Logs the end of a run whose beginning is logged.
    async fn recover_end(&self, owner: UserId, project: ProjectId, run: RunId, created_at: i64) -> Result<(), StoreError> {
        let of_run = |line: &Recorded, action: Action| {
            let actor = &line.operation.actor;
            line.operation.action == action && matches!(actor, Actor::Agent { run: theirs, .. } if *theirs == run)
        };
        let lines = self.since(owner, project, created_at).await?;
        if lines.iter().any(|line| of_run(line, Action::RunEnded)) {
            return Ok(());
        }
        let Some(begun) = lines.into_iter().find(|line| of_run(line, Action::RunStarted)) else { return Ok(()) };
        let arguments = json!({ "outcome": { "outcome": "interrupted" } });
        let ended =
            Operation { action: Action::RunEnded, arguments, approval: Approval::Nobody, result: Outcome::Done, ..begun.operation };
        self.record(owner, project, ended).await.map(|_| ())
    }

    /// The lines of a log from a time on, newest first.
    async fn since(&self, owner: UserId, project: ProjectId, time: i64) -> Result<Vec<Recorded>, StoreError> {
        let (mut lines, mut below) = (Vec::new(), None);
        loop {
            let read = self.read(owner, project, Part::Before(below), AT_ONCE).await?;
            below = read.last().map(|line| line.seq);
            let whole = read.len();
            lines.extend(read.into_iter().take_while(|line| line.time >= time));
            if whole < usize::try_from(AT_ONCE).unwrap_or(usize::MAX) || lines.last().map(|line| line.seq) != below {
                return Ok(lines);
            }
        }
    }
}

/// Which version of which file a line tells of.
fn version_in(operation: &Operation) -> Option<(FileId, i64)> {
    let file = operation.arguments.get("file")?.as_str()?.parse().ok()?;
    Some((file, operation.arguments.get("version")?.as_i64()?))
}
