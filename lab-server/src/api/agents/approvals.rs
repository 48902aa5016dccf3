//! `/api/approvals`: what runs ask their owner, on whichever device they are.

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{ApprovalId, ConversationId, ProjectId, RunId};

use super::super::{Api, Object, Session};
use crate::{
    error::{ApiError, ErrorBody},
    lab::{
        agent::{AnswerError, Remember, Remembered},
        tools::policy::Targets,
    },
    store::{Approval, ApprovalState, Question},
};

/// What a run asks.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Approval)]
pub(crate) struct ApprovalView {
    /// Which.
    #[schema(value_type = String)]
    id: ApprovalId,
    /// In which project.
    #[schema(value_type = String)]
    project: ProjectId,
    /// In which conversation.
    #[schema(value_type = String)]
    conversation: ConversationId,
    /// Whose question it is.
    #[schema(value_type = String)]
    run: RunId,
    /// Where it stands.
    state: ApprovalState,
    /// What is asked, with all of a call's arguments.
    question: Question,
    /// Milliseconds since 1970.
    asked_at: i64,
    /// Milliseconds since 1970; `null` while nobody has answered.
    decided_at: Option<i64>,
}

/// Everything that waits for an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Approvals {
    data: Vec<ApprovalView>,
}

/// Characters of what an owner says beside an answer.
const MAX_WORDS: usize = 2000;

/// An answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApprovalAnswer)]
pub(crate) struct AnswerBody {
    /// Whether it may.
    decision: Decision,
    /// What the model is told about it: why not, or what to do instead. Nobody needs to say anything.
    #[schema(max_length = 2000)]
    words: Option<String>,
    /// How far the answer reaches; this question only without it. A plan is agreed to once.
    remember: Option<RememberBody>,
}

/// Whether it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decision {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// How far an answer reaches beyond its question.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Remember)]
pub(crate) struct RememberBody {
    /// For how long.
    scope: Scope,
    /// About which targets; they must cover what was asked. A tool of a server is remembered as a whole.
    targets: Targets,
}

/// For how long an answer is remembered.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RememberScope)]
pub(crate) enum Scope {
    /// As long as the run.
    Run,
    /// As a rule of the project's, until that is removed.
    Project,
}

/// What all of the account's runs ask, oldest first.
#[utoipa::path(
    get, path = "/api/approvals", operation_id = "list_approvals", tag = "agents", security(("session" = [])),
    responses(
        (status = 200, description = "What waits for an answer.", body = Approvals),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn list(State(Api(api)): State<Api>, session: Session) -> Result<Json<Approvals>, ApiError> {
    let pending = api.store.pending_approvals(session.user).await?;
    Ok(Json(Approvals { data: pending.into_iter().map(ApprovalView::from).collect() }))
}

/// One question, answered or not.
#[utoipa::path(
    get, path = "/api/approvals/{id}", operation_id = "show_approval", tag = "agents", security(("session" = [])),
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The question.", body = ApprovalView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn show(
    State(Api(api)): State<Api>,
    session: Session,
    Path(approval): Path<String>,
) -> Result<Json<ApprovalView>, ApiError> {
    Ok(Json(api.store.approval(session.user, id(&approval)?).await?.into()))
}

/// Answers a question. The run goes on at once.
#[utoipa::path(
    post, path = "/api/approvals/{id}", operation_id = "answer_approval", tag = "agents", security(("session" = [])),
    params(("id" = String, Path)), request_body = AnswerBody,
    responses(
        (status = 200, description = "The question with its answer.", body = ApprovalView),
        (status = "4XX", description = "Why not; `already_answered` when somebody was first, or the run is over.", body = ErrorBody)
    )
)]
pub(super) async fn answer(
    State(Api(api)): State<Api>,
    session: Session,
    Path(approval): Path<String>,
    body: Result<Object<AnswerBody>, JsonRejection>,
) -> Result<Json<ApprovalView>, ApiError> {
    let approval = id(&approval)?;
    let Object(AnswerBody { decision, words, remember }) = body?;
    let words = words.unwrap_or_default();
    if words.chars().count() > MAX_WORDS {
        return Err(ApiError::InvalidField { field: "words", expected: "at most 2000 characters" });
    }
    let remember = remember.map(|RememberBody { scope, targets }| Remember {
        scope: match scope {
            Scope::Run => Remembered::Run,
            Scope::Project => Remembered::Project,
        },
        targets,
    });
    let answered = api.approvals.answer(session.user, approval, decision == Decision::Allow, words, remember).await;
    Ok(Json(answered?.into()))
}

fn id(text: &str) -> Result<ApprovalId, ApiError> {
    text.parse().map_err(|_| ApiError::NotFound)
}

impl From<Approval> for ApprovalView {
    fn from(approval: Approval) -> Self {
        let Approval { id, project, conversation, run, state, question, asked_at, decided_at } = approval;
        Self { id, project, conversation, run, state, question, asked_at, decided_at }
    }
}

impl From<AnswerError> for ApiError {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Decided => Self::AlreadyAnswered,
            AnswerError::Unfitting => Self::InvalidField {
                field: "remember",
                expected: "about targets that cover what was asked, and for a call of a tool",
            },
            AnswerError::Store(error) => error.into(),
        }
    }
}
