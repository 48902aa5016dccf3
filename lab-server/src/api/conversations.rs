//! Conversations and their messages: `/api/conversations`.

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    routing::{get, post},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, OpenApi, ToSchema};
use wire::{ConversationId, FileId, FolderId, MessageId, ProjectId, RunId, UserId};

use super::{
    Api, Inner, Object, Page, Session, bookmark, nullable,
    requests::{INVALID_QUERY, limit},
};
use crate::{
    error::{ApiError, ErrorBody},
    lab::{
        content::{Content, ModelChoice, Part},
        operations::Action,
    },
    store::{
        AT_ONCE, Conversation, ConversationChange, ConversationFilter, ConversationSettings, FileRef, Message, NewConversation,
        Role, StoreError,
    },
};

/// Bytes of text in a message at most.
const MAX_TEXT: usize = 1024 * 1024;
/// Pieces of a message at most.
const MAX_PARTS: usize = 64;
/// A body with such a message, with what JSON may need to write it.
const MAX_MESSAGE_BODY: usize = 3 * MAX_TEXT;
/// Characters of a title at most.
const MAX_TITLE: usize = 200;
/// Bytes of instructions at most.
pub(super) const MAX_INSTRUCTIONS: usize = 64 * 1024;
/// Bytes of a title that is made of a conversation's first words.
const FIRST_WORDS: usize = 80;
/// How many of a conversation's newest runs are looked at when it is deleted: more do not run at once.
const RUNS: u64 = 1000;
/// What instructions must be.
pub(super) const INSTRUCTIONS: &str = "at most 64 KiB of text";

pub(super) fn routes() -> Router<Api> {
    let message = DefaultBodyLimit::max(MAX_MESSAGE_BODY);
    Router::new()
        .route("/api/conversations", get(list).post(create))
        .route("/api/conversations/{id}", get(show).patch(change).delete(delete))
        .route("/api/conversations/{id}/fork", post(fork))
        .route("/api/conversations/{id}/messages", get(messages).post(say).layer(message))
        .route("/api/conversations/{id}/branch", get(branch))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(list, create, show, change, delete, fork, messages, say, branch),
    tags((name = "conversations", description = "Conversations are trees of messages. A message that is said otherwise, or an answer \
                                                 that is made once more, is another child of the same parent."))
)]
struct Description;

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Conversation)]
pub(crate) struct ConversationView {
    /// Which.
    #[schema(value_type = String)]
    id: ConversationId,
    /// Which project it belongs to.
    #[schema(value_type = String)]
    project: ProjectId,
    /// Which folder it lies in.
    #[schema(value_type = Option<String>)]
    folder: Option<FolderId>,
    /// Its title, else its first words, else empty.
    title: String,
    /// Whether somebody gave it this title.
    titled: bool,
    /// How it is held.
    settings: ConversationSettings,
    /// The last message of the branch that is read.
    #[schema(value_type = Option<String>)]
    leaf: Option<MessageId>,
    /// Whether it stays on top.
    pinned: bool,
    /// Milliseconds since 1970 when it was put away.
    archived_at: Option<i64>,
    /// Grows with each change of what is above, but not with messages.
    version: i64,
    /// Milliseconds since 1970.
    created_at: i64,
    /// Milliseconds since 1970 of the last message or change.
    updated_at: i64,
}

/// A message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Message)]
pub(crate) struct MessageView {
    /// Which.
    #[schema(value_type = String)]
    id: MessageId,
    /// What it follows; `null` for a beginning. Those with the same parent are branches.
    #[schema(value_type = Option<String>)]
    parent: Option<MessageId>,
    /// Who says it.
    role: Role,
    /// What is said.
    content: Content,
    /// The run that makes or made it.
    #[schema(value_type = Option<String>)]
    run: Option<RunId>,
    /// Grows with each change of the content.
    version: i64,
    /// Milliseconds since 1970; later messages of a conversation have later times.
    created_at: i64,
}

/// The end of a branch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Messages {
    /// Its messages, oldest first.
    data: Vec<MessageView>,
    /// The message that the first of these follows, where the branch is longer than some megabytes: the `leaf` of what comes before.
    #[schema(value_type = Option<String>)]
    earlier: Option<MessageId>,
}

/// A conversation to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewConversation)]
pub(crate) struct NewConversationBody {
    /// Which project it belongs to.
    #[schema(value_type = String, max_length = 64)]
    project: ProjectId,
    /// Which folder it lies in.
    #[schema(value_type = Option<String>, max_length = 64)]
    folder: Option<FolderId>,
    /// 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    title: Option<String>,
    /// How it is held.
    settings: Option<ConversationSettings>,
}

/// What is to be another; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConversationChange)]
pub(crate) struct ConversationChangeBody {
    /// The version that was seen: if it is another one by now, nothing is changed.
    #[schema(minimum = 1)]
    version: Option<i64>,
    /// 1 to 200 characters; `null` for its first words.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    title: Option<Option<String>>,
    /// `null` for none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 64)]
    folder: Option<Option<FolderId>>,
    /// All settings together.
    settings: Option<ConversationSettings>,
    /// The last message of the branch that is to be read.
    #[schema(value_type = Option<String>, max_length = 64)]
    leaf: Option<MessageId>,
    /// Whether it stays on top.
    pinned: Option<bool>,
    /// Whether it is put away.
    archived: Option<bool>,
}

/// What somebody says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMessage {
    /// What it follows; `null` or left out for a beginning.
    #[schema(value_type = Option<String>, max_length = 64)]
    parent: Option<MessageId>,
    /// What is said: 1 to 64 pieces, at most 1 MiB of text together.
    #[schema(min_items = 1, max_items = 64)]
    parts: Vec<NewPart>,
}

/// A piece of what somebody says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum NewPart {
    /// Words, as Markdown.
    Text {
        /// They.
        #[schema(max_length = 1_048_576)]
        text: String,
    },
    /// A file of the conversation's project.
    File {
        /// Which.
        #[schema(value_type = String, max_length = 64)]
        file: FileId,
        /// Which version; else the newest.
        #[schema(minimum = 1)]
        version: Option<i64>,
    },
}

/// Up to where.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fork {
    /// The last message of the new conversation.
    #[schema(value_type = String, max_length = 64)]
    message: MessageId,
}

/// Which conversations are meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConversationQuery {
    /// Those of this project.
    #[param(max_length = 64)]
    project: Option<String>,
    /// Those of this folder.
    #[param(max_length = 64)]
    folder: Option<String>,
    /// Those that are put away, or those that are not; else both.
    archived: Option<bool>,
    /// Those that stay on top, or those that do not; else both.
    pinned: Option<bool>,
    /// What the page before gave as `next`.
    #[param(max_length = 128)]
    cursor: Option<String>,
    /// Conversations on a page: 1 to 1000, else 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// What the page before gave as `next`.
    #[param(max_length = 128)]
    cursor: Option<String>,
    /// Entries on a page: 1 to 1000, else 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

/// Which branch.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct BranchQuery {
    /// Its last message; else that of the branch that is read.
    #[param(max_length = 64)]
    leaf: Option<String>,
}

/// Conversations, those that were used last first.
#[utoipa::path(
    get, path = "/api/conversations", operation_id = "list_conversations", tag = "conversations", security(("session" = [])),
    params(ConversationQuery),
    responses(
        (status = 200, description = "A page of conversations.", body = Page<ConversationView>),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn list(
    State(Api(api)): State<Api>,
    session: Session,
    query: Result<Query<ConversationQuery>, QueryRejection>,
) -> Result<Json<Page<ConversationView>>, ApiError> {
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let filter = ConversationFilter {
        project: query.project.as_deref().map(id).transpose()?,
        folder: query.folder.as_deref().map(id).transpose()?,
        archived: query.archived,
        pinned: query.pinned,
    };
    let after = bookmark(query.cursor.as_deref())?;
    let (found, next) = api.store.conversations(session.user, filter, after, limit(query.limit)?).await?;
    let mut data = Vec::with_capacity(found.len());
    for conversation in found {
        data.push(view(&api, session.user, conversation).await?);
    }
    Ok(Json(Page { data, next: next.map(|next| next.to_string()) }))
}

/// Begins a conversation.
#[utoipa::path(
    post, path = "/api/conversations", operation_id = "create_conversation", tag = "conversations", security(("session" = [])),
    request_body = NewConversationBody,
    responses(
        (status = 201, description = "The new conversation.", body = ConversationView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn create(
    State(Api(api)): State<Api>,
    session: Session,
    body: Result<Object<NewConversationBody>, JsonRejection>,
) -> Result<(StatusCode, Json<ConversationView>), ApiError> {
    let Object(body) = body?;
    let title = body.title.map(title).transpose()?;
    let settings = settings(body.settings.unwrap_or_default())?;
    let new = NewConversation { project: body.project, folder: body.folder, title, settings };
    let made = api.store.add_conversation(session.user, new).await?;
    api.did(session.user, made.project, Action::ConversationCreated, made.id, json!(null)).await?;
    Ok((StatusCode::CREATED, Json(view(&api, session.user, made).await?)))
}

/// One conversation.
#[utoipa::path(
    get, path = "/api/conversations/{id}", operation_id = "show_conversation", tag = "conversations", security(("session" = [])),
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The conversation.", body = ConversationView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn show(
    State(Api(api)): State<Api>,
    session: Session,
    Path(conversation): Path<String>,
) -> Result<Json<ConversationView>, ApiError> {
    let found = api.store.conversation(session.user, id(&conversation)?).await?.ok_or(ApiError::NotFound)?;
    Ok(Json(view(&api, session.user, found).await?))
}

/// Names, moves, pins or puts away a conversation, or chooses its branch.
#[utoipa::path(
    patch, path = "/api/conversations/{id}", operation_id = "change_conversation", tag = "conversations",
    security(("session" = [])), params(("id" = String, Path)), request_body = ConversationChangeBody,
    responses(
        (status = 200, description = "The conversation as it is now.", body = ConversationView),
        (status = "4XX", description = "Why not; `changed_meanwhile` when `version` is not its version any more.", body = ErrorBody)
    )
)]
pub(super) async fn change(
    State(Api(api)): State<Api>,
    session: Session,
    Path(conversation): Path<String>,
    body: Result<Object<ConversationChangeBody>, JsonRejection>,
) -> Result<Json<ConversationView>, ApiError> {
    let conversation = id(&conversation)?;
    let Object(body) = body?;
    // Which branch is read, and what stays on top, is nothing that was done in the project.
    let told = body.title.is_some() || body.folder.is_some() || body.settings.is_some() || body.archived.is_some();
    let change = ConversationChange {
        title: body.title.map(|given| given.map(title).transpose()).transpose()?,
        folder: body.folder,
        settings: body.settings.map(settings).transpose()?,
        leaf: body.leaf,
        pinned: body.pinned,
        archived: body.archived,
    };
    let changed = api.store.update_conversation(session.user, conversation, body.version, change).await?;
    if told {
        api.did(session.user, changed.project, Action::ConversationChanged, conversation, json!(null)).await?;
    }
    Ok(Json(view(&api, session.user, changed).await?))
}

/// Deletes a conversation with all its messages, for good: nobody can read them any more, not even in a backup.
#[utoipa::path(
    delete, path = "/api/conversations/{id}", operation_id = "delete_conversation", tag = "conversations",
    security(("session" = [])), params(("id" = String, Path)),
    responses(
        (status = 204, description = "It is gone."),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn delete(
    State(Api(api)): State<Api>,
    session: Session,
    Path(conversation): Path<String>,
) -> Result<StatusCode, ApiError> {
    let conversation = id(&conversation)?;
    let found = api.store.conversation_project(session.user, conversation).await?;
    // Whatever is at work in it stops: a workstation does not go on for what nobody can read any more.
    let (runs, _) = api.runs.list(session.user, conversation, None, RUNS).await?;
    for run in runs.iter().filter(|run| run.ended_at.is_none()) {
        api.runs.stop(session.user, run.id).await?;
    }
    api.store.delete_conversation(session.user, conversation).await?;
    api.did(session.user, found, Action::ConversationDeleted, conversation, json!(null)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begins another conversation with what was said up to a message.
#[utoipa::path(
    post, path = "/api/conversations/{id}/fork", operation_id = "fork_conversation", tag = "conversations",
    security(("session" = [])), params(("id" = String, Path)), request_body = Fork,
    responses(
        (status = 201, description = "The new conversation.", body = ConversationView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn fork(
    State(Api(api)): State<Api>,
    session: Session,
    Path(conversation): Path<String>,
    body: Result<Object<Fork>, JsonRejection>,
) -> Result<(StatusCode, Json<ConversationView>), ApiError> {
    let conversation = id(&conversation)?;
    let Object(body) = body?;
    let made = api.store.fork_conversation(session.user, conversation, body.message).await?;
    let from = json!({ "from": conversation });
    api.did(session.user, made.project, Action::ConversationCreated, made.id, from).await?;
    Ok((StatusCode::CREATED, Json(view(&api, session.user, made).await?)))
}

/// Every message of a conversation, of all branches, in the order in which they were said. A page has at most 8 MiB of messages, or one.
#[utoipa::path(
    get, path = "/api/conversations/{id}/messages", operation_id = "list_messages", tag = "conversations",
    security(("session" = [])), params(("id" = String, Path), PageQuery),
    responses(
        (status = 200, description = "A page of messages.", body = Page<MessageView>),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn messages(
    State(Api(api)): State<Api>,
    session: Session,
    Path(conversation): Path<String>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Page<MessageView>>, ApiError> {
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let after = bookmark(query.cursor.as_deref())?;
    let found = api.store.messages_page(session.user, id(&conversation)?, after, limit(query.limit)?).await?;
    let (found, next) = found;
    let data = found.into_iter().map(MessageView::from).collect();
    Ok(Json(Page { data, next: next.map(|next| next.to_string()) }))
}

/// Says something. Nobody answers yet: that is a run.
#[utoipa::path(
    post, path = "/api/conversations/{id}/messages", operation_id = "add_message", tag = "conversations",
    security(("session" = [])), params(("id" = String, Path)), request_body = NewMessage,
    responses(
        (status = 201, description = "The new message.", body = MessageView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn say(
    State(Api(api)): State<Api>,
    session: Session,
    Path(conversation): Path<String>,
    body: Result<Object<NewMessage>, JsonRejection>,
) -> Result<(StatusCode, Json<MessageView>), ApiError> {
    let conversation = id(&conversation)?;
    let Object(body) = body?;
    let content = content(&api, session.user, conversation, body.parts).await?;
    let said = api.store.add_message(session.user, conversation, body.parent, Role::User, content, None).await?;
    Ok((StatusCode::CREATED, Json(said.into())))
}

/// One branch of a conversation: all of it, or of one with more than 8 MiB the newest messages.
#[utoipa::path(
    get, path = "/api/conversations/{id}/branch", operation_id = "show_branch", tag = "conversations",
    security(("session" = [])), params(("id" = String, Path), BranchQuery),
    responses(
        (status = 200, description = "Its messages.", body = Messages),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn branch(
    State(Api(api)): State<Api>,
    session: Session,
    Path(conversation): Path<String>,
    query: Result<Query<BranchQuery>, QueryRejection>,
) -> Result<Json<Messages>, ApiError> {
    let conversation = id(&conversation)?;
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let leaf = match query.leaf {
        Some(leaf) => Some(id(&leaf)?),
        None => api.store.conversation(session.user, conversation).await?.ok_or(ApiError::NotFound)?.leaf,
    };
    let Some(leaf) = leaf else { return Ok(Json(Messages { data: Vec::new(), earlier: None })) };
    let branch = api.store.path_to(session.user, conversation, leaf, AT_ONCE).await?;
    Ok(Json(Messages { data: branch.messages.into_iter().map(MessageView::from).collect(), earlier: branch.earlier }))
}

/// What somebody says, with its files as they are in the project.
async fn content(api: &Inner, owner: UserId, conversation: ConversationId, given: Vec<NewPart>) -> Result<Content, ApiError> {
    if !(1..=MAX_PARTS).contains(&given.len()) {
        return Err(ApiError::InvalidField { field: "parts", expected: "1 to 64 pieces" });
    }
    let text = |part: &NewPart| if let NewPart::Text { text } = part { text.len() } else { 0 };
    if given.iter().map(text).sum::<usize>() > MAX_TEXT {
        return Err(ApiError::InvalidField { field: "parts", expected: "at most 1 MiB of text together" });
    }
    let project = api.store.conversation_project(owner, conversation).await?;
    let mut parts = Vec::with_capacity(given.len());
    for part in given {
        parts.push(match part {
            NewPart::Text { text } => Part::Text { text },
            NewPart::File { file, version } => {
                let found = api.store.file_version(owner, project, &FileRef::Id(file), version).await?;
                let found = found.ok_or(ApiError::NotFound)?;
                let name = found.path.name().to_owned();
                Part::File { file, version: found.version, name, media_type: found.media_type }
            }
        });
    }
    Ok(Content { parts, usage: Vec::new() })
}

/// A text that is no id names nothing.
pub(super) fn id<T: std::str::FromStr>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::NotFound)
}

/// One line that people can read.
fn title(text: String) -> Result<String, ApiError> {
    let title = text.trim();
    let fits = (1..=MAX_TITLE).contains(&title.chars().count()) && !title.chars().any(char::is_control);
    let expected = "1 to 200 characters, none of them a control character";
    if fits { Ok(title.to_owned()) } else { Err(ApiError::InvalidField { field: "title", expected }) }
}

fn settings(settings: ConversationSettings) -> Result<ConversationSettings, ApiError> {
    if settings.instructions.as_ref().is_some_and(|text| text.len() > MAX_INSTRUCTIONS) {
        return Err(ApiError::InvalidField { field: "instructions", expected: INSTRUCTIONS });
    }
    settings.model.as_ref().map(model).transpose()?;
    Ok(settings)
}

/// Whether a choice of a model can be one.
pub(super) fn model(choice: &ModelChoice) -> Result<(), ApiError> {
    if !(1..=200).contains(&choice.model.len()) || choice.model.chars().any(char::is_control) {
        return Err(ApiError::InvalidField { field: "model", expected: "a model's name of at most 200 bytes" });
    }
    if choice.max_output_tokens == Some(0) {
        return Err(ApiError::InvalidField { field: "max_output_tokens", expected: "at least 1" });
    }
    if choice.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
        return Err(ApiError::InvalidField { field: "temperature", expected: "a number from 0 to 2" });
    }
    Ok(())
}

async fn view(api: &Inner, owner: UserId, conversation: Conversation) -> Result<ConversationView, ApiError> {
    let titled = conversation.title.is_some();
    let title = match conversation.title {
        Some(title) => title,
        None => match api.store.first_words(owner, conversation.id, FIRST_WORDS).await {
            // It was deleted since it was listed.
            Err(StoreError::Missing(_)) => String::new(),
            words => words?.unwrap_or_default(),
        },
    };
    Ok(ConversationView {
        id: conversation.id,
        project: conversation.project,
        folder: conversation.folder,
        title,
        titled,
        settings: conversation.settings,
        leaf: conversation.leaf,
        pinned: conversation.pinned,
        archived_at: conversation.archived_at,
        version: conversation.version,
        created_at: conversation.created_at,
        updated_at: conversation.updated_at,
    })
}

impl From<Message> for MessageView {
    fn from(message: Message) -> Self {
        Self {
            id: message.id,
            parent: message.parent,
            role: message.role,
            content: message.content,
            run: message.run,
            version: message.version,
            created_at: message.created_at,
        }
    }
}
