//! The tables of people's sessions and of what they keep in the Lab. What is named `..._sealed` is ciphertext of the vault's, what is
//! named `..._index` or `..._hash` stands for a text that is nowhere.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, big_integer_null, binary, binary_null, boolean, integer, string, string_null},
};

use super::{add, belongs_to};

/// Everything of the Lab's own.
pub(super) struct Lab;

impl MigrationName for Lab {
    fn name(&self) -> &'static str {
        "m0004_lab"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Lab {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add(manager, "projects", [binary_null("instructions_sealed"), binary_null("settings_sealed")]).await?;
        add(manager, "projects", [big_integer("version").default(1).take()]).await?;
        for mut table in [
            lab_secrets(),
            identities(),
            sessions(),
            session_tokens(),
            sign_in_attempts(),
            magic_links(),
            folders(),
            conversations(),
            runs(),
            run_events(),
            messages(),
            blobs(),
            files(),
            file_versions(),
            tasks(),
            approvals(),
            rules(),
            tool_servers(),
            operations(),
            operation_heads(),
        ] {
            manager.create_table(table.take()).await?;
        }
        for index in INDEXES {
            manager.get_connection().execute_unprepared(index).await?;
        }
        Ok(())
    }
}

const INDEXES: [&str; 23] = [
    "CREATE UNIQUE INDEX identities_by_subject ON identities (provider, subject_index)",
    "CREATE INDEX identities_of_user ON identities (user_id)",
    "CREATE INDEX sessions_of_user ON sessions (user_id)",
    "CREATE INDEX session_tokens_of_session ON session_tokens (session_id)",
    "CREATE INDEX magic_links_by_address ON magic_links (address_index)",
    "CREATE INDEX folders_of_user ON folders (user_id)",
    "CREATE INDEX conversations_of_user ON conversations (user_id, updated_at)",
    "CREATE INDEX conversations_of_project ON conversations (project_id)",
    // Whatever is deleted looks for what hangs on it.
    "CREATE INDEX messages_of_parent ON messages (parent_id)",
    "CREATE INDEX folders_of_parent ON folders (parent_id)",
    "CREATE INDEX conversations_of_folder ON conversations (folder_id)",
    "CREATE INDEX file_versions_by_time ON file_versions (created_at)",
    "CREATE INDEX file_versions_of_blob ON file_versions (blob_id)",
    "CREATE INDEX messages_of_conversation ON messages (conversation_id, created_at)",
    "CREATE INDEX runs_of_conversation ON runs (conversation_id)",
    "CREATE INDEX runs_by_state ON runs (state) WHERE state IN ('queued', 'running', 'waiting')",
    "CREATE INDEX blobs_of_user ON blobs (user_id, size)",
    "CREATE UNIQUE INDEX blobs_by_address ON blobs (project_id, address_index)",
    "CREATE UNIQUE INDEX files_by_path ON files (project_id, path_index) WHERE deleted_at IS NULL",
    "CREATE INDEX tasks_of_project ON tasks (project_id)",
    "CREATE INDEX approvals_of_run ON approvals (run_id)",
    "CREATE INDEX rules_of_project ON rules (project_id)",
    "CREATE INDEX tool_servers_of_project ON tool_servers (project_id)",
];

/// What the Lab itself keeps secret, such as the key that signs the heads of operation logs.
fn lab_secrets() -> TableCreateStatement {
    Table::create().table("lab_secrets").col(string("name").primary_key()).col(binary("value_sealed")).take()
}

/// A way in which a person signs in: an account at a provider, or an address that a link is sent to.
fn identities() -> TableCreateStatement {
    Table::create()
        .table("identities")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("provider"))
        .col(binary("subject_index"))
        .col(binary("subject_sealed"))
        .col(binary_null("email_sealed"))
        .col(big_integer("created_at"))
        .col(big_integer_null("used_at"))
        .foreign_key(&mut belongs_to("identities", "user_id", "users"))
        .take()
}

/// A browser that somebody is signed in with: a family of tokens, one after the other.
fn sessions() -> TableCreateStatement {
    Table::create()
        .table("sessions")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("identity_id"))
        .col(big_integer("began_at"))
        .col(big_integer("authenticated_at"))
        .col(big_integer("used_at"))
        .col(binary("browser_sealed"))
        .foreign_key(&mut belongs_to("sessions", "user_id", "users"))
        .take()
}

fn session_tokens() -> TableCreateStatement {
    Table::create()
        .table("session_tokens")
        .col(binary("token_hash").primary_key())
        .col(string("session_id"))
        .col(big_integer("issued_at"))
        .col(big_integer_null("replaced_at"))
        .foreign_key(&mut belongs_to("session_tokens", "session_id", "sessions"))
        .take()
}

/// Somebody who is away at a provider.
fn sign_in_attempts() -> TableCreateStatement {
    Table::create()
        .table("sign_in_attempts")
        .col(binary("state_hash").primary_key())
        .col(string("provider"))
        .col(binary("browser_hash"))
        .col(binary("detail_sealed"))
        .col(string_null("session_id"))
        .col(big_integer("expires_at"))
        .foreign_key(&mut belongs_to("sign_in_attempts", "session_id", "sessions"))
        .take()
}

fn magic_links() -> TableCreateStatement {
    Table::create()
        .table("magic_links")
        .col(binary("token_hash").primary_key())
        .col(binary("address_index"))
        .col(binary("address_sealed"))
        .col(binary("browser_hash"))
        .col(binary("code_hash"))
        .col(integer("wrong_codes").default(0))
        .col(string_null("session_id"))
        .col(big_integer("created_at"))
        .col(big_integer("expires_at"))
        .foreign_key(&mut belongs_to("magic_links", "session_id", "sessions"))
        .take()
}

fn folders() -> TableCreateStatement {
    Table::create()
        .table("folders")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string_null("parent_id"))
        .col(binary("name_sealed"))
        .col(big_integer("version"))
        .col(big_integer("created_at"))
        .foreign_key(&mut belongs_to("folders", "user_id", "users"))
        .foreign_key(&mut belongs_to("folders", "parent_id", "folders"))
        .take()
}

/// A folder that goes leaves its conversations behind.
fn conversations() -> TableCreateStatement {
    Table::create()
        .table("conversations")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("project_id"))
        .col(string_null("folder_id"))
        .col(binary("title_sealed"))
        .col(binary("settings_sealed"))
        .col(string_null("leaf_id"))
        .col(boolean("pinned").default(false))
        .col(big_integer_null("archived_at"))
        .col(big_integer("version"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .foreign_key(&mut belongs_to("conversations", "user_id", "users"))
        .foreign_key(&mut belongs_to("conversations", "project_id", "projects"))
        .foreign_key(
            ForeignKey::create().from("conversations", "folder_id").to("folders", "id").on_delete(ForeignKeyAction::SetNull),
        )
        .take()
}

fn messages() -> TableCreateStatement {
    Table::create()
        .table("messages")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("conversation_id"))
        .col(string_null("parent_id"))
        .col(string("role").check(Expr::col("role").is_in(["user", "assistant"])))
        .col(binary("content_sealed"))
        .col(string_null("run_id"))
        .col(big_integer("version"))
        .col(big_integer("created_at"))
        .foreign_key(&mut belongs_to("messages", "conversation_id", "conversations"))
        // Not by cascade: a conversation of a thousand messages one below the other would be deeper than SQLite's triggers go.
        .foreign_key(ForeignKey::create().from("messages", "parent_id").to("messages", "id"))
        .take()
}

fn runs() -> TableCreateStatement {
    let states = ["queued", "running", "waiting", "done", "stopped", "failed", "interrupted", "exhausted"];
    Table::create()
        .table("runs")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("project_id"))
        .col(string("conversation_id"))
        .col(string("message_id"))
        .col(string("kind").check(Expr::col("kind").is_in(["chat", "agent"])))
        .col(string("state").check(Expr::col("state").is_in(states)))
        .col(binary("order_sealed"))
        .col(big_integer("last_seq").default(0))
        .col(big_integer("cost_nano").default(0))
        .col(big_integer("created_at"))
        .col(big_integer_null("ended_at"))
        .foreign_key(&mut belongs_to("runs", "conversation_id", "conversations"))
        .take()
}

/// What happened in a run, some events a row: the frames as they stood in the run's tail.
fn run_events() -> TableCreateStatement {
    Table::create()
        .table("run_events")
        .col(string("run_id"))
        .col(big_integer("first_seq"))
        .col(big_integer("last_seq"))
        .col(binary("frames_sealed"))
        .primary_key(Index::create().col("run_id").col("first_seq"))
        .foreign_key(&mut belongs_to("run_events", "run_id", "runs"))
        .take()
}

fn blobs() -> TableCreateStatement {
    Table::create()
        .table("blobs")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("project_id"))
        .col(binary("address_index"))
        .col(big_integer("size"))
        .col(big_integer("created_at"))
        .foreign_key(&mut belongs_to("blobs", "project_id", "projects"))
        .take()
}

fn files() -> TableCreateStatement {
    Table::create()
        .table("files")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("project_id"))
        .col(binary("path_index"))
        .col(binary("path_sealed"))
        .col(big_integer("version"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .col(big_integer_null("deleted_at"))
        .foreign_key(&mut belongs_to("files", "project_id", "projects"))
        .take()
}

fn file_versions() -> TableCreateStatement {
    Table::create()
        .table("file_versions")
        .col(string("file_id"))
        .col(big_integer("version"))
        .col(string("blob_id"))
        .col(big_integer("size"))
        .col(binary("detail_sealed"))
        .col(big_integer("created_at"))
        .primary_key(Index::create().col("file_id").col("version"))
        .foreign_key(&mut belongs_to("file_versions", "file_id", "files"))
        .foreign_key(ForeignKey::create().from("file_versions", "blob_id").to("blobs", "id"))
        .take()
}

fn tasks() -> TableCreateStatement {
    let states = ["open", "in_progress", "done", "cancelled"];
    Table::create()
        .table("tasks")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("project_id"))
        .col(string("state").check(Expr::col("state").is_in(states)))
        .col(big_integer("position"))
        .col(binary("content_sealed"))
        .col(big_integer("version"))
        .col(big_integer("created_at"))
        .col(big_integer("updated_at"))
        .foreign_key(&mut belongs_to("tasks", "project_id", "projects"))
        .take()
}

fn approvals() -> TableCreateStatement {
    let states = ["pending", "allowed", "denied", "lapsed"];
    Table::create()
        .table("approvals")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("run_id"))
        .col(string("state").check(Expr::col("state").is_in(states)))
        .col(binary("content_sealed"))
        .col(big_integer("asked_at"))
        .col(big_integer_null("decided_at"))
        .foreign_key(&mut belongs_to("approvals", "run_id", "runs"))
        .take()
}

fn rules() -> TableCreateStatement {
    Table::create()
        .table("rules")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("project_id"))
        .col(binary("content_sealed"))
        .col(big_integer("created_at"))
        .foreign_key(&mut belongs_to("rules", "project_id", "projects"))
        .take()
}

fn tool_servers() -> TableCreateStatement {
    Table::create()
        .table("tool_servers")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("project_id"))
        .col(boolean("enabled"))
        .col(binary("content_sealed"))
        .col(big_integer("version"))
        .col(big_integer("created_at"))
        .foreign_key(&mut belongs_to("tool_servers", "project_id", "projects"))
        .take()
}

/// The operation log: one chain for each project.
fn operations() -> TableCreateStatement {
    Table::create()
        .table("operations")
        .col(string("project_id"))
        .col(big_integer("seq"))
        .col(big_integer("time"))
        .col(binary("entry_sealed"))
        .col(binary("previous_hash"))
        .col(binary("hash"))
        .primary_key(Index::create().col("project_id").col("seq"))
        .foreign_key(&mut belongs_to("operations", "project_id", "projects"))
        .take()
}

fn operation_heads() -> TableCreateStatement {
    Table::create()
        .table("operation_heads")
        .col(string("project_id"))
        .col(big_integer("seq"))
        .col(binary("hash"))
        .col(binary("signature"))
        .col(big_integer("time"))
        .primary_key(Index::create().col("project_id").col("seq"))
        .foreign_key(&mut belongs_to("operation_heads", "project_id", "projects"))
        .take()
}
