//! `/api/search`: finds what somebody keeps. It is a POST though it changes nothing: the words are somebody's own, and what stands in
//! an address is kept by whoever logs addresses.

use axum::{
    Json, Router,
    extract::{State, rejection::JsonRejection},
    routing::post,
};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use wire::{ConversationId, FileId, MessageId, ProjectId, TaskId};

use super::{Api, Object, Page, Session, conversations::id};
use crate::{
    error::{ApiError, ErrorBody},
    lab::search::{self, Among, Find, Found, Place},
};

/// Characters of a query at most.
const MAX_QUERY: usize = 200;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/search", post(find))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(paths(find), tags((name = "search", description = "Search in what is kept. There is no index: it is opened and looked at.")))]
struct Description;

/// What is looked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    /// Words, all of which must be there, whatever their case: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    q: String,
    /// Among what; else conversations.
    #[serde(rename = "in")]
    #[schema(inline)]
    among: Option<Kind>,
    /// In this project; else in all.
    #[schema(max_length = 64)]
    project: Option<String>,
    /// What the page before gave as `next`.
    #[schema(max_length = 256)]
    cursor: Option<String>,
}

/// What is searched.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Titles and messages.
    Conversations,
    /// Paths and texts.
    Files,
    /// Titles and bodies.
    Tasks,
}

/// Something that was found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Find)]
pub(crate) struct FindView {
    /// In which project.
    #[schema(value_type = String)]
    project: ProjectId,
    /// What.
    #[serde(flatten)]
    what: What,
    /// Milliseconds since 1970 when it was said or changed.
    time: i64,
    /// A piece of what it says.
    snippet: String,
    /// Where in the piece the words are.
    marks: Vec<Mark>,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum What {
    /// A conversation, by its title.
    Conversation {
        /// Which.
        #[schema(value_type = String)]
        conversation: ConversationId,
    },
    /// A message.
    Message {
        /// In which conversation.
        #[schema(value_type = String)]
        conversation: ConversationId,
        /// Which.
        #[schema(value_type = String)]
        message: MessageId,
    },
    /// A file.
    File {
        /// Which.
        #[schema(value_type = String)]
        file: FileId,
    },
    /// A task.
    Task {
        /// Which.
        #[schema(value_type = String)]
        task: TaskId,
    },
}

/// A word in a snippet, in UTF-16 code units.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Mark {
    /// Its first.
    start: usize,
    /// The first after it.
    end: usize,
}

/// What has all the words. A search ends after two seconds or some fifty finds; `next` is then where it goes on.
#[utoipa::path(
    post, path = "/api/search", operation_id = "search", tag = "search", security(("session" = [])), request_body = Search,
    responses(
        (status = 200, description = "What was found.", body = Page<FindView>),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn find(
    State(Api(api)): State<Api>,
    session: Session,
    body: Result<Object<Search>, JsonRejection>,
) -> Result<Json<Page<FindView>>, ApiError> {
    let Object(query) = body?;
    if query.q.trim().is_empty() || query.q.chars().count() > MAX_QUERY {
        return Err(ApiError::InvalidField { field: "q", expected: "words of 1 to 200 characters" });
    }
    let expected = "what the page before gave as next";
    let from = query.cursor.map(|cursor| cursor.parse::<Place>());
    let from = from.transpose().map_err(|_| ApiError::InvalidField { field: "cursor", expected })?;
    let among = match query.among.unwrap_or(Kind::Conversations) {
        Kind::Conversations => Among::Conversations,
        Kind::Files => Among::Files,
        Kind::Tasks => Among::Tasks,
    };
    let project = query.project.as_deref().map(id).transpose()?;
    let (finds, next) = api.search.find(session.user, search::Query { text: query.q, among, project }, from).await?;
    Ok(Json(Page { data: finds.into_iter().map(FindView::from).collect(), next: next.map(|next| next.to_string()) }))
}

impl From<Find> for FindView {
    fn from(Find { project, what, time, snippet }: Find) -> Self {
        let what = match what {
            Found::Conversation(conversation) => What::Conversation { conversation },
            Found::Message(conversation, message) => What::Message { conversation, message },
            Found::File(file) => What::File { file },
            Found::Task(task) => What::Task { task },
        };
        let marks = snippet.marks.into_iter().map(|mark| Mark { start: mark.start, end: mark.end }).collect();
        Self { project, what, time, snippet: snippet.text, marks }
    }
}
