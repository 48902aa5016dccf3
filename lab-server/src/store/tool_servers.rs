//! The MCP servers of projects. Their headers carry secrets, so whatever shows a server leaves them out.

use std::fmt;

use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, Select};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wire::{ProjectId, ToolServerId, UserId};
use zeroize::Zeroizing;

use super::{Store, StoreError, id, key_of, now_ms, projects, sealed, unsealed};
use crate::vault::{Key, Place, Scope};

/// Servers of a project at most: each is connected to when a run begins.
const MAX_SERVERS: usize = 20;

/// A server.
#[derive(Debug, Clone)]
pub struct ToolServer {
    /// Which.
    pub id: ToolServerId,
    /// In which project.
    pub project: ProjectId,
    /// Whether runs use it.
    pub enabled: bool,
    /// What its owner says of it.
    pub terms: ToolServerTerms,
    /// Grows with each change.
    pub version: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// What an owner says of a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ToolServerTerms {
    /// What stands before `__` in its tools' names; unique in the project.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Headers that it is sent, by name. Their values are secrets.
    pub headers: Vec<(String, HeaderSecret)>,
    /// Tools that models are told of.
    pub tools: Vec<ChosenTool>,
}

impl ToolServerTerms {
    /// Where it is, for what is kept or taken along: without a name, a password or a query, which may let somebody in.
    #[must_use]
    pub fn plain_address(&self) -> String {
        let end = self.url.find(['?', '#']).unwrap_or(self.url.len());
        let address = &self.url[..end];
        let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = host.rsplit('@').next().unwrap_or(host);
        format!("{scheme}://{host}{path}")
    }
}

/// The value of a header: shown to nobody but the server that it is for.
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderSecret(Zeroizing<String>);

impl HeaderSecret {
    /// One with this text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for the server.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HeaderSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderSecret(****)")
    }
}

/// For what is sealed only.
impl Serialize for HeaderSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HeaderSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// A tool that an owner chose, as it described itself then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenTool {
    /// The server's name of it.
    pub name: String,
    /// What stands for its description and its schema.
    pub definition: String,
}

impl Store {
    /// Adds a server to a project.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project, [`StoreError::Taken`] when it has a server of that name,
    /// [`StoreError::Full`] when it has as many as it can have.
    pub async fn add_tool_server(
        &self,
        owner: UserId,
        project: ProjectId,
        terms: ToolServerTerms,
    ) -> Result<ToolServer, StoreError> {
        let key = self.project_key(owner, project).await?;
        let now = now_ms();
        let server = ToolServer { id: ToolServerId::random(), project, enabled: true, terms, version: 1, created_at: now };
        let transaction = self.write().await?;
        projects::of_owner(&transaction, owner, project).await?;
        let others = of(owner, project).all(&transaction).await?;
        if others.len() >= MAX_SERVERS {
            return Err(StoreError::Full("the project has 20 tool servers, which is as many as it can have; remove one first"));
        }
        is_free(others, &server, &key)?;
        server.row(owner, &key)?.into_active_model().insert(&transaction).await?;
        transaction.commit().await?;
        Ok(server)
    }

    /// A project's servers, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project.
    pub async fn tool_servers(&self, owner: UserId, project: ProjectId) -> Result<Vec<ToolServer>, StoreError> {
        projects::of_owner(&self.db, owner, project).await?;
        let rows = of(owner, project).order_by_asc(entity::Column::CreatedAt).all(&self.db).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let key = key_of(&self.vault, Scope::Project(owner, project), "project").await?;
        rows.into_iter().map(|row| row.open(&key)).collect()
    }

    /// One server, if it is this person's and in this project.
    ///
    /// # Errors
    /// When the database fails, or what is stored was changed.
    pub async fn tool_server(
        &self,
        owner: UserId,
        project: ProjectId,
        server: ToolServerId,
    ) -> Result<Option<ToolServer>, StoreError> {
        let Some(row) = one(owner, project, server).one(&self.db).await? else { return Ok(None) };
        row.open(&key_of(&self.vault, Scope::Project(owner, project), "tool server").await?).map(Some)
    }

    /// Changes a server.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such server in this project, [`StoreError::Taken`] when another one is called so.
    pub async fn update_tool_server(
        &self,
        owner: UserId,
        project: ProjectId,
        server: ToolServerId,
        change: impl FnOnce(&mut bool, &mut ToolServerTerms) + Send,
    ) -> Result<ToolServer, StoreError> {
        let key = key_of(&self.vault, Scope::Project(owner, project), "tool server").await?;
        let transaction = self.write().await?;
        let row = one(owner, project, server).one(&transaction).await?.ok_or(StoreError::Missing("tool server"))?;
        let mut server = row.open(&key)?;
        change(&mut server.enabled, &mut server.terms);
        server.version += 1;
        is_free(of(owner, project).all(&transaction).await?, &server, &key)?;
        server.row(owner, &key)?.into_active_model().reset_all().update(&transaction).await?;
        transaction.commit().await?;
        Ok(server)
    }

    /// Removes a server, its secrets with it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such server in this project.
    pub async fn delete_tool_server(&self, owner: UserId, project: ProjectId, server: ToolServerId) -> Result<(), StoreError> {
        let deleted = entity::Entity::delete_many()
            .filter(entity::Column::Id.eq(server.to_string()))
            .filter(entity::Column::UserId.eq(owner.to_string()))
            .filter(entity::Column::ProjectId.eq(project.to_string()))
            .exec(&self.db)
            .await?;
        if deleted.rows_affected == 0 { Err(StoreError::Missing("tool server")) } else { Ok(()) }
    }
}

/// Whether none of the others is called as this one is.
fn is_free(others: Vec<entity::Model>, server: &ToolServer, key: &Key) -> Result<(), StoreError> {
    for other in others {
        let other = other.open(key)?;
        if other.id != server.id && other.terms.name == server.terms.name {
            return Err(StoreError::Taken("a tool server"));
        }
    }
    Ok(())
}

fn of(owner: UserId, project: ProjectId) -> Select<entity::Entity> {
    entity::Entity::find()
        .filter(entity::Column::UserId.eq(owner.to_string()))
        .filter(entity::Column::ProjectId.eq(project.to_string()))
}

fn one(owner: UserId, project: ProjectId, server: ToolServerId) -> Select<entity::Entity> {
    of(owner, project).filter(entity::Column::Id.eq(server.to_string()))
}

fn place(row: &str, version: i64) -> Place<'_> {
    Place { table: "tool_servers", column: "content_sealed", row, version }
}

impl ToolServer {
    fn row(&self, owner: UserId, key: &Key) -> Result<entity::Model, StoreError> {
        let row = self.id.to_string();
        Ok(entity::Model {
            content_sealed: sealed(key, place(&row, self.version), &self.terms)?,
            id: row,
            user_id: owner.to_string(),
            project_id: self.project.to_string(),
            enabled: self.enabled,
            version: self.version,
            created_at: self.created_at,
        })
    }
}

impl entity::Model {
    fn open(self, key: &Key) -> Result<ToolServer, StoreError> {
        Ok(ToolServer {
            terms: unsealed(key, place(&self.id, self.version), &self.content_sealed)?,
            id: id(&self.id, "tool server id")?,
            project: id(&self.project_id, "project id")?,
            enabled: self.enabled,
            version: self.version,
            created_at: self.created_at,
        })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tool_servers")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub project_id: String,
        pub enabled: bool,
        pub content_sealed: Vec<u8>,
        pub version: i64,
        pub created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::scratch::Scratch;

    #[tokio::test]
    async fn a_server_is_kept_changed_and_removed_by_its_owner_alone() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let (ada, eve) = (store.add_user("ada").await.unwrap().id, store.add_user("eve").await.unwrap().id);
        let (ours, other) = (store.add_project(ada, "p").await.unwrap().id, store.add_project(ada, "q").await.unwrap().id);
        let terms = |name: &str| ToolServerTerms {
            name: name.into(),
            url: "https://mcp.example/".into(),
            headers: vec![("authorization".into(), HeaderSecret::new("Bearer CANARY".into()))],
            tools: Vec::new(),
        };
        let wiki = store.add_tool_server(ada, ours, terms("wiki")).await.unwrap();
        assert!(!format!("{wiki:?}").contains("CANARY"));
        assert!(matches!(store.add_tool_server(ada, ours, terms("wiki")).await, Err(StoreError::Taken("a tool server"))));
        let mail = store.add_tool_server(ada, ours, terms("mail")).await.unwrap();
        assert!(matches!(store.add_tool_server(eve, ours, terms("x")).await, Err(StoreError::Missing("project"))));
        let rename = |_: &mut bool, terms: &mut ToolServerTerms| "wiki".clone_into(&mut terms.name);
        assert!(matches!(store.update_tool_server(ada, ours, mail.id, rename).await, Err(StoreError::Taken("a tool server"))));
        assert!(store.update_tool_server(eve, ours, wiki.id, rename).await.is_err());
        let tool = ChosenTool { name: "find".into(), definition: "1".into() };
        let change = |enabled: &mut bool, terms: &mut ToolServerTerms| {
            *enabled = false;
            terms.tools.push(tool.clone());
        };
        let changed = store.update_tool_server(ada, ours, wiki.id, change).await.unwrap();
        let kept = store.tool_server(ada, ours, wiki.id).await.unwrap().unwrap();
        assert_eq!((kept.enabled, kept.version, &kept.terms.tools), (false, 2, &vec![tool]));
        assert_eq!(kept.terms.headers, changed.terms.headers);
        for (owner, project) in [(eve, ours), (ada, other)] {
            assert!(store.tool_server(owner, project, wiki.id).await.unwrap().is_none());
            assert!(matches!(store.delete_tool_server(owner, project, wiki.id).await, Err(StoreError::Missing("tool server"))));
        }
        store.delete_tool_server(ada, ours, wiki.id).await.unwrap();
        assert_eq!(store.tool_servers(ada, ours).await.unwrap().len(), 1);
    }
}
