//! The Lab's own HTTP API, for people's programs: projects, keys, credits, records, sums.
//!
//! Who asks is one extractor, [`Principal`]; what it may see is decided by the store, whose methods look only where the asking person
//! owns. What is somebody else's and what does not exist are therefore one answer: 404. Wire types stand with their handlers; money is
//! a decimal string both ways.

mod account;
mod agents;
mod assistant;
mod briefs;
mod conversations;
mod devices;
mod farewell;
mod files;
mod folders;
mod identities;
mod keys;
mod models;
mod news;
mod object;
mod operations;
mod principal;
mod projects;
mod requests;
mod runs;
mod search;
mod session;
mod sessions;
mod sign_in;
mod table;
mod tasks;
mod transparency;
mod usage;

use std::{net::IpAddr, num::NonZeroU32, ops::Deref, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock as _};
use http::{HeaderValue, header};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use tokio::sync::Semaphore;
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
};
use wire::{ProjectId, UserId};

pub(crate) use account::EntryView;
pub(crate) use keys::KeyView;
use object::Object;
pub use principal::Principal;
pub use session::Session;
pub(crate) use usage::SumView;

use crate::{
    account::{revocation::Revocations, session::COOKIE, sign_in::SignIns},
    clock::Clock,
    config::Origin,
    edge::peer::{Peer, counted},
    error::{ApiError, ErrorBody},
    gateway::{Gateway, pairing::Pairing},
    lab::{
        agent::Approvals,
        assistant::Assistant,
        content::Actor,
        files::Files,
        models::Models,
        operations::{Action, Log, Operation},
        runs::Runs,
        search::Search,
        tools::reach::Reach,
        turns::Turns,
    },
    meter::Meter,
    news::News,
    providers::policy,
    store::{Bookmark, Store},
};

/// Largest body, in bytes (SECURITY 4.11).
const MAX_BODY: usize = 1024 * 1024;
/// Requests that one address may make in ten seconds before anybody looks at its key, all of them at once if it likes.
const PER_ADDRESS: NonZeroU32 = NonZeroU32::new(300).unwrap();
/// How long it takes until all of them are there again.
const PER_ADDRESS_WINDOW: Duration = Duration::from_secs(10);
/// From this many addresses on, those that have all of theirs again are forgotten. Whoever asked once has them after 33 ms, and each
/// needs a TLS connection of its own, so that far fewer are ever known at once.
const TIDY_AT: usize = 65_536;
/// Files that one person may be sending at once, each of which takes some 3 MiB of memory.
const UPLOADS: usize = 8;
/// Exports that may run at once, of all people: each holds one of the runtime's threads for blocking work for as long as it is read.
const EXPORTS: usize = 16;
/// The schema's path.
const SCHEMA_PATH: &str = "/api/openapi.json";

/// What the handlers share.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

/// What it works with.
pub struct Parts {
    /// What the Lab remembers.
    pub store: Store,
    /// How the end of keys, devices and sessions becomes known.
    pub revocations: Revocations,
    /// What is spent.
    pub meter: Meter,
    /// The address that browsers know the Lab by.
    pub origin: Origin,
    /// What time it is for sessions.
    pub clock: Clock,
    /// Answers and agents at work.
    pub runs: Runs,
    /// What agents ask their owners.
    pub approvals: Approvals,
    /// The way to servers that people name.
    pub reach: Reach,
    /// What was done in people's projects.
    pub log: Log,
    /// The files of projects.
    pub files: Files,
    /// Finds what people keep.
    pub search: Search,
    /// The folder of all files' contents.
    pub blobs: PathBuf,
    /// The way to models.
    pub models: Models,
    /// Who answers questions about accounts; `None` where the operator has not named a model for it.
    pub assistant: Option<Assistant>,
    /// How people come in.
    pub sign_ins: SignIns,
    /// Workstations that wait for a yes.
    pub pairing: Pairing,
    /// Workstations that are there.
    pub gateway: Arc<Gateway>,
    /// That something has changed.
    pub news: News,
}

struct Inner {
    parts: Parts,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    uploads: Turns,
    /// Places for exports, each of which holds a thread while its reader reads.
    exports: Arc<Semaphore>,
    exporting: Turns,
}

impl Deref for Inner {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Inner {
    /// Writes down what somebody who is signed in did in their project, before they are told that it is done.
    async fn did(
        &self,
        owner: UserId,
        project: ProjectId,
        action: Action,
        target: impl ToString,
        arguments: serde_json::Value,
    ) -> Result<(), ApiError> {
        self.did_as(Actor::Person, owner, project, action, target, arguments).await
    }

    /// The same for what a program may do as well.
    async fn did_as(
        &self,
        actor: Actor,
        owner: UserId,
        project: ProjectId,
        action: Action,
        target: impl ToString,
        arguments: serde_json::Value,
    ) -> Result<(), ApiError> {
        self.log.record(owner, project, Operation::by(actor, action, Some(target.to_string()), arguments)).await?;
        Ok(())
    }
}

impl Api {
    /// The API over these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let every = PER_ADDRESS_WINDOW / PER_ADDRESS.get();
        // A period of nothing is the only thing that has no quota.
        let quota = Quota::with_period(every).unwrap_or_else(|| Quota::per_second(PER_ADDRESS)).allow_burst(PER_ADDRESS);
        Self(Arc::new(Inner {
            parts,
            addresses: RateLimiter::keyed(quota),
            uploads: Turns::new(UPLOADS),
            exports: Arc::new(Semaphore::new(EXPORTS)),
            exporting: Turns::new(1),
        }))
    }

    /// All its routes.
    pub fn router(self) -> Router {
        let parts = PARTS.iter().fold(Router::new(), |all, (routes, _)| all.merge(routes()));
        parts
            .route("/api/projects", get(projects::list).post(projects::create))
            .route("/api/projects/{id}", get(projects::show).patch(projects::change).delete(projects::delete))
            .route("/api/projects/{id}/keys", get(keys::list).post(keys::create))
            .route("/api/keys/{kid}", get(keys::show).patch(keys::change).delete(keys::revoke))
            .route("/api/keys/{kid}/rotate", post(keys::rotate))
            .route("/api/account", get(account::show))
            .route("/api/ledger", get(account::ledger))
            .route("/api/requests", get(requests::list))
            .route("/api/usage", get(usage::sums))
            .route("/v1/requests/{id}", get(requests::own))
            .route("/api/providers", get(providers))
            .route(SCHEMA_PATH, get(schema))
            .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn(session::carry))
            .layer(middleware::from_fn_with_state(self.clone(), ration))
            .layer(middleware::map_response(private))
            .with_state(self)
    }
}

/// A part's routes and their description.
type Part = (fn() -> Router<Api>, fn() -> utoipa::openapi::OpenApi);

/// The parts that people use through the web app.
const PARTS: [Part; 18] = [
    (sign_in::routes, sign_in::description),
    (sessions::routes, sessions::description),
    (identities::routes, identities::description),
    (devices::routes, devices::description),
    (briefs::routes, briefs::description),
    (conversations::routes, conversations::description),
    (folders::routes, folders::description),
    (search::routes, search::description),
    (files::routes, files::description),
    (tasks::routes, tasks::description),
    (runs::routes, runs::description),
    (news::routes, news::description),
    (agents::routes, agents::description),
    (models::routes, models::description),
    (operations::routes, operations::description),
    (assistant::routes, assistant::description),
    (farewell::routes, farewell::description),
    (transparency::routes, transparency::description),
];

/// Counts before anything else: whoever guesses keys or tries to wear the database out is stopped by address.
async fn ration(State(Api(api)): State<Api>, Extension(Peer(peer)): Extension<Peer>, request: Request, next: Next) -> Response {
    if api.addresses.len() >= TIDY_AT {
        api.addresses.retain_recent();
    }
    match api.addresses.check_key(&counted(peer.ip())) {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            let wait = refused.wait_time_from(governor::clock::DefaultClock::default().now());
            ApiError::TooManyRequests { retry_after_s: wait.as_secs() + 1 }.into_response()
        }
    }
}

/// What is somebody's own is kept by nobody on the way.
async fn private(mut response: Response) -> Response {
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What each provider documents about the data that it is sent.
#[utoipa::path(
    get, path = "/api/providers", operation_id = "list_providers", tag = "providers",
    security(()), responses((status = 200, description = "What they document.", body = policy::Policies))
)]
async fn providers() -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=3600")], policy::POLICIES)
        .into_response()
}

/// This description.
#[utoipa::path(
    get, path = "/api/openapi.json", operation_id = "describe", tag = "description",
    security(()), responses((status = 200, description = "OpenAPI 3.1."))
)]
async fn schema() -> Result<Response, ApiError> {
    let text = document().map_err(|_| ApiError::Internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=3600")], text).into_response())
}

/// A part of a body by its fields' names: serde takes a list for a struct as well, by the fields' order.
fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(body: D) -> Result<T, D::Error> {
    let fields = serde_json::Map::deserialize(body)?;
    // The error's own text may quote the body.
    T::deserialize(serde_json::Value::Object(fields)).map_err(|_| serde::de::Error::custom("not this object"))
}

/// The same where `null` is nothing.
fn object_or_null<'de, D: Deserializer<'de>, T: DeserializeOwned>(body: D) -> Result<Option<T>, D::Error> {
    let Some(fields) = Option::<serde_json::Map<_, _>>::deserialize(body)? else { return Ok(None) };
    T::deserialize(serde_json::Value::Object(fields)).map(Some).map_err(|_| serde::de::Error::custom("not this object"))
}

/// A part of a list, and how to get the next.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The entries.
    data: Vec<T>,
    /// Give it as `cursor` for what follows; `null` at the end.
    next: Option<String>,
}

/// Where a list goes on.
fn bookmark<Id: FromStr>(cursor: Option<&str>) -> Result<Option<Bookmark<Id>>, ApiError> {
    let expected = "what the page before gave as next";
    cursor.map(|cursor| cursor.parse().map_err(|_| ApiError::InvalidField { field: "cursor", expected })).transpose()
}

/// A field that can be left out, which changes nothing, or be `null`, which takes away what there was.
fn nullable<'de, T: Deserialize<'de>, D: Deserializer<'de>>(field: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(field).map(Some)
}

/// The description of this API, as JSON.
///
/// # Errors
/// When it cannot be written, which a test rules out.
pub fn document() -> Result<String, serde_json::Error> {
    let mut description = Description::openapi();
    PARTS.iter().for_each(|(_, part)| description.merge(part()));
    let mut text = description.to_pretty_json()?;
    text.push('\n');
    Ok(text)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "1K4 Lab",
        version = "1",
        description = "Projects, keys, credits, records and sums of an account on a 1K4 Lab. The model API itself (OpenAI's, Anthropic's, \
                       Gemini's and Ollama's protocols) is described by those protocols. Times are milliseconds since 1970 in UTC; money \
                       is a decimal string of credits; one credit is one US dollar.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    servers((url = "/")),
    paths(
        projects::list, projects::create, projects::show, projects::change, projects::delete,
        keys::list, keys::create, keys::show, keys::change, keys::revoke, keys::rotate,
        account::show, account::ledger,
        requests::list, requests::own, usage::sums,
        providers, schema
    ),
    components(schemas(ErrorBody)),
    modifiers(&Security),
    security(("key" = []), ("session" = [])),
    tags(
        (name = "projects", description = "A project has keys, limits and sums of its own."),
        (name = "keys", description = "API keys; a key is shown once, when it is made."),
        (name = "account", description = "Credits and the ledger."),
        (name = "usage", description = "One record per request, and sums over them. Nothing of a request's content is kept."),
        (name = "providers", description = "What providers document about data."),
        (name = "description", description = "This description.")
    )
)]
struct Description;

struct Security;

impl Modify for Security {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(COOKIE))));
    }
}
