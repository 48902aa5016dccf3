//! Leaving: the account is deleted. Taking everything along stands in [`export`].

mod export;

use axum::{
    Router,
    extract::{State, rejection::JsonRejection},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use http::{StatusCode, header};
use serde::Deserialize;
use utoipa::{OpenApi, ToSchema};

use super::{Api, Object, Session};
use crate::{
    account::{farewell::farewell, session},
    error::{ApiError, ErrorBody},
};

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/account", delete(leave)).route("/api/account/export", get(export::export))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(paths(leave, export::export))]
struct Description;

/// That it is meant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Leaving {
    /// The account's name, or the e-mail address of one of its ways of signing in.
    #[schema(max_length = 320)]
    confirm: String,
}

/// Deletes the account with everything in it, for good.
///
/// Keys, sessions and workstations end before the answer, and nothing that was stored can be read any more, not even in a backup
/// that is older. The records of requests stay for 90 days and the ledger as long as the Lab: they hold a random name that stands for
/// nobody then. Needs a sign-in of the last ten minutes.
#[utoipa::path(
    delete, path = "/api/account", operation_id = "delete_account", tag = "account", request_body = Leaving,
    security(("session" = [])),
    responses(
        (status = 204, description = "It is gone."),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn leave(
    State(Api(api)): State<Api>,
    session: Session,
    body: Result<Object<Leaving>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Object(Leaving { confirm }) = body?;
    session.fresh()?;
    let user = session.user;
    let known = api.store.user(user).await?.ok_or(ApiError::SignedOut)?;
    let identities = api.store.identities(user).await?;
    let confirm = confirm.trim().to_lowercase();
    let mut names = identities.into_iter().filter_map(|identity| identity.email).chain([known.name]);
    if !names.any(|name| name.to_lowercase() == confirm) {
        return Err(ApiError::InvalidField { field: "confirm", expected: "the account's name or its e-mail address" });
    }
    // Whoever hangs up in the middle has said that they leave.
    let done = tokio::spawn(async move {
        api.revocations.revoke_user(user).await?;
        api.runs.stop_all(user);
        farewell(&api.store, &api.log, &api.blobs, user).await.map_err(|error| {
            tracing::error!(%error, %user, "cannot delete all of an account");
            ApiError::Internal
        })
    });
    done.await.map_err(|_| ApiError::Internal)??;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, session::forgotten())]).into_response())
}
