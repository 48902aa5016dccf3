//! The MCP servers of a run's project, and what models are told of their tools.

use std::sync::Arc;

use serde_json::Value;
use wire::{ProjectId, UserId};

use super::{AgentParts, hands::Done};
use crate::{
    lab::{
        prompt::ToolSpec,
        tools::{
            MOST_TEXT, bounded,
            mcp::{self, Connected, McpError, ServedTool},
        },
    },
    store::{StoreError, ToolServer},
};

/// The servers that a run can use.
pub(super) struct Servers(Vec<Server>);

struct Server {
    name: String,
    connection: Arc<Connected>,
    tools: Vec<ServedTool>,
}

impl Servers {
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    /// Connects to a project's servers, all at once. One that does not answer is left out: its tools do not exist for this run.
    pub(super) async fn connect(parts: &AgentParts, owner: UserId, project: ProjectId) -> Result<Self, StoreError> {
        let known = parts.store.tool_servers(owner, project).await?;
        let wanted = known.into_iter().filter(|server| server.enabled && !server.terms.tools.is_empty());
        let connecting = wanted.map(async |server: ToolServer| {
            let id = server.id;
            let found = look(parts, server).await;
            if let Err(error) = &found {
                tracing::info!(%error, %id, "a tool server is of no use to a run");
            }
            found.ok()
        });
        Ok(Self(futures_util::future::join_all(connecting).await.into_iter().flatten().collect()))
    }

    /// What models are told of all their tools.
    pub(super) fn specs(&self) -> impl Iterator<Item = ToolSpec> {
        self.0.iter().flat_map(|server| server.tools.iter().map(|tool| tool.spec(&server.name)))
    }

    /// The server, its own name of the tool and its definition, for a name as models are told it.
    pub(super) fn find(&self, name: &str) -> Option<(usize, String, String)> {
        let (server, tool) = name.split_once("__")?;
        let at = self.0.iter().position(|known| known.name == server)?;
        let tool = self.0[at].tools.iter().find(|known| known.name == tool)?;
        Some((at, tool.name.clone(), tool.definition()))
    }

    pub(super) fn connection(&self, server: usize) -> Option<Arc<Connected>> {
        self.0.get(server).map(|server| Arc::clone(&server.connection))
    }
}

/// Connects, and keeps of the tools those that were chosen and are still what they were then.
async fn look(parts: &AgentParts, server: ToolServer) -> Result<Server, McpError> {
    let terms = server.terms;
    let connection = mcp::connect(&parts.reach, &terms.name, &terms.url, &terms.headers).await?;
    let mut tools = connection.tools().await?;
    tools.retain(|tool| {
        let definition = tool.definition();
        terms.tools.iter().any(|chosen| chosen.name == tool.name && chosen.definition == definition)
    });
    Ok(Server { name: terms.name, connection: Arc::new(connection), tools })
}

/// Has a server use a tool.
pub(super) async fn call(connection: Option<Arc<Connected>>, tool: &str, arguments: Value, logged: Value) -> Done {
    let failed = |code, text| Done { text, failed: Some(code), arguments: logged.clone(), usage: None };
    let (Some(connection), Value::Object(arguments)) = (connection, arguments) else {
        return failed("not_found", "there is no such tool".to_owned());
    };
    match connection.call(tool, arguments).await {
        Ok(said) if said.ok => Done { text: bounded(said.text, MOST_TEXT), failed: None, arguments: logged, usage: None },
        Ok(said) => failed("tool_failed", bounded(said.text, MOST_TEXT)),
        Err(error) => failed("tool_server_failed", error.to_string()),
    }
}
