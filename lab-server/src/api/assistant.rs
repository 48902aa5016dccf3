//! The assistant that answers questions about the account: `/api/assistant`.

use std::convert::Infallible;

use axum::{
    Router,
    body::Body,
    extract::{State, rejection::JsonRejection},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use futures_util::stream;
use http::header;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{OpenApi, ToSchema};

use super::{Api, Object, Session};
use crate::{
    error::{ApiError, ErrorBody},
    lab::assistant::{By, Line, Told, TooMany},
};

/// Messages of one question at most: it remembers nothing, and is told the conversation each time.
const MAX_MESSAGES: usize = 20;
/// Characters of a message at most.
const MAX_TEXT: usize = 4_000;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/assistant", post(ask))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(ask),
    components(schemas(AssistantQuestion, AssistantMessage, AssistantRole)),
    tags((name = "assistant", description = "Answers questions about the account; looks and changes nothing."))
)]
struct Description;

/// What was said so far, the question last.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AssistantQuestion {
    /// Oldest first; the last one is the person's.
    #[schema(min_items = 1, max_items = 20)]
    messages: Vec<AssistantMessage>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AssistantMessage {
    /// Who said it.
    role: AssistantRole,
    /// What.
    #[schema(min_length = 1, max_length = 4000)]
    text: String,
}

impl std::fmt::Debug for AssistantMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AssistantMessage").field("role", &self.role).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum AssistantRole {
    /// The person.
    User,
    /// The assistant.
    Assistant,
}

/// Asks the assistant. Nothing of it is kept. Events: `{"text": "…"}` as the words come, then `{"end": true}`, or
/// `{"error": "code"}` where it comes to nothing.
#[utoipa::path(
    post, path = "/api/assistant", operation_id = "ask_assistant", tag = "assistant", security(("session" = [])),
    request_body = AssistantQuestion,
    responses(
        (status = 200, description = "The answer, as it comes.", content((String = "text/event-stream"))),
        (status = "4XX", description = "Why not; `not_set_up` where the operator has named no model for it.", body = ErrorBody)
    )
)]
async fn ask(
    State(Api(api)): State<Api>,
    session: Session,
    body: Result<Object<AssistantQuestion>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Object(AssistantQuestion { messages }) = body?;
    let counts = (1..=MAX_MESSAGES).contains(&messages.len());
    let asks = messages.last().is_some_and(|last| matches!(last.role, AssistantRole::User));
    let fits = messages.iter().all(|message| (1..=MAX_TEXT).contains(&message.text.chars().count()));
    if !(counts && asks && fits) {
        let expected = "1 to 20 messages of 1 to 4000 characters, the last one with the role `user`";
        return Err(ApiError::InvalidField { field: "messages", expected });
    }
    let assistant = api.assistant.as_ref().ok_or(ApiError::NotSetUp)?;
    let lines = messages.into_iter().map(|AssistantMessage { role, text }| Line {
        by: match role {
            AssistantRole::User => By::Person,
            AssistantRole::Assistant => By::Assistant,
        },
        text,
    });
    let told = assistant.answer(session.user, lines.collect()).map_err(|too_many| match too_many {
        TooMany::InAnHour { retry_after_s } => ApiError::TooManyRequests { retry_after_s },
        TooMany::Today { opens_in_s } => ApiError::DayUsedUp { opens_in_s },
    })?;
    let events = stream::unfold(told, |mut told| async {
        let event = match told.recv().await? {
            Told::Text(text) => json!({ "text": text }),
            Told::End => json!({ "end": true }),
            Told::Failed(code) => json!({ "error": code }),
        };
        Some((Ok::<_, Infallible>(Bytes::from(format!("data: {event}\n\n"))), told))
    });
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response())
}
