//! Every model that a person can ask, and where it is: `/api/models`.

use axum::{Json, Router, extract::State, routing::get};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::{Api, Session};
use crate::{
    error::{ApiError, ErrorBody},
    lab::models::{Availability, CloudPrices, Host, LocalState, ModelView},
};

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/models", get(list))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(list),
    components(schemas(ModelList, ModelView, Host, LocalState, CloudPrices, Availability)),
    tags((name = "models", description = "Models on one's own workstations and at providers."))
)]
struct Description;

/// Every model that can be asked.
#[derive(Debug, Serialize, ToSchema)]
struct ModelList {
    /// On whichever workstation is free, on each workstation, at providers: in this order.
    data: Vec<ModelView>,
}

/// Every model that the person can ask: on their workstations, with the state of each, and at providers, with prices.
#[utoipa::path(
    get, path = "/api/models", operation_id = "list_models", tag = "models", security(("session" = [])),
    responses(
        (status = 200, description = "The models.", body = ModelList),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn list(State(Api(api)): State<Api>, session: Session) -> Result<Json<ModelList>, ApiError> {
    Ok(Json(ModelList { data: api.models.list(session.user) }))
}
