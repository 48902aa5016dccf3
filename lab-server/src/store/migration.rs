//! The tables, and the order in which they came to be. A migration that has been released is never edited.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, big_integer_null, binary, boolean, integer, string, string_null},
};

/// Every migration, oldest first.
pub(super) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(First)]
    }
}

/// Users, projects, keys, devices, pairings, records.
struct First;

impl MigrationName for First {
    fn name(&self) -> &'static str {
        "m0001_first"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for First {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for mut table in [users(), projects(), api_keys(), devices(), pairings(), requests(), security_epoch()] {
            manager.create_table(table.take()).await?;
        }
        let connection = manager.get_connection();
        for index in INDEXES {
            connection.execute_unprepared(index).await?;
        }
        super::security_epoch::begin(connection).await
    }
}

/// As texts, because the query builder has no words for partial indices. Both SQLite and PostgreSQL read them.
const INDEXES: [&str; 8] = [
    "CREATE UNIQUE INDEX projects_of_user ON projects (user_id, name)",
    "CREATE INDEX api_keys_of_project ON api_keys (project_id)",
    "CREATE UNIQUE INDEX devices_of_user ON devices (user_id, lower(name)) WHERE revoked_at IS NULL",
    "CREATE INDEX pairings_by_expiry ON pairings (expires_at)",
    "CREATE INDEX requests_by_time ON requests (time)",
    "CREATE INDEX requests_of_user ON requests (\"user\", time)",
    "CREATE INDEX requests_of_project ON requests (project, time)",
    "CREATE UNIQUE INDEX device_keys_of_user ON devices (user_id, public_key) WHERE revoked_at IS NULL",
];

fn users() -> TableCreateStatement {
    Table::create()
        .table("users")
        .col(string("id").primary_key())
        .col(string("name").unique_key())
        .col(big_integer("created_at"))
        .take()
}

fn projects() -> TableCreateStatement {
    Table::create()
        .table("projects")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("name"))
        .col(big_integer("created_at"))
        .foreign_key(&mut belongs_to("projects", "user_id", "users"))
        .take()
}

fn api_keys() -> TableCreateStatement {
    Table::create()
        .table("api_keys")
        .col(string("kid").primary_key())
        .col(string("project_id"))
        .col(string("name"))
        .col(binary("salt"))
        .col(binary("hash"))
        .col(string("last4"))
        .col(big_integer("created_at"))
        .col(big_integer_null("revoked_at"))
        .foreign_key(&mut belongs_to("api_keys", "project_id", "projects"))
        .take()
}

fn devices() -> TableCreateStatement {
    Table::create()
        .table("devices")
        .col(string("id").primary_key())
        .col(string("user_id"))
        .col(string("name"))
        .col(binary("public_key"))
        .col(string("hostname"))
        .col(string("os"))
        .col(string("version"))
        .col(big_integer("created_at"))
        .col(big_integer_null("revoked_at"))
        .foreign_key(&mut belongs_to("devices", "user_id", "users"))
        .take()
}

fn pairings() -> TableCreateStatement {
    Table::create()
        .table("pairings")
        .col(binary("device_code_hash").primary_key())
        .col(string("user_code").unique_key())
        .col(binary("public_key"))
        .col(string("hostname"))
        .col(string("os"))
        .col(string("version"))
        .col(string("address"))
        .col(big_integer("interval_s"))
        .col(big_integer("expires_at"))
        .col(big_integer_null("polled_at"))
        .col(string("state").check(Expr::col("state").is_in(["pending", "approved", "denied", "redeemed"])))
        .col(string_null("user_id"))
        .col(string_null("device_id"))
        .foreign_key(&mut belongs_to("pairings", "user_id", "users"))
        .foreign_key(&mut belongs_to("pairings", "device_id", "devices"))
        .take()
}

/// No foreign keys: a record outlives what it names, and is written in batches off the request's path.
fn requests() -> TableCreateStatement {
    Table::create()
        .table("requests")
        .col(string("id").primary_key())
        .col(big_integer("time"))
        .col(string("model"))
        .col(string("operation"))
        .col(string_null("device"))
        .col(string_null("provider"))
        .col(big_integer_null("input_tokens"))
        .col(big_integer_null("output_tokens"))
        .col(big_integer("cost_nano"))
        .col(string("user"))
        .col(string("project"))
        .col(string("key"))
        .col(big_integer("latency_ms"))
        .col(big_integer_null("first_token_ms"))
        .col(boolean("stream"))
        .col(integer("status"))
        .col(string("outcome"))
        .col(boolean("estimated"))
        .take()
}

fn security_epoch() -> TableCreateStatement {
    Table::create()
        .table("security_epoch")
        .col(integer("id").primary_key().check(Expr::col("id").eq(1)))
        .col(big_integer("epoch"))
        .take()
}

fn belongs_to(table: &'static str, column: &'static str, parent: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create().from(table, column).to(parent, "id").on_delete(ForeignKeyAction::Cascade).take()
}
