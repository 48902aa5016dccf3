//! Runs: an answer of a model or an agent's work, the message that it makes, and what happened in it, some events a row.
//!
//! A run's row is written when it begins, when its state changes and when it ends; in between only its events are. How far they go
//! stands in their own rows.

use std::{collections::HashSet, sync::Arc};

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Select, sea_query::Expr,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{ConversationId, MessageId, ProjectId, RunId, UserId};

use super::{Bookmark, Role, Store, StoreError, conversations, id, key_of, messages, messages::Said, now_ms, sealed, unsealed};
use crate::{
    lab::{
        content::Content,
        event::{Numbered, Outcome},
        runs::Order,
    },
    vault::{Key, Place, Scope},
};

/// Rows in one statement at most.
const CHUNK: usize = 128;
/// Rows of events that are read at once: a quarter of a second of a run each.
const ROWS: u64 = 32;

/// What makes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// One answer of one model.
    Chat,
    /// A model with tools, asked again and again.
    Agent,
}

/// Where a run is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It waits for the message that it follows.
    Queued,
    /// It works.
    Running,
    /// It waits for its owner's answer.
    Waiting,
    /// It ended by itself.
    Done,
    /// Its owner stopped it.
    Stopped,
    /// It could not go on.
    Failed,
    /// The Lab was stopped in the middle of it.
    Interrupted,
    /// It reached one of its limits.
    Exhausted,
}

/// A run, without what happened in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Which.
    pub id: RunId,
    /// In which project.
    pub project: ProjectId,
    /// In which conversation.
    pub conversation: ConversationId,
    /// The message that it makes.
    pub message: MessageId,
    /// What it is.
    pub kind: RunKind,
    /// As the database knows it: a quarter of a second late at most.
    pub state: RunState,
    /// The number of the last event when it ended; 0 before.
    pub last_seq: u64,
    /// What it cost in nano-credits when it ended; 0 before.
    pub cost_nano: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970; `None` while it is not over.
    pub ended_at: Option<i64>,
}

/// A run that begins, with the messages that it needs.
#[derive(Debug)]
pub struct RunBeginning<'a> {
    /// The run.
    pub run: RunId,
    /// In which conversation.
    pub conversation: ConversationId,
    /// Below which message; `None` for the conversation's beginning.
    pub parent: Option<MessageId>,
    /// What its owner says first, between the parent and the answer.
    pub says: Option<Content>,
    /// What it is.
    pub kind: RunKind,
    /// What is wanted.
    pub order: &'a Order,
}

/// A run that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBegun {
    /// It.
    pub run: Run,
    /// The message that its owner's words became.
    pub asked: Option<MessageId>,
    /// The model's message that it follows, which another run may still make.
    pub follows: Option<MessageId>,
}

/// What is new about a run that works.
#[derive(Debug)]
pub struct RunProgress {
    /// Which.
    pub run: RunId,
    /// Whose.
    pub owner: UserId,
    /// Its conversation's key.
    pub key: Key,
    /// What happened since, without gaps; may be empty.
    pub events: Vec<Arc<Numbered>>,
    /// Where it is now, if that is new.
    pub state: Option<RunState>,
    /// How it ended, if it has.
    pub end: Option<RunEnd>,
}

/// What is kept of a run that is over.
#[derive(Debug)]
pub struct RunEnd {
    /// The message that it made.
    pub message: MessageId,
    /// What that says.
    pub content: Content,
    /// The number of its last event.
    pub last_seq: u64,
    /// Nano-credits.
    pub cost_nano: i64,
}

/// A run that a Lab before this one did not bring to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedRun {
    /// Whose.
    pub owner: UserId,
    /// It.
    pub run: Run,
}

impl RunState {
    const UNFINISHED: [Self; 3] = [Self::Queued, Self::Running, Self::Waiting];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Exhausted => "exhausted",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        Ok(match text {
            "queued" => Self::Queued,
            "running" => Self::Running,
            "waiting" => Self::Waiting,
            "done" => Self::Done,
            "stopped" => Self::Stopped,
            "failed" => Self::Failed,
            "interrupted" => Self::Interrupted,
            "exhausted" => Self::Exhausted,
            _ => return Err(StoreError::Corrupt("state of a run")),
        })
    }

    /// Where a run is that ended so.
    #[must_use]
    pub const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Stopped => Self::Stopped,
            Outcome::Failed { .. } => Self::Failed,
            Outcome::Interrupted => Self::Interrupted,
            Outcome::Exhausted { .. } => Self::Exhausted,
        }
    }

    /// Whether nothing follows any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        !Self::UNFINISHED.contains(&self)
    }
}

impl Store {
    /// Begins a run: what its owner says, the empty message that it is to fill, and the run itself, all or nothing. The conversation
    /// then ends in that message.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such conversation, or that has no such message; [`StoreError::Refused`] when the
    /// new message cannot stand there.
    pub async fn begin_run(&self, owner: UserId, key: &Key, beginning: RunBeginning<'_>) -> Result<RunBegun, StoreError> {
        let RunBeginning { run, conversation, parent, says, kind, order } = beginning;
        let name = run.to_string();
        let order = sealed(key, order_place(&name), order)?;
        let transaction = self.write().await?;
        let project = conversations::of_owner(&transaction, owner, conversation).await?.project_id;
        let mut follows = parent;
        if let Some(parent) = parent {
            let above = messages::of_conversation(&transaction, owner, conversation, parent).await?.open(key)?;
            match (above.role, &says) {
                (Role::Assistant, Some(_)) => {}
                (Role::User, None) => follows = above.parent,
                _ => return Err(StoreError::Refused("an answer stands below a person's words, and these below an answer")),
            }
        } else if says.is_none() {
            return Err(StoreError::Refused("there is nothing to answer; say something, or name what was said"));
        }
        let (mut parent, mut asked) = (parent, None);
        if let Some(content) = says {
            let said = Said { conversation, parent, role: Role::User, content, run: None };
            asked = Some(messages::append(&transaction, key, owner, said).await?.id);
            parent = asked;
        }
        let empty = Said { conversation, parent, role: Role::Assistant, content: Content::default(), run: Some(run) };
        let message = messages::append(&transaction, key, owner, empty).await?;
        let row = entity::ActiveModel {
            id: Set(name),
            user_id: Set(owner.to_string()),
            project_id: Set(project),
            conversation_id: Set(conversation.to_string()),
            message_id: Set(message.id.to_string()),
            kind: Set(kind.as_str().to_owned()),
            state: Set(RunState::Queued.as_str().to_owned()),
            order_sealed: Set(order),
            last_seq: Set(0),
            cost_nano: Set(0),
            created_at: Set(message.created_at),
            ended_at: Set(None),
        };
        let row = row.insert(&transaction).await?;
        transaction.commit().await?;
        Ok(RunBegun { run: row.try_into()?, asked, follows })
    }

    /// One run, if it is this person's.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run(&self, owner: UserId, run: RunId) -> Result<Option<Run>, StoreError> {
        of(owner).filter(entity::Column::Id.eq(run.to_string())).one(&self.db).await?.map(Run::try_from).transpose()
    }

    /// What was wanted of a run of this person's.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when they have no such run, [`StoreError::Vault`] when it does not open.
    pub async fn run_order(&self, owner: UserId, run: RunId) -> Result<Order, StoreError> {
        let row = of(owner).filter(entity::Column::Id.eq(run.to_string())).one(&self.db).await?;
        let row = row.ok_or(StoreError::Missing("run"))?;
        let key = key_of(&self.vault, Scope::Conversation(owner, id(&row.conversation_id, "conversation id")?), "run").await?;
        unsealed(&key, order_place(&row.id), &row.order_sealed)
    }

    /// The runs of a conversation, newest first: at most `limit` after `after`, and where to go on.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such conversation.
    pub async fn runs(
        &self,
        owner: UserId,
        conversation: ConversationId,
        after: Option<Bookmark<RunId>>,
        limit: u64,
    ) -> Result<(Vec<Run>, Option<Bookmark<RunId>>), StoreError> {
        conversations::of_owner(&self.db, owner, conversation).await?;
        let mut find = of(owner).filter(entity::Column::ConversationId.eq(conversation.to_string()));
        if let Some(Bookmark { time, id }) = after {
            let same_time = entity::Column::CreatedAt.eq(time).and(entity::Column::Id.lt(id.to_string()));
            find = find.filter(entity::Column::CreatedAt.lt(time).or(same_time));
        }
        let find = find.order_by_desc(entity::Column::CreatedAt).order_by_desc(entity::Column::Id);
        let rows = find.limit(limit.saturating_add(1)).all(&self.db).await?;
        let mut runs = rows.into_iter().map(Run::try_from).collect::<Result<Vec<_>, _>>()?;
        let kept = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = runs.len() > kept;
        runs.truncate(kept);
        let next = runs.last().filter(|_| more).map(|last| Bookmark { time: last.created_at, id: last.id });
        Ok((runs, next))
    }

    /// Runs that are not over, of everybody: for the Lab that starts, which knows that nobody works on them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn unfinished_runs(&self) -> Result<Vec<UnfinishedRun>, StoreError> {
        let states = RunState::UNFINISHED.map(RunState::as_str);
        let rows = entity::Entity::find().filter(entity::Column::State.is_in(states)).all(&self.db).await?;
        rows.into_iter().map(|row| Ok(UnfinishedRun { owner: id(&row.user_id, "user id")?, run: row.try_into()? })).collect()
    }

    /// What happened in a run of this person's behind the event `after`, the oldest first; a part of it where it is long, and nothing
    /// where nothing more is written.
    ///
    /// # Errors
    /// [`StoreError::Vault`] when something does not open, and when the database fails.
    pub async fn run_events(&self, owner: UserId, run: &Run, after: u64) -> Result<Vec<Numbered>, StoreError> {
        let key = key_of(&self.vault, Scope::Conversation(owner, run.conversation), "run").await?;
        let theirs = of(owner).select_only().column(entity::Column::Id).filter(entity::Column::Id.eq(run.id.to_string()));
        let rows = events::Entity::find()
            .filter(events::Column::RunId.in_subquery(theirs.into_query()))
            .filter(events::Column::LastSeq.gt(stored(after)))
            .order_by_asc(events::Column::FirstSeq)
            .limit(ROWS)
            .all(&self.db)
            .await?;
        let mut all = Vec::new();
        for row in rows {
            let place = events_place(&row.run_id, row.first_seq);
            let events: Vec<Numbered> = unsealed(&key, place, &row.frames_sealed)?;
            all.extend(events.into_iter().filter(|event| event.seq > after));
        }
        Ok(all)
    }

    /// The number of the last event of a run that is written; 0 for none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn last_event(&self, run: RunId) -> Result<u64, StoreError> {
        let last: Option<Option<i64>> = events::Entity::find()
            .select_only()
            .expr(events::Column::LastSeq.max())
            .filter(events::Column::RunId.eq(run.to_string()))
            .into_tuple()
            .one(&self.db)
            .await?;
        Ok(last.flatten().and_then(|last| u64::try_from(last).ok()).unwrap_or(0))
    }

    /// How many rows hold all runs' events: what is said is written together, so these are fewer. For measurements.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run_event_rows(&self) -> Result<u64, StoreError> {
        Ok(events::Entity::find().count(&self.db).await?)
    }

    /// Writes what is new about runs, all or nothing, and gives those that are gone: somebody deleted their conversation.
    ///
    /// # Errors
    /// When the database fails; nothing is written then.
    pub async fn write_progress(&self, batch: &[RunProgress]) -> Result<HashSet<RunId>, StoreError> {
        let mut rows = Vec::with_capacity(batch.len());
        for progress in batch {
            if let (Some(first), Some(last)) = (progress.events.first(), progress.events.last()) {
                let run = progress.run.to_string();
                let frames = sealed(&progress.key, events_place(&run, stored(first.seq)), &progress.events)?;
                rows.push(events::ActiveModel {
                    run_id: Set(run),
                    first_seq: Set(stored(first.seq)),
                    last_seq: Set(stored(last.seq)),
                    frames_sealed: Set(frames),
                });
            }
        }
        let transaction = self.write().await?;
        let mut there = HashSet::new();
        for chunk in batch.chunks(CHUNK) {
            let ids = chunk.iter().map(|progress| progress.run.to_string());
            let found = entity::Entity::find().select_only().column(entity::Column::Id).filter(entity::Column::Id.is_in(ids));
            there.extend(found.into_tuple::<String>().all(&transaction).await?);
        }
        rows.retain(|row| row.run_id.try_as_ref().is_some_and(|run| there.contains(run)));
        while !rows.is_empty() {
            let chunk: Vec<_> = rows.drain(..rows.len().min(CHUNK)).collect();
            events::Entity::insert_many(chunk).exec_without_returning(&transaction).await?;
        }
        let mut gone = HashSet::new();
        for progress in batch {
            if !there.contains(&progress.run.to_string()) {
                gone.insert(progress.run);
                continue;
            }
            if let Some(state) = progress.state {
                let mut update = entity::Entity::update_many()
                    .filter(entity::Column::Id.eq(progress.run.to_string()))
                    .col_expr(entity::Column::State, Expr::value(state.as_str()));
                if let Some(end) = &progress.end {
                    update = update
                        .col_expr(entity::Column::LastSeq, Expr::value(stored(end.last_seq)))
                        .col_expr(entity::Column::CostNano, Expr::value(end.cost_nano))
                        .col_expr(entity::Column::EndedAt, Expr::value(now_ms()));
                }
                update.exec(&transaction).await?;
            }
            if let Some(end) = &progress.end {
                // One that was deleted meanwhile stays deleted.
                messages::rewrite(&transaction, &progress.key, progress.owner, end.message, &end.content).await?;
            }
        }
        transaction.commit().await?;
        Ok(gone)
    }
}

/// A person's runs.
fn of(owner: UserId) -> Select<entity::Entity> {
    entity::Entity::find().filter(entity::Column::UserId.eq(owner.to_string()))
}

fn order_place(run: &str) -> Place<'_> {
    Place { table: "runs", column: "order", row: run, version: 0 }
}

fn events_place(run: &str, first: i64) -> Place<'_> {
    Place { table: "run_events", column: "frames", row: run, version: first }
}

/// Numbers of events are bounded far below.
fn stored(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

impl RunKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Agent => "agent",
        }
    }
}

impl TryFrom<entity::Model> for Run {
    type Error = StoreError;

    fn try_from(row: entity::Model) -> Result<Self, StoreError> {
        let kind = match row.kind.as_str() {
            "chat" => RunKind::Chat,
            "agent" => RunKind::Agent,
            _ => return Err(StoreError::Corrupt("kind of a run")),
        };
        Ok(Self {
            id: id(&row.id, "run id")?,
            project: id(&row.project_id, "project id")?,
            conversation: id(&row.conversation_id, "conversation id")?,
            message: id(&row.message_id, "message id")?,
            kind,
            state: RunState::parse(&row.state)?,
            last_seq: u64::try_from(row.last_seq).map_err(|_| StoreError::Corrupt("number of an event"))?,
            cost_nano: row.cost_nano,
            created_at: row.created_at,
            ended_at: row.ended_at,
        })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "runs")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub project_id: String,
        pub conversation_id: String,
        pub message_id: String,
        pub kind: String,
        pub state: String,
        pub order_sealed: Vec<u8>,
        pub last_seq: i64,
        pub cost_nano: i64,
        pub created_at: i64,
        pub ended_at: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod events {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "run_events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub run_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub first_seq: i64,
        pub last_seq: i64,
        pub frames_sealed: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
