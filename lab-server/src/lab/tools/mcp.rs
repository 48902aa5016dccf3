//! Tools of others: MCP servers that a project's owner named, over streamable HTTP.
//!
//! A server is reached through the same guard as the web. What it says of its tools is shown to the owner, who chooses; a model is told
//! only of tools that were chosen and still describe themselves as they did then. A server's words never decide anything here, and its
//! tools' names carry the server's, so that none can pass for the Lab's.

use std::{collections::HashMap, time::Duration};

use http::{HeaderName, HeaderValue};
use rmcp::{
    RoleClient, ServiceExt,
    model::{CallToolRequestParams, ContentBlock},
    service::{RunningService, ServiceError},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    bounded,
    policy::is_word,
    reach::{Reach, Unreachable},
};
use crate::{lab::prompt::ToolSpec, store::HeaderSecret};

/// How long a server may take to be reached and to list its tools.
const GREETING: Duration = Duration::from_secs(20);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(60);
/// Bytes of one message of a server's: a text of 1 MiB with what JSON puts around and into it. A longer one ends the connection.
const MOST_MESSAGE: usize = 4 * 1024 * 1024;
/// Bytes of a result. A model is given less of it at once; the rest is cut where every tool's is.
const MOST_RESULT: usize = 256 * 1024;
/// Tools of one server that are looked at.
const MOST_TOOLS: usize = 200;
/// Characters of what a tool says of itself, so that no server can fill a model's context by describing its tools.
const MOST_DESCRIPTION: usize = 4_000;
/// Bytes of a tool's schema, likewise.
const MOST_SCHEMA: usize = 32 * 1024;

/// A server that is connected to. Dropping it ends the connection.
pub struct Connected {
    name: String,
    service: RunningService<RoleClient, ()>,
}

/// A server's tool, as the server describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServedTool {
    /// The server's own name of it.
    pub name: String,
    /// What it does, in the server's words.
    pub description: String,
    /// JSON Schema of its arguments, an object.
    pub parameters: Value,
}

/// What came of a call.
#[derive(Clone, PartialEq, Eq)]
pub struct Said {
    /// What the server said.
    pub text: String,
    /// Whether it calls that a success.
    pub ok: bool,
}

/// Why a server was of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum McpError {
    /// It may not be gone to.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// A header cannot be sent.
    #[error("a header of the tool server cannot be sent; check its name and value")]
    Header,
    /// Nobody answers, or not as an MCP server does.
    #[error("the tool server does not answer as an MCP server over streamable HTTP; check its address and its headers")]
    Silent,
    /// It took too long.
    #[error("the tool server took too long")]
    Slow,
    /// It refused.
    #[error("the tool server refused the call")]
    Refused,
}

/// Connects to a server.
///
/// # Errors
/// When it may not be reached, does not answer or is none.
pub async fn connect(reach: &Reach, name: &str, url: &str, headers: &[(String, HeaderSecret)]) -> Result<Connected, McpError> {
    let way = reach.to(url)?;
    let custom = headers.iter().map(|(name, value)| {
        let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| McpError::Header)?;
        value.set_sensitive(true);
        Ok((HeaderName::try_from(name.as_str()).map_err(|_| McpError::Header)?, value))
    });
    let custom = custom.collect::<Result<HashMap<_, _>, McpError>>()?;
    let mut config = StreamableHttpClientTransportConfig::with_uri(way.url.as_str()).custom_headers(custom);
    config.max_sse_event_size = MOST_MESSAGE;
    let transport = StreamableHttpClientTransport::with_client(way.client, config);
    let greeted = tokio::time::timeout(GREETING, ().serve(transport)).await.map_err(|_| McpError::Slow)?;
    // The error's text carries what the server said.
    let service = greeted.map_err(|_| McpError::Silent)?;
    Ok(Connected { name: name.to_owned(), service })
}

impl Connected {
    /// Every tool that it has, by name. Those whose names models cannot be given are left out.
    ///
    /// # Errors
    /// When it does not tell.
    pub async fn tools(&self) -> Result<Vec<ServedTool>, McpError> {
        let listed = tokio::time::timeout(GREETING, self.service.list_all_tools()).await.map_err(|_| McpError::Slow)?;
        let listed = listed.map_err(|error| refused(&error))?;
        let mut tools: Vec<_> = listed.into_iter().take(MOST_TOOLS).filter_map(|tool| served(&self.name, tool)).collect();
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        tools.dedup_by(|a, b| a.name == b.name);
        Ok(tools)
    }

    /// Has it use one of its tools. Dropping this future tells the server that nobody waits.
    ///
    /// # Errors
    /// When it does not answer in time, or breaks the protocol.
    pub async fn call(&self, tool: &str, arguments: Map<String, Value>) -> Result<Said, McpError> {
        let request = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let result = tokio::time::timeout(CALL, self.service.call_tool(request)).await.map_err(|_| McpError::Slow)?;
        let result = result.map_err(|error| refused(&error))?;
        let mut text: Vec<String> = result.content.into_iter().map(words).collect();
        if text.is_empty() {
            text.extend(result.structured_content.map(|value| value.to_string()));
        }
        Ok(Said { text: bounded(text.join("\n"), MOST_RESULT), ok: result.is_error != Some(true) })
    }
}

impl ServedTool {
    /// What stands for everything that the server says of it: another description or another schema is another tool.
    #[must_use]
    pub fn definition(&self) -> String {
        let parts = [self.name.as_str(), &self.description, &self.parameters.to_string()];
        let mut hash = Sha256::new_with_prefix(b"1k4-tool-v1");
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        data_encoding::HEXLOWER.encode(&hash.finalize())
    }

    /// As a model is told of it.
    #[must_use]
    pub fn spec(&self, server: &str) -> ToolSpec {
        let description = format!("A tool of the server \"{server}\". In the server's own words: {}", self.description);
        ToolSpec { name: full_name(server, &self.name), description, parameters: self.parameters.clone() }
    }
}

/// The name that models call a server's tool by.
#[must_use]
pub fn full_name(server: &str, tool: &str) -> String {
    format!("{server}__{tool}")
}

/// Whether a server can be called so: what stands before `__` in its tools' names.
#[must_use]
pub fn is_server_name(name: &str) -> bool {
    is_word(name) && name.len() <= 24 && !name.contains("__") && !name.ends_with('_')
}

fn served(server: &str, tool: rmcp::model::Tool) -> Option<ServedTool> {
    let name = tool.name.into_owned();
    // What providers take as a tool's name; longer or stranger ones would have to be given another, which then might be taken.
    let fits = is_word(&name) && !name.starts_with('_') && full_name(server, &name).len() <= 64;
    let parameters = Value::Object((*tool.input_schema).clone());
    if !fits || parameters.to_string().len() > MOST_SCHEMA {
        return None;
    }
    let description = tool.description.unwrap_or_default().chars().take(MOST_DESCRIPTION).collect();
    Some(ServedTool { name, description, parameters })
}

/// A piece of a result as words; what is no text is named and left out.
fn words(block: ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => text.text,
        ContentBlock::Image(image) => format!("[a picture, {}, is left out]", image.mime_type),
        ContentBlock::Audio(audio) => format!("[a sound, {}, is left out]", audio.mime_type),
        ContentBlock::Resource(resource) => match resource.resource {
            rmcp::model::ResourceContents::TextResourceContents { text, .. } => text,
            _ => "[a resource that is no text is left out]".to_owned(),
        },
        ContentBlock::ResourceLink(link) => format!("[a link to {}]", link.uri),
        _ => "[something that is no text is left out]".to_owned(),
    }
}

fn refused(error: &ServiceError) -> McpError {
    match error {
        ServiceError::McpError(_) => McpError::Refused,
        ServiceError::Timeout { .. } => McpError::Slow,
        _ => McpError::Silent,
    }
}
