//! What people call things leaves the tables as text. A column that a name was found by holds its stand-in instead; the name itself is
//! in `name_sealed`. Only the vault can make either: names that are there are laid aside here, and [`crate::store::Store::migrate`]
//! seals them.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, binary},
};

use super::add;

/// Names become ciphertext.
pub(super) struct SealedNames;

impl MigrationName for SealedNames {
    fn name(&self) -> &'static str {
        "m0005_sealed_names"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for SealedNames {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        for statement in LAID_ASIDE {
            connection.execute_unprepared(statement).await?;
        }
        let sealed = |column: &'static str| binary(column).default(Vec::<u8>::new()).take();
        for table in ["users", "projects", "api_keys", "devices"] {
            add(manager, table, [sealed("name_sealed"), big_integer("name_version").default(0).take()]).await?;
        }
        add(manager, "devices", [sealed("hostname_sealed")]).await?;
        add(manager, "pairings", [sealed("hostname_sealed"), sealed("address_sealed")]).await?;
        for statement in REPLACED {
            connection.execute_unprepared(statement).await?;
        }
        Ok(())
    }
}

/// Of a deleted project nobody needs the name. A pairing lives for minutes; who is at it begins again.
const LAID_ASIDE: [&str; 7] = [
    "CREATE TABLE names_to_seal (of TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (of, id))",
    "INSERT INTO names_to_seal SELECT 'users', id, id, name FROM users",
    "INSERT INTO names_to_seal SELECT 'projects', id, user_id, name FROM projects WHERE deleted_at IS NULL",
    "INSERT INTO names_to_seal SELECT 'api_keys', kid, user_id, api_keys.name FROM api_keys JOIN projects ON projects.id = project_id",
    "INSERT INTO names_to_seal SELECT 'devices', id, user_id, name FROM devices",
    "INSERT INTO names_to_seal SELECT 'hostnames', id, user_id, hostname FROM devices",
    "DELETE FROM pairings",
];

/// Until it is sealed a row's stand-in is its own identity: unique, and nobody's name.
const REPLACED: [&str; 14] = [
    "DROP INDEX projects_of_user",
    "DROP INDEX devices_of_user",
    "ALTER TABLE users RENAME COLUMN name TO name_index",
    "ALTER TABLE projects RENAME COLUMN name TO name_index",
    "ALTER TABLE devices RENAME COLUMN name TO name_index",
    "UPDATE users SET name_index = id",
    "UPDATE projects SET name_index = id",
    "UPDATE devices SET name_index = id",
    "CREATE UNIQUE INDEX projects_of_user ON projects (user_id, name_index) WHERE deleted_at IS NULL",
    "CREATE UNIQUE INDEX devices_of_user ON devices (user_id, name_index) WHERE revoked_at IS NULL",
    "ALTER TABLE api_keys DROP COLUMN name",
    "ALTER TABLE devices DROP COLUMN hostname",
    "ALTER TABLE pairings DROP COLUMN hostname",
    "ALTER TABLE pairings DROP COLUMN address",
];
