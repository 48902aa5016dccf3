//! Questions that runs ask their owners, and the answers. A question is asked once, answered once, and lapses with its run.

use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, Select,
    sea_query::{Expr, ExprTrait},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use wire::{ApprovalId, ConversationId, ProjectId, RunId, UserId};

use super::{Store, StoreError, id, key_of, now_ms, runs, sealed, unsealed};
use crate::vault::{Key, Place, Scope};

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct Approval {
    /// Which.
    pub id: ApprovalId,
    /// In which project its run works.
    pub project: ProjectId,
    /// In which conversation.
    pub conversation: ConversationId,
    /// Whose question it is.
    pub run: RunId,
    /// Where it stands.
    pub state: ApprovalState,
    /// What is asked.
    pub question: Question,
    /// Milliseconds since 1970.
    pub asked_at: i64,
    /// Milliseconds since 1970.
    pub decided_at: Option<i64>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Question {
    /// May it use a tool so?
    Call {
        /// Which call of the run.
        call: String,
        /// The tool.
        tool: String,
        /// What a rule could be about: a path, a host, a model, a task.
        target: String,
        /// All of its arguments.
        #[schema(value_type = Object)]
        arguments: Value,
        /// For a server's tool: what stands for its description. A rule that allows it holds as long as that stays the same.
        definition: Option<String>,
    },
    /// May it do what it has planned?
    Plan {
        /// The plan, as Markdown.
        plan: String,
    },
}

/// Where a question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Nobody has answered.
    Pending,
    /// It may.
    Allowed,
    /// It may not.
    Denied,
    /// Its run is over.
    Lapsed,
}

impl Store {
    /// Asks.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such run.
    pub async fn add_approval(&self, owner: UserId, run: RunId, question: &Question) -> Result<Approval, StoreError> {
        let run = runs_of(owner).filter(runs::entity::Column::Id.eq(run.to_string())).one(&self.db).await?;
        let run = run.ok_or(StoreError::Missing("run"))?;
        let conversation = id(&run.conversation_id, "conversation id")?;
        let key = key_of(&self.vault, Scope::Conversation(owner, conversation), "run").await?;
        let approval = Approval {
            id: ApprovalId::random(),
            project: id(&run.project_id, "project id")?,
            conversation,
            run: id(&run.id, "run id")?,
            state: ApprovalState::Pending,
            question: question.clone(),
            asked_at: now_ms(),
            decided_at: None,
        };
        let row = approval.id.to_string();
        let row = entity::Model {
            content_sealed: sealed(&key, place(&row), question)?,
            id: row,
            user_id: owner.to_string(),
            run_id: run.id,
            state: ApprovalState::Pending.as_str().to_owned(),
            asked_at: approval.asked_at,
            decided_at: None,
        };
        row.into_active_model().insert(&self.db).await?;
        Ok(approval)
    }

    /// What all of a person's runs wait for, oldest first.
    ///
    /// # Errors
    /// When the database fails, or what is stored was changed.
    pub async fn pending_approvals(&self, owner: UserId) -> Result<Vec<Approval>, StoreError> {
        let rows = of(owner)
            .filter(entity::Column::State.eq(ApprovalState::Pending.as_str()))
            .order_by_asc(entity::Column::AskedAt)
            .find_also_related(runs::entity::Entity)
            .all(&self.db)
            .await?;
        let mut pending = Vec::with_capacity(rows.len());
        for (row, run) in rows {
            match self.open_approval(owner, row, run).await {
                Ok(approval) => pending.push(approval),
                // Its conversation is being deleted.
                Err(StoreError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pending)
    }

    /// One question, if it is this person's.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is not.
    pub async fn approval(&self, owner: UserId, approval: ApprovalId) -> Result<Approval, StoreError> {
        let found = of(owner).filter(entity::Column::Id.eq(approval.to_string()));
        let found = found.find_also_related(runs::entity::Entity).one(&self.db).await?;
        let (row, run) = found.ok_or(StoreError::Missing("approval"))?;
        self.open_approval(owner, row, run).await
    }

    /// Answers a question, if nobody has yet; whether this was the answer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn answer_approval(&self, owner: UserId, approval: ApprovalId, allowed: bool) -> Result<bool, StoreError> {
        let state = if allowed { ApprovalState::Allowed } else { ApprovalState::Denied };
        self.close_approvals(state, entity::Column::Id.eq(approval.to_string()).and(entity::Column::UserId.eq(owner.to_string())))
            .await
    }

    /// What a run still asks is asked no more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lapse_approvals(&self, run: RunId) -> Result<(), StoreError> {
        self.close_approvals(ApprovalState::Lapsed, entity::Column::RunId.eq(run.to_string())).await.map(drop)
    }

    /// The same for every run that is over: a Lab that ends suddenly leaves questions behind that nobody waits for.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lapse_orphaned_approvals(&self) -> Result<(), StoreError> {
        let over = Expr::cust("run_id IN (SELECT id FROM runs WHERE ended_at IS NOT NULL)");
        self.close_approvals(ApprovalState::Lapsed, over).await.map(drop)
    }

    async fn close_approvals(&self, state: ApprovalState, which: impl Into<sea_orm::Condition>) -> Result<bool, StoreError> {
        let closed = entity::Entity::update_many()
            .col_expr(entity::Column::State, Expr::value(state.as_str()))
            .col_expr(entity::Column::DecidedAt, Expr::value(now_ms()))
            .filter(which.into())
            .filter(entity::Column::State.eq(ApprovalState::Pending.as_str()))
            .exec(&self.db)
            .await?;
        Ok(closed.rows_affected > 0)
    }

    async fn open_approval(
        &self,
        owner: UserId,
        row: entity::Model,
        run: Option<runs::entity::Model>,
    ) -> Result<Approval, StoreError> {
        let run = run.ok_or(StoreError::Missing("run"))?;
        let conversation = id(&run.conversation_id, "conversation id")?;
        let key = key_of(&self.vault, Scope::Conversation(owner, conversation), "approval").await?;
        row.open(&key, id(&run.project_id, "project id")?, conversation)
    }
}

impl ApprovalState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Lapsed => "lapsed",
        }
    }
}

fn of(owner: UserId) -> Select<entity::Entity> {
    entity::Entity::find().filter(entity::Column::UserId.eq(owner.to_string()))
}

fn runs_of(owner: UserId) -> Select<runs::entity::Entity> {
    runs::entity::Entity::find().filter(runs::entity::Column::UserId.eq(owner.to_string()))
}

/// A question is never written again: what becomes of it stands beside it.
fn place(row: &str) -> Place<'_> {
    Place { table: "approvals", column: "content_sealed", row, version: 0 }
}

impl entity::Model {
    fn open(self, key: &Key, project: ProjectId, conversation: ConversationId) -> Result<Approval, StoreError> {
        let all = [ApprovalState::Pending, ApprovalState::Allowed, ApprovalState::Denied, ApprovalState::Lapsed];
        let state = all.into_iter().find(|state| state.as_str() == self.state);
        Ok(Approval {
            question: unsealed(key, place(&self.id), &self.content_sealed)?,
            id: id(&self.id, "approval id")?,
            project,
            conversation,
            run: id(&self.run_id, "run id")?,
            state: state.ok_or(StoreError::Corrupt("approval state"))?,
            asked_at: self.asked_at,
            decided_at: self.decided_at,
        })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "approvals")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub run_id: String,
        pub state: String,
        pub content_sealed: Vec<u8>,
        pub asked_at: i64,
        pub decided_at: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {
        #[sea_orm(
            belongs_to = "crate::store::runs::entity::Entity",
            from = "Column::RunId",
            to = "crate::store::runs::entity::Column::Id"
        )]
        Run,
    }

    impl Related<crate::store::runs::entity::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::Run.def()
        }
    }

    impl ActiveModelBehavior for ActiveModel {}
}
