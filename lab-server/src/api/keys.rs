//! `/api/projects/{id}/keys` and `/api/keys`.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, State,
        rejection::{BytesRejection, JsonRejection},
    },
};
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use wire::ProjectId;

use super::{Api, Object, Principal, object, object_or_null, projects};
use crate::{
    account::{
        api_key::{Environment, Kid},
        create_key,
    },
    credits::Credits,
    error::{ApiError, ErrorBody},
    lab::operations::Action,
    store::{self, ApiKeyRecord, KeyTerms, ModelPattern, Scope, now_ms},
};

/// The longest time for which an old key and its successor may both be taken.
const MAX_OVERLAP: Duration = Duration::from_secs(30 * 86_400);
/// Patterns in a list of models at most.
const MAX_MODELS: usize = 100;
/// Keys of one project, the revoked ones too.
const MAX_KEYS: usize = 10_000;

/// A key as it may be shown: never its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub(crate) struct KeyView {
    /// Its public part.
    #[schema(value_type = String)]
    kid: Kid,
    /// Where it belongs.
    #[schema(value_type = String)]
    project: ProjectId,
    /// What its owner calls it.
    name: String,
    /// The last four characters of the whole key.
    last4: String,
    /// Milliseconds since 1970.
    created_at: i64,
    /// Milliseconds since 1970; `null` while it is valid.
    revoked_at: Option<i64>,
    /// The key that took its place.
    #[schema(value_type = Option<String>)]
    replaced_by: Option<Kid>,
    /// For real work, or for trying things out.
    #[schema(value_type = KeyEnvironment)]
    environment: Environment,
    /// What it opens.
    #[schema(value_type = Vec<KeyScope>)]
    scopes: Vec<Scope>,
    /// What it may spend.
    spending: Spending,
    /// How fast it may ask.
    rates: projects::Rates,
    /// Which models it may ask for; `null` for all.
    #[schema(value_type = Option<Vec<String>>)]
    models: Option<Vec<ModelPattern>>,
    /// When it ends by itself, in milliseconds since 1970.
    expires_at: Option<i64>,
}

/// Every key of a project.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Keys {
    data: Vec<KeyView>,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewKeyView {
    /// The whole key. It is shown this once and cannot be shown again.
    key: String,
    #[serde(flatten)]
    record: KeyView,
}

/// `live` or `test`; part of the key's text.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "the schema of a type whose own module knows no schema")]
pub(crate) enum KeyEnvironment {
    Live,
    Test,
}

/// `inference`: the model API. `usage`: records and sums of the key's own project. `manage`: the account over HTTP.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "the schema of a type whose own module knows no schema")]
pub(crate) enum KeyScope {
    Inference,
    Usage,
    Manage,
}

/// What a key may spend in a window of UTC; `null` for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Spending {
    /// In a day.
    day: Option<Credits>,
    /// In a month.
    month: Option<Credits>,
    /// Ever.
    total: Option<Credits>,
}

/// A key to be. What is left out is not limited; the scopes are then `inference` and `usage`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKeyTerms {
    /// 1 to 100 characters.
    name: String,
    #[serde(default)]
    #[schema(value_type = Option<KeyEnvironment>)]
    environment: Environment,
    #[schema(value_type = Option<Vec<KeyScope>>)]
    scopes: Option<Vec<Scope>>,
    #[serde(default, deserialize_with = "object")]
    spending: Spending,
    #[serde(default, deserialize_with = "object")]
    rates: projects::Rates,
    #[schema(value_type = Option<Vec<String>>)]
    models: Option<Vec<ModelPattern>>,
    expires_at: Option<i64>,
}

/// What is to be another; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyChange {
    /// 1 to 100 characters.
    name: Option<String>,
    #[schema(value_type = Option<Vec<KeyScope>>)]
    scopes: Option<Vec<Scope>>,
    /// All three limits together.
    #[serde(default, deserialize_with = "object_or_null")]
    spending: Option<Spending>,
    /// All three limits together.
    #[serde(default, deserialize_with = "object_or_null")]
    rates: Option<projects::Rates>,
    /// `null` for all models.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    models: Option<Option<Vec<ModelPattern>>>,
    /// `null` for never.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    expires_at: Option<Option<i64>>,
}

/// How a key is replaced.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// For how many seconds the old key is taken beside the new one; at most 30 days.
    #[serde(default)]
    overlap_s: u64,
}

/// Tells a `null` from a field that is not there.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Every key of a project, the revoked ones too, oldest first.
#[utoipa::path(
    get, path = "/api/projects/{id}/keys", operation_id = "list_keys", tag = "keys", params(("id" = String, Path)),
    responses(
        (status = 200, description = "Every key.", body = Keys),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn list(
    State(Api(api)): State<Api>,
    principal: Principal,
    Path(project): Path<String>,
) -> Result<Json<Keys>, ApiError> {
    let owner = principal.manages()?;
    let project = api.store.project(owner, projects::id(&project)?).await?.ok_or(ApiError::NotFound)?;
    let keys = api.store.keys(project.id).await?;
    Ok(Json(Keys { data: keys.into_iter().map(KeyView::from).collect() }))
}

/// Makes a key.
#[utoipa::path(
    post, path = "/api/projects/{id}/keys", operation_id = "create_key", tag = "keys",
    params(("id" = String, Path)), request_body = NewKeyTerms,
    responses(
        (status = 201, description = "The new key, shown this once.", body = NewKeyView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn create(
    State(Api(api)): State<Api>,
    principal: Principal,
    Path(project): Path<String>,
    body: Result<Object<NewKeyTerms>, JsonRejection>,
) -> Result<(StatusCode, Json<NewKeyView>), ApiError> {
    let owner = principal.manages_freshly()?;
    let project = api.store.project(owner, projects::id(&project)?).await?.ok_or(ApiError::NotFound)?;
    let Object(new) = body?;
    if api.store.keys(project.id).await?.len() >= MAX_KEYS {
        return Err(ApiError::InvalidField { field: "project", expected: "one with fewer than 10000 keys; start another project" });
    }
    let terms = KeyTerms {
        environment: new.environment,
        scopes: new.scopes.map(scopes).transpose()?.unwrap_or_default(),
        spending: spending(new.spending)?,
        rates: new.rates.into(),
        models: models(new.models)?,
        expires_at: expiry(new.expires_at)?,
    };
    let (key, record) = create_key(&api.store, project.id, projects::name(&new.name)?, terms).await?;
    let record = KeyView::from(record);
    api.did_as(principal.actor(), owner, project.id, Action::KeyCreated, record.kid, told(&record)).await?;
    Ok((StatusCode::CREATED, Json(NewKeyView { key: key.reveal().to_owned(), record })))
}

/// One key, without its secret.
#[utoipa::path(
    get, path = "/api/keys/{kid}", operation_id = "show_key", tag = "keys", params(("kid" = String, Path)),
    responses(
        (status = 200, description = "The key, without its secret.", body = KeyView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn show(
    State(Api(api)): State<Api>,
    principal: Principal,
    Path(key): Path<String>,
) -> Result<Json<KeyView>, ApiError> {
    let owner = principal.manages()?;
    Ok(Json(api.store.key(owner, kid(&key)?).await?.ok_or(ApiError::NotFound)?.into()))
}

/// Changes a key's name and terms, from the next request on.
#[utoipa::path(
    patch, path = "/api/keys/{kid}", operation_id = "change_key", tag = "keys",
    params(("kid" = String, Path)), request_body = KeyChange,
    responses(
        (status = 200, description = "The key as it is now.", body = KeyView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn change(
    State(Api(api)): State<Api>,
    principal: Principal,
    Path(key): Path<String>,
    body: Result<Object<KeyChange>, JsonRejection>,
) -> Result<Json<KeyView>, ApiError> {
    let owner = principal.manages()?;
    let kid = kid(&key)?;
    let Object(change) = body?;
    // A key that may do more is as good as a new one.
    if change.scopes.is_some() {
        principal.manages_freshly()?;
    }
    let new_name = change.name.as_deref().map(projects::name).transpose()?.map(str::to_owned);
    let new_scopes = change.scopes.map(scopes).transpose()?;
    let new_spending = change.spending.map(spending).transpose()?;
    let new_models = change.models.map(models).transpose()?;
    let new_expiry = change.expires_at.map(expiry).transpose()?;
    let changed = api.revocations.update_key(owner, kid, |name, terms| {
        *name = new_name.unwrap_or_else(|| std::mem::take(name));
        terms.scopes = new_scopes.unwrap_or(terms.scopes);
        terms.spending = new_spending.unwrap_or(terms.spending);
        terms.rates = change.rates.map_or(terms.rates, store::Rates::from);
        terms.models = new_models.unwrap_or_else(|| terms.models.take());
        terms.expires_at = new_expiry.unwrap_or(terms.expires_at);
    });
    let changed = KeyView::from(changed.await?);
    api.did_as(principal.actor(), owner, changed.project, Action::KeyChanged, kid, told(&changed)).await?;
    Ok(Json(changed))
}

/// Ends a key. With the answer it is no longer taken; what runs under it is cut off within a second.
#[utoipa::path(
    delete, path = "/api/keys/{kid}", operation_id = "revoke_key", tag = "keys", params(("kid" = String, Path)),
    responses(
        (status = 204, description = "It is no longer taken."),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn revoke(
    State(Api(api)): State<Api>,
    principal: Principal,
    Path(key): Path<String>,
) -> Result<StatusCode, ApiError> {
    let owner = principal.manages()?;
    let kid = kid(&key)?;
    let known = api.store.key(owner, kid).await?.ok_or(ApiError::NotFound)?;
    api.revocations.revoke_key_of(owner, kid).await?;
    if known.revoked_at.is_none() {
        api.did_as(principal.actor(), owner, known.project, Action::KeyRevoked, kid, json!({ "name": known.name })).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Puts a new key in a key's place: same project, name and terms, and limits that both share. There need not be a body.
#[utoipa::path(
    post, path = "/api/keys/{kid}/rotate", operation_id = "rotate_key", tag = "keys",
    params(("kid" = String, Path)), request_body = Option<Rotation>,
    responses(
        (status = 201, description = "The new key, shown this once.", body = NewKeyView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn rotate(
    State(Api(api)): State<Api>,
    principal: Principal,
    Path(key): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<NewKeyView>), ApiError> {
    let owner = principal.manages_freshly()?;
    let kid = kid(&key)?;
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge,
        _ => ApiError::InvalidBody,
    })?;
    // Every field has a default, so that there need not be a body.
    let rotation: Option<Rotation> = if body.is_empty() { None } else { Json::from_bytes(&body)?.0 };
    let Rotation { overlap_s } = rotation.unwrap_or_default();
    let overlap = Duration::from_secs(overlap_s);
    if overlap > MAX_OVERLAP {
        return Err(ApiError::InvalidField { field: "overlap_s", expected: "a number of seconds, at most 2592000" });
    }
    let (new, record) = api.revocations.rotate_key(owner, kid, overlap).await?;
    let record = KeyView::from(record);
    let arguments = json!({ "replaced_by": record.kid, "overlap_s": overlap_s });
    api.did_as(principal.actor(), owner, record.project, Action::KeyChanged, kid, arguments).await?;
    Ok((StatusCode::CREATED, Json(NewKeyView { key: new.reveal().to_owned(), record })))
}

/// What the operation log says of a key: its name and terms, and nothing of what lets somebody in.
fn told(key: &KeyView) -> serde_json::Value {
    json!({
        "name": key.name, "scopes": key.scopes, "spending": key.spending, "rates": key.rates, "models": key.models,
        "expires_at": key.expires_at,
    })
}

/// A text that is no id names nothing; it may be a whole key, and is not repeated.
fn kid(text: &str) -> Result<Kid, ApiError> {
    text.parse().map_err(|_| ApiError::NotFound)
}

fn scopes(scopes: Vec<Scope>) -> Result<store::Scopes, ApiError> {
    if scopes.is_empty() {
        return Err(ApiError::InvalidField { field: "scopes", expected: "at least one of inference, usage and manage" });
    }
    Ok(scopes.into_iter().collect())
}

fn spending(Spending { day, month, total }: Spending) -> Result<store::Spending, ApiError> {
    if [day, month, total].into_iter().flatten().any(|limit| limit.nano < 0) {
        return Err(ApiError::InvalidField { field: "spending", expected: "amounts that are not negative" });
    }
    let nano = |limit: Option<Credits>| limit.map(|limit| limit.nano);
    Ok(store::Spending { day: nano(day), month: nano(month), total: nano(total) })
}

fn models(models: Option<Vec<ModelPattern>>) -> Result<Option<Vec<ModelPattern>>, ApiError> {
    if models.as_ref().is_some_and(|models| models.len() > MAX_MODELS) {
        return Err(ApiError::InvalidField { field: "models", expected: "at most 100 names or beginnings of names" });
    }
    Ok(models)
}

fn expiry(expires_at: Option<i64>) -> Result<Option<i64>, ApiError> {
    if expires_at.is_some_and(|end| end <= now_ms()) {
        return Err(ApiError::InvalidField { field: "expires_at", expected: "a time to come, in milliseconds since 1970" });
    }
    Ok(expires_at)
}

impl From<ApiKeyRecord> for KeyView {
    fn from(record: ApiKeyRecord) -> Self {
        let terms = record.terms;
        let credits = |nano: Option<i64>| nano.map(Credits::of_nano);
        Self {
            kid: record.kid,
            project: record.project,
            name: record.name,
            last4: record.last4,
            created_at: record.created_at,
            revoked_at: record.revoked_at,
            replaced_by: record.replaced_by,
            environment: terms.environment,
            scopes: terms.scopes.iter().collect(),
            spending: Spending {
                day: credits(terms.spending.day),
                month: credits(terms.spending.month),
                total: credits(terms.spending.total),
            },
            rates: terms.rates.into(),
            models: terms.models,
            expires_at: terms.expires_at,
        }
    }
}
