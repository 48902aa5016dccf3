//! The tables, and the order in which they came to be. A migration that has been released is never edited.

mod lab;
mod sealed_names;

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, big_integer_null, big_pk_auto, binary, boolean, integer, string, string_null},
};

/// Every migration, oldest first.
pub(super) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(First), Box::new(Proxy), Box::new(Replacements), Box::new(lab::Lab), Box::new(sealed_names::SealedNames)]
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

/// Money, what limits keys, projects and people, and the price list of each record.
struct Proxy;

impl MigrationName for Proxy {
    fn name(&self) -> &'static str {
        "m0002_proxy"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Proxy {
    /// All or nothing, and on one connection: another one might not have seen yet that the index is gone.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let rates = || ["requests_per_minute", "tokens_per_minute", "concurrent"].map(big_integer_null);
        let spending = ["spend_day_nano", "spend_month_nano", "spend_total_nano"].map(big_integer_null);
        let live = string("environment").default("live").check(Expr::col("environment").is_in(["live", "test"])).take();
        let key = [live, string("scopes").default("inference,usage").take(), string_null("models"), big_integer_null("expires_at")];
        add(manager, "users", rates()).await?;
        add(manager, "projects", [boolean("exact_usage").default(false).take(), big_integer_null("deleted_at")]).await?;
        add(manager, "projects", rates()).await?;
        add(manager, "api_keys", key).await?;
        add(manager, "api_keys", [string_null("replaced_by")]).await?;
        add(manager, "api_keys", spending).await?;
        add(manager, "api_keys", rates()).await?;
        add(manager, "requests", [string_null("prices")]).await?;
        for mut table in [balances(), ledger(), key_spending()] {
            manager.create_table(table.take()).await?;
        }
        let connection = manager.get_connection();
        for statement in MONEY {
            connection.execute_unprepared(statement).await?;
        }
        Ok(())
    }
}

/// Keys that came in each other's place share what limits them. Those that were replaced before this began with what the ones
/// before them had spent, and go on by themselves.
struct Replacements;

impl MigrationName for Replacements {
    fn name(&self) -> &'static str {
        "m0003_replacements"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Replacements {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        add(manager, "api_keys", [string_null("counts_as")]).await
    }
}

/// One statement for each column: SQLite adds one at a time.
async fn add<const N: usize>(manager: &SchemaManager<'_>, table: &'static str, columns: [ColumnDef; N]) -> Result<(), DbErr> {
    for mut column in columns {
        manager.alter_table(Table::alter().table(table).add_column(column.take()).take()).await?;
    }
    Ok(())
}

/// What the query builder has no words for. The triggers are SQLite's; everything else PostgreSQL reads too.
const MONEY: [&str; 7] = [
    // A deleted project's name is free again.
    "DROP INDEX projects_of_user",
    "CREATE UNIQUE INDEX projects_of_user ON projects (user_id, name) WHERE deleted_at IS NULL",
    "INSERT INTO balances (user_id, balance_nano, free_requests_left) SELECT id, 0, 20 FROM users",
    "CREATE INDEX ledger_of_user ON ledger (user_id, seq)",
    "CREATE INDEX ledger_of_requests ON ledger (time) WHERE request IS NOT NULL",
    "CREATE TRIGGER ledger_keeps_entries BEFORE DELETE ON ledger \
     BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
    "CREATE TRIGGER ledger_keeps_money BEFORE UPDATE OF seq, time, user_id, kind, amount_nano, idempotency_key ON ledger \
     BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END",
];

fn balances() -> TableCreateStatement {
    Table::create()
        .table("balances")
        .col(string("user_id").primary_key())
        .col(big_integer("balance_nano").check(Expr::col("balance_nano").gte(0)))
        .col(integer("free_requests_left").check(Expr::col("free_requests_left").gte(0)))
        .foreign_key(&mut belongs_to("balances", "user_id", "users"))
        .take()
}

/// No foreign keys: an entry outlives what it names.
fn ledger() -> TableCreateStatement {
    Table::create()
        .table("ledger")
        .col(big_pk_auto("seq"))
        .col(big_integer("time"))
        .col(string("user_id"))
        .col(string("kind").check(Expr::col("kind").is_in(["grant", "usage", "free", "adjustment", "refund"])))
        .col(big_integer("amount_nano"))
        .col(string("idempotency_key").unique_key())
        .col(string_null("request"))
        .col(string_null("project"))
        .col(string_null("key"))
        .take()
}

fn key_spending() -> TableCreateStatement {
    Table::create()
        .table("spending")
        .col(string("kid"))
        .col(string("window").check(Expr::col("window").is_in(["day", "month", "total"])))
        .col(string("bucket"))
        .col(big_integer("spent_nano"))
        .primary_key(Index::create().col("kid").col("window").col("bucket"))
        .take()
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

#[cfg(test)]
mod tests {
    use sea_orm_migration::MigratorTrait;

    use super::*;
    use crate::store::{Balance, KeyTerms, scratch::Scratch};

    #[tokio::test]
    async fn what_was_there_before_money_has_its_defaults() {
        let dir = std::env::temp_dir().join(format!("1k4-store-{}", wire::RequestId::random()));
        let store = Scratch::open(&dir).await;
        Migrator::up(&store.db, Some(1)).await.unwrap();
        let (user, project, kid) = (wire::UserId::random(), wire::ProjectId::random(), "0123456789ab");
        for sql in [
            format!("INSERT INTO users VALUES ('{user}', 'ada', 1)"),
            format!("INSERT INTO projects VALUES ('{project}', '{user}', 'default', 1)"),
            format!("INSERT INTO api_keys VALUES ('{kid}', '{project}', 'k', zeroblob(16), zeroblob(32), 'last', 1, NULL)"),
        ] {
            store.db.execute_unprepared(&sql).await.unwrap();
        }
        store.migrate().await.unwrap();
        store.migrate().await.unwrap();
        let balance = Balance { balance_nano: 0, free_requests_left: 20, had_credits: false };
        assert_eq!(store.balance(user).await.unwrap(), Some(balance));
        assert_eq!(store.valid_key(kid.parse().unwrap()).await.unwrap().unwrap().terms, KeyTerms::default());
        store.close().await.unwrap();
        let _ = std::fs::remove_dir_all(&dir);
    }
}
