//! `/api/projects/{id}/tool-servers`: MCP servers whose tools a project's agents have.

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use wire::{ProjectId, ToolServerId};

use super::{
    super::{Api, Session},
    project_id,
};
use crate::{
    api::Object,
    error::{ApiError, ErrorBody},
    lab::{
        operations::{Action, Operation},
        tools::mcp::{self, McpError},
    },
    store::{ChosenTool, HeaderSecret, ToolServer, ToolServerTerms},
};

/// Headers of a server at most.
const MOST_HEADERS: usize = 16;
/// Bytes of a header's value at most.
const MOST_VALUE: usize = 4096;
/// Tools of a server that are chosen at most: models lose their way among more.
const MOST_CHOSEN: usize = 100;
/// Bytes of an address at most.
const MOST_URL: usize = 2048;

/// An MCP server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolServer)]
pub(crate) struct ToolServerView {
    /// Which.
    #[schema(value_type = String)]
    id: ToolServerId,
    /// What stands before `__` in its tools' names.
    name: String,
    /// Where it is.
    url: String,
    /// Names of the headers that it is sent; their values are never shown again.
    headers: Vec<String>,
    /// Tools that models are told of.
    tools: Vec<ToolChoice>,
    /// Whether runs use it.
    enabled: bool,
    /// Milliseconds since 1970.
    created_at: i64,
}

/// Every server of a project.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ToolServers {
    data: Vec<ToolServerView>,
}

/// A tool that is chosen, as it described itself then: once it describes itself otherwise it must be chosen again.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolChoice {
    /// The server's name of it.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// As the server's tools are shown with.
    #[schema(min_length = 64, max_length = 64)]
    definition: String,
}

/// A header that a server is sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// Its name.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// Its value, a secret.
    #[schema(max_length = 4096)]
    value: String,
}

/// A server to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToolServer {
    /// 1 to 24 letters, digits, `_` and `-`, without `__` and not ending in `_`.
    #[schema(min_length = 1, max_length = 24)]
    name: String,
    /// Its address, `https://...`.
    #[schema(min_length = 1, max_length = 2048)]
    url: String,
    /// Headers that it is sent.
    #[serde(default)]
    #[schema(max_items = 16)]
    headers: Vec<Header>,
}

/// What is to be another; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolServerChange {
    /// As in a new one.
    #[schema(min_length = 1, max_length = 24)]
    name: Option<String>,
    /// Another address takes all headers away unless new ones are given: a secret is sent only where it was given for.
    #[schema(min_length = 1, max_length = 2048)]
    url: Option<String>,
    /// All headers together.
    #[schema(max_items = 16)]
    headers: Option<Vec<Header>>,
    /// All tools that models are told of.
    #[schema(max_items = 100)]
    tools: Option<Vec<ToolChoice>>,
    /// Whether runs use it.
    enabled: Option<bool>,
}

/// A tool as its server describes it now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServedTool)]
pub(crate) struct ServedToolView {
    /// The server's name of it.
    name: String,
    /// As models are told it.
    full_name: String,
    /// What it does, in the server's words. They are not the Lab's.
    description: String,
    /// JSON Schema of its arguments.
    #[schema(value_type = Object)]
    parameters: Value,
    /// What stands for all that.
    definition: String,
    /// Whether models are told of it.
    state: ChoiceState,
}

/// Whether models are told of a tool.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChoiceState {
    /// They are.
    Chosen,
    /// It was chosen, and describes itself otherwise now: they are not.
    Changed,
    /// They are not.
    NotChosen,
}

/// Every tool of a server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServedTools {
    data: Vec<ServedToolView>,
}

/// A project's servers, oldest first.
#[utoipa::path(
    get, path = "/api/projects/{id}/tool-servers", operation_id = "list_tool_servers", tag = "agents", security(("session" = [])),
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "Every server.", body = ToolServers),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn list(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
) -> Result<Json<ToolServers>, ApiError> {
    let servers = api.store.tool_servers(session.user, project_id(&project)?).await?;
    Ok(Json(ToolServers { data: servers.into_iter().map(ToolServerView::from).collect() }))
}

/// Adds a server. It is not asked for anything yet.
#[utoipa::path(
    post, path = "/api/projects/{id}/tool-servers", operation_id = "create_tool_server", tag = "agents",
    security(("session" = [])), params(("id" = String, Path)), request_body = NewToolServer,
    responses(
        (status = 201, description = "The new server.", body = ToolServerView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn create(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
    body: Result<Object<NewToolServer>, JsonRejection>,
) -> Result<(StatusCode, Json<ToolServerView>), ApiError> {
    let project = project_id(&project)?;
    let Object(NewToolServer { name, url, headers }) = body?;
    let terms = ToolServerTerms {
        name: checked_name(name)?,
        url: checked_url(&api, url)?,
        headers: checked_headers(headers)?,
        tools: Vec::new(),
    };
    if !terms.headers.is_empty() {
        session.fresh()?;
    }
    let server = api.store.add_tool_server(session.user, project, terms).await?;
    record(&api, &session, project, Action::ToolServerAdded, &server).await?;
    Ok((StatusCode::CREATED, Json(server.into())))
}

/// One server.
#[utoipa::path(
    get, path = "/api/projects/{id}/tool-servers/{server}", operation_id = "show_tool_server", tag = "agents",
    security(("session" = [])), params(("id" = String, Path), ("server" = String, Path)),
    responses(
        (status = 200, description = "The server.", body = ToolServerView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn show(
    State(Api(api)): State<Api>,
    session: Session,
    Path((project, server)): Path<(String, String)>,
) -> Result<Json<ToolServerView>, ApiError> {
    let server = api.store.tool_server(session.user, project_id(&project)?, id(&server)?).await?;
    Ok(Json(server.ok_or(ApiError::NotFound)?.into()))
}

/// Changes a server. Runs that work go on with what they began with.
#[utoipa::path(
    patch, path = "/api/projects/{id}/tool-servers/{server}", operation_id = "change_tool_server", tag = "agents",
    security(("session" = [])), params(("id" = String, Path), ("server" = String, Path)), request_body = ToolServerChange,
    responses(
        (status = 200, description = "The server as it is now.", body = ToolServerView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn change(
    State(Api(api)): State<Api>,
    session: Session,
    Path((project, server)): Path<(String, String)>,
    body: Result<Object<ToolServerChange>, JsonRejection>,
) -> Result<Json<ToolServerView>, ApiError> {
    let (project, server) = (project_id(&project)?, id(&server)?);
    let Object(change) = body?;
    let name = change.name.map(checked_name).transpose()?;
    let url = change.url.map(|url| checked_url(&api, url)).transpose()?;
    let headers = change.headers.map(checked_headers).transpose()?;
    let tools = change.tools.map(checked_tools).transpose()?;
    if headers.as_ref().is_some_and(|headers| !headers.is_empty()) {
        session.fresh()?;
    }
    let changed = api.store.update_tool_server(session.user, project, server, |enabled, terms| {
        *enabled = change.enabled.unwrap_or(*enabled);
        terms.name = name.unwrap_or_else(|| std::mem::take(&mut terms.name));
        if let Some(url) = url.filter(|url| *url != terms.url) {
            terms.url = url;
            terms.headers.clear();
            terms.tools.clear();
        }
        terms.headers = headers.unwrap_or_else(|| std::mem::take(&mut terms.headers));
        terms.tools = tools.unwrap_or_else(|| std::mem::take(&mut terms.tools));
    });
    let changed = changed.await?;
    record(&api, &session, project, Action::ToolServerChanged, &changed).await?;
    Ok(Json(changed.into()))
}

/// Removes a server, with what it was sent in headers.
#[utoipa::path(
    delete, path = "/api/projects/{id}/tool-servers/{server}", operation_id = "delete_tool_server", tag = "agents",
    security(("session" = [])), params(("id" = String, Path), ("server" = String, Path)),
    responses(
        (status = 204, description = "It is gone."),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn remove(
    State(Api(api)): State<Api>,
    session: Session,
    Path((project, server)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (project, server) = (project_id(&project)?, id(&server)?);
    api.store.delete_tool_server(session.user, project, server).await?;
    let removed = Operation::by_person(Action::ToolServerRemoved, Some(server.to_string()), Value::Null);
    api.log.record(session.user, project, removed).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Asks a server which tools it has now. Nothing is chosen by that.
#[utoipa::path(
    post, path = "/api/projects/{id}/tool-servers/{server}/tools", operation_id = "look_at_tool_server", tag = "agents",
    security(("session" = [])), params(("id" = String, Path), ("server" = String, Path)),
    responses(
        (status = 200, description = "Its tools.", body = ServedTools),
        (status = "4XX", description = "Why not.", body = ErrorBody),
        (status = 502, description = "The server does not answer as it should.", body = ErrorBody)
    )
)]
pub(super) async fn look(
    State(Api(api)): State<Api>,
    session: Session,
    Path((project, server)): Path<(String, String)>,
) -> Result<Json<ServedTools>, ApiError> {
    let server = api.store.tool_server(session.user, project_id(&project)?, id(&server)?).await?;
    let ToolServerTerms { name, url, headers, tools: chosen } = server.ok_or(ApiError::NotFound)?.terms;
    let connected = mcp::connect(&api.reach, &name, &url, &headers).await?;
    let tools = connected.tools().await?.into_iter().map(|tool| {
        let definition = tool.definition();
        let state = match chosen.iter().find(|chosen| chosen.name == tool.name) {
            Some(chosen) if chosen.definition == definition => ChoiceState::Chosen,
            Some(_) => ChoiceState::Changed,
            None => ChoiceState::NotChosen,
        };
        let full_name = mcp::full_name(&name, &tool.name);
        ServedToolView { full_name, name: tool.name, description: tool.description, parameters: tool.parameters, definition, state }
    });
    Ok(Json(ServedTools { data: tools.collect() }))
}

/// What was done to a server, without its secrets.
async fn record(
    api: &super::super::Inner,
    session: &Session,
    project: ProjectId,
    action: Action,
    server: &ToolServer,
) -> Result<(), ApiError> {
    let terms = &server.terms;
    let headers: Vec<&str> = terms.headers.iter().map(|(name, _)| name.as_str()).collect();
    let arguments = json!({
        "name": terms.name, "url": terms.plain_address(), "headers": headers, "tools": terms.tools, "enabled": server.enabled,
    });
    api.log.record(session.user, project, Operation::by_person(action, Some(server.id.to_string()), arguments)).await?;
    Ok(())
}

fn id(text: &str) -> Result<ToolServerId, ApiError> {
    text.parse().map_err(|_| ApiError::NotFound)
}

fn checked_name(name: String) -> Result<String, ApiError> {
    let expected = "1 to 24 letters, digits, `_` and `-`, without `__` and not ending in `_`";
    if mcp::is_server_name(&name) { Ok(name) } else { Err(ApiError::InvalidField { field: "name", expected }) }
}

/// The address is checked again, with where it leads, whenever it is gone to.
fn checked_url(api: &super::super::Inner, url: String) -> Result<String, ApiError> {
    let expected = "an address on the public internet, https://..., without a user or a password";
    let fits = url.len() <= MOST_URL && api.reach.to(&url).is_ok();
    if fits { Ok(url) } else { Err(ApiError::InvalidField { field: "url", expected }) }
}

fn checked_headers(headers: Vec<Header>) -> Result<Vec<(String, HeaderSecret)>, ApiError> {
    let expected = "at most 16, each with a header's name, once, and a value of at most 4 KiB that a header can have; names that the \
                    protocol uses itself are its own";
    let wrong = || ApiError::InvalidField { field: "headers", expected };
    if headers.len() > MOST_HEADERS {
        return Err(wrong());
    }
    let mut checked: Vec<(String, HeaderSecret)> = Vec::with_capacity(headers.len());
    for Header { name, value } in headers {
        let name = HeaderName::try_from(&name).map_err(|_| wrong())?;
        let taken = is_ours(&name) || checked.iter().any(|(known, _)| *known == name.as_str());
        if taken || value.len() > MOST_VALUE || HeaderValue::try_from(&value).is_err() {
            return Err(wrong());
        }
        checked.push((name.to_string(), HeaderSecret::new(value)));
    }
    Ok(checked)
}

/// Headers that say where a message goes, how it is framed, or what the protocol says with them.
fn is_ours(name: &HeaderName) -> bool {
    const OURS: [&str; 14] = [
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "accept",
        "accept-encoding",
        "user-agent",
        "last-event-id",
        "proxy-authorization",
    ];
    OURS.contains(&name.as_str()) || name.as_str().starts_with("mcp-")
}

fn checked_tools(tools: Vec<ToolChoice>) -> Result<Vec<ChosenTool>, ApiError> {
    let expected = "at most 100, each once, with its name and its definition as the server's tools are shown with";
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut names = std::collections::HashSet::new();
    let fits = tools.len() <= MOST_CHOSEN
        && tools
            .iter()
            .all(|tool| (1..=64).contains(&tool.name.len()) && hex(&tool.definition) && names.insert(tool.name.as_str()));
    if !fits {
        return Err(ApiError::InvalidField { field: "tools", expected });
    }
    Ok(tools.into_iter().map(|ToolChoice { name, definition }| ChosenTool { name, definition }).collect())
}

impl From<ToolServer> for ToolServerView {
    fn from(server: ToolServer) -> Self {
        let ToolServerTerms { name, url, headers, tools } = server.terms;
        Self {
            id: server.id,
            name,
            url,
            headers: headers.into_iter().map(|(name, _)| name).collect(),
            tools: tools.into_iter().map(|ChosenTool { name, definition }| ToolChoice { name, definition }).collect(),
            enabled: server.enabled,
            created_at: server.created_at,
        }
    }
}

impl From<McpError> for ApiError {
    fn from(error: McpError) -> Self {
        Self::ToolServer { why: error }
    }
}
