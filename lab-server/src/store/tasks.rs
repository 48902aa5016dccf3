//! A project's board: what is to be done, by whom, how far it is.

use std::{fmt, str::FromStr};

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, PaginatorTrait,
    QueryFilter, QueryOrder, Select,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{ProjectId, TaskId, UserId};

use super::{Store, StoreError, id, key_of, now_ms, off_runtime, projects, sealed, unsealed};
use crate::vault::{Key, Place, Scope};

/// Tasks of a project at most: a board is seen as a whole.
const MAX_TASKS: u64 = 2000;
/// Between two neighbours on a board that was just put in order: twenty tasks can be put between them, each before the last, until
/// it is put in order again.
const GAP: i64 = 1 << 20;

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Which.
    pub id: TaskId,
    /// In which project.
    pub project: ProjectId,
    /// How far it is.
    pub state: TaskState,
    /// One line.
    pub title: String,
    /// Markdown.
    pub body: String,
    /// Who is to do it.
    pub assignee: Option<Assignee>,
    /// Grows with each change, but not with its place on the board.
    pub version: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Nobody has begun.
    Open,
    /// Somebody is at it.
    InProgress,
    /// It is done.
    Done,
    /// It is not to be done any more.
    Cancelled,
}

/// Who is to do a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Assignee {
    /// The project's owner.
    Person,
    /// An agent or a model.
    Agent {
        /// As it is called.
        #[schema(min_length = 1, max_length = 200)]
        name: String,
    },
}

/// A task to be; it comes last on the board.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// How far it is.
    pub state: TaskState,
    /// One line.
    pub title: String,
    /// Markdown.
    pub body: String,
    /// Who is to do it.
    pub assignee: Option<Assignee>,
}

/// What is to be another; `None` stays.
#[derive(Debug, Clone, Default)]
pub struct TaskChange {
    /// How far it is.
    pub state: Option<TaskState>,
    /// One line.
    pub title: Option<String>,
    /// Markdown.
    pub body: Option<String>,
    /// Who is to do it; `Some(None)` for nobody.
    pub assignee: Option<Option<Assignee>>,
    /// Where it stands.
    pub place: Option<TaskPlace>,
}

/// Where a task stands on its board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskPlace {
    /// Before all others.
    First,
    /// After all others.
    Last,
    /// Right after this one.
    After(TaskId),
}

/// What is sealed of a task.
#[derive(Serialize, Deserialize)]
struct Words {
    title: String,
    body: String,
    assignee: Option<Assignee>,
}

impl Store {
    /// Puts a task on a project's board.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project, [`StoreError::Full`] when the board has no place.
    pub async fn add_task(&self, owner: UserId, project: ProjectId, new: NewTask) -> Result<Task, StoreError> {
        let key = self.project_key(owner, project).await?;
        let transaction = self.write().await?;
        projects::of_owner(&transaction, owner, project).await?;
        if of(owner, project).count(&transaction).await? >= MAX_TASKS {
            return Err(StoreError::Full("the board has 2,000 tasks, which is as many as it can have; delete some first"));
        }
        let now = now_ms();
        let task = Task {
            id: TaskId::random(),
            project,
            state: new.state,
            title: new.title,
            body: new.body,
            assignee: new.assignee,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let position = position(&transaction, owner, project, task.id, TaskPlace::Last).await?;
        task.row(owner, position, &key)?.into_active_model().insert(&transaction).await?;
        transaction.commit().await?;
        Ok(task)
    }

    /// A project's tasks, as they stand on the board.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project.
    pub async fn tasks(&self, owner: UserId, project: ProjectId) -> Result<Vec<Task>, StoreError> {
        projects::of_owner(&self.db, owner, project).await?;
        let rows = in_order(of(owner, project)).all(&self.db).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let key = key_of(&self.vault, Scope::Project(owner, project), "project").await?;
        off_runtime(move || rows.into_iter().map(|row| row.open(&key)).collect()).await
    }

    /// One task, if it is this person's.
    ///
    /// # Errors
    /// When the database fails, or what is stored was changed.
    pub async fn task(&self, owner: UserId, task: TaskId) -> Result<Option<Task>, StoreError> {
        let Some(row) = own(owner, task).one(&self.db).await? else { return Ok(None) };
        let scope = Scope::Project(owner, id(&row.project_id, "project id")?);
        row.open(&key_of(&self.vault, scope, "task").await?).map(Some)
    }

    /// Changes a task. With `seen`, only as long as it is still of that version.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such task, [`StoreError::Stale`] when it was changed meanwhile.
    pub async fn update_task(
        &self,
        owner: UserId,
        task: TaskId,
        seen: Option<i64>,
        change: TaskChange,
    ) -> Result<Task, StoreError> {
        let row = own(owner, task).one(&self.db).await?.ok_or(StoreError::Missing("task"))?;
        let project = id(&row.project_id, "project id")?;
        let key = key_of(&self.vault, Scope::Project(owner, project), "task").await?;
        let transaction = self.write().await?;
        let row = own(owner, task).one(&transaction).await?.ok_or(StoreError::Missing("task"))?;
        if seen.is_some_and(|seen| seen != row.version) {
            return Err(StoreError::Stale("task"));
        }
        let mut position_now = row.position;
        let mut changed = row.open(&key)?;
        if let Some(place) = change.place {
            position_now = position(&transaction, owner, project, task, place).await?;
        }
        changed.state = change.state.unwrap_or(changed.state);
        changed.title = change.title.unwrap_or(changed.title);
        changed.body = change.body.unwrap_or(changed.body);
        changed.assignee = change.assignee.unwrap_or(changed.assignee);
        changed.version += 1;
        changed.updated_at = now_ms().max(changed.updated_at);
        changed.row(owner, position_now, &key)?.into_active_model().reset_all().update(&transaction).await?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// Takes a task off its board for good.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such task.
    pub async fn delete_task(&self, owner: UserId, task: TaskId) -> Result<(), StoreError> {
        let deleted = entity::Entity::delete_many()
            .filter(entity::Column::Id.eq(task.to_string()))
            .filter(entity::Column::UserId.eq(owner.to_string()))
            .exec(&self.db)
            .await?;
        if deleted.rows_affected == 0 { Err(StoreError::Missing("task")) } else { Ok(()) }
    }
}

/// The number that puts `task` there among the others.
async fn position(
    transaction: &DatabaseTransaction,
    owner: UserId,
    project: ProjectId,
    task: TaskId,
    place: TaskPlace,
) -> Result<i64, StoreError> {
    let own = task.to_string();
    let mut others = in_order(of(owner, project)).filter(entity::Column::Id.ne(&own)).all(transaction).await?;
    let index = match place {
        TaskPlace::First => 0,
        TaskPlace::Last => others.len(),
        TaskPlace::After(before) => {
            let before = before.to_string();
            others.iter().position(|other| other.id == before).ok_or(StoreError::Missing("task"))? + 1
        }
    };
    if let Some(position) = between(&others, index) {
        return Ok(position);
    }
    let mut position = 0;
    for other in &mut others {
        position += GAP;
        other.position = position;
        let mut row = other.clone().into_active_model();
        row.position = Set(position);
        row.update(transaction).await?;
    }
    between(&others, index).ok_or(StoreError::Corrupt("position"))
}

/// A number between the neighbours of `index`, where there is one.
fn between(others: &[entity::Model], index: usize) -> Option<i64> {
    let before = index.checked_sub(1).and_then(|before| others.get(before)).map(|other| other.position);
    match (before, others.get(index).map(|other| other.position)) {
        (None, None) => Some(GAP),
        (Some(before), None) => before.checked_add(GAP),
        (None, Some(after)) => after.checked_sub(GAP),
        (Some(before), Some(after)) => {
            let middle = before + (after - before) / 2;
            (before < middle && middle < after).then_some(middle)
        }
    }
}

fn of(owner: UserId, project: ProjectId) -> Select<entity::Entity> {
    entity::Entity::find()
        .filter(entity::Column::UserId.eq(owner.to_string()))
        .filter(entity::Column::ProjectId.eq(project.to_string()))
}

fn own(owner: UserId, task: TaskId) -> Select<entity::Entity> {
    entity::Entity::find().filter(entity::Column::Id.eq(task.to_string())).filter(entity::Column::UserId.eq(owner.to_string()))
}

fn in_order(tasks: Select<entity::Entity>) -> Select<entity::Entity> {
    tasks.order_by_asc(entity::Column::Position).order_by_asc(entity::Column::Id)
}

fn place(row: &str, version: i64) -> Place<'_> {
    Place { table: "tasks", column: "content", row, version }
}

impl Task {
    fn row(&self, owner: UserId, position: i64, key: &Key) -> Result<entity::Model, StoreError> {
        let row = self.id.to_string();
        let words = Words { title: self.title.clone(), body: self.body.clone(), assignee: self.assignee.clone() };
        Ok(entity::Model {
            content_sealed: sealed(key, place(&row, self.version), &words)?,
            id: row,
            user_id: owner.to_string(),
            project_id: self.project.to_string(),
            state: self.state.to_string(),
            position,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

impl entity::Model {
    fn open(self, key: &Key) -> Result<Task, StoreError> {
        let Words { title, body, assignee } = unsealed(key, place(&self.id, self.version), &self.content_sealed)?;
        Ok(Task {
            id: id(&self.id, "task id")?,
            project: id(&self.project_id, "project id")?,
            state: id(&self.state, "task state")?,
            title,
            body,
            assignee,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::InProgress => "in_progress",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        })
    }
}

impl FromStr for TaskState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "open" => Ok(Self::Open),
            "in_progress" => Ok(Self::InProgress),
            "done" => Ok(Self::Done),
            "cancelled" => Ok(Self::Cancelled),
            _ => Err(()),
        }
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tasks")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub project_id: String,
        pub state: String,
        pub position: i64,
        pub content_sealed: Vec<u8>,
        pub version: i64,
        pub created_at: i64,
        pub updated_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
