//! What people call things: sealed under the key of whoever calls it so, and found by stand-ins that only this Lab can make.
//!
//! A row whose key is gone belongs to somebody who was deleted: it is as if it were not there.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbErr, Statement, Value};
use sea_orm_migration::SchemaManager;
use wire::UserId;

use super::{Store, StoreError, id};
use crate::vault::{Key, Place, Scope, VaultError};

/// Where the migration lays names aside.
const TO_SEAL: &str = "names_to_seal";

/// A column of names: what seals them, and what they are found by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    table: &'static str,
    column: &'static str,
    /// What their stand-ins are made for.
    purpose: &'static str,
}

/// How people are called. Their stand-ins are the Lab's own: somebody is looked for before it is known who they are.
pub(super) const USERS: Names = Names { table: "users", column: "name_sealed", purpose: "users.name" };
/// How projects are called.
pub(super) const PROJECTS: Names = Names { table: "projects", column: "name_sealed", purpose: "projects.name" };
/// How API keys are called.
pub(super) const KEYS: Names = Names { table: "api_keys", column: "name_sealed", purpose: "api_keys.name" };
/// How devices are called; their stand-ins are the same whatever the case of letters.
pub(super) const DEVICES: Names = Names { table: "devices", column: "name_sealed", purpose: "devices.name" };
/// How workstations call themselves.
pub(super) const HOSTNAMES: Names = Names { table: "devices", column: "hostname_sealed", purpose: "devices.hostname" };
/// How workstations call themselves while they are paired.
pub(super) const PAIRING_HOSTNAMES: Names = Names { table: "pairings", column: "hostname_sealed", purpose: "pairings.hostname" };
/// Where a pairing was asked for from.
pub(super) const PAIRING_ADDRESSES: Names = Names { table: "pairings", column: "address_sealed", purpose: "pairings.address" };

impl Names {
    /// Seals a row's name in a version of it.
    pub(super) fn seal(self, key: &Key, row: &str, version: i64, name: &str) -> Vec<u8> {
        key.seal(self.place(row, version), name.as_bytes())
    }

    /// Opens a row's name.
    pub(super) fn open(self, key: &Key, row: &str, version: i64, sealed: &[u8]) -> Result<String, StoreError> {
        Ok(key.open_text(self.place(row, version), sealed)?)
    }

    /// What stands for a name where it must be found or be unique.
    pub(super) fn index(self, key: &Key, name: &str) -> String {
        key.blind(self.purpose, name.as_bytes()).to_string()
    }

    fn place(self, row: &str, version: i64) -> Place<'_> {
        Place { table: self.table, column: self.column, row, version }
    }
}

impl Store {
    /// What seals a person's names.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such person (any more).
    pub(super) async fn key_of(&self, user: UserId) -> Result<Key, StoreError> {
        self.vault.key(Scope::User(user)).await.map_err(|error| match error {
            VaultError::NoKey => StoreError::Missing("user"),
            error => error.into(),
        })
    }

    /// What seals the names of many people; of those who are still there.
    pub(super) async fn keys_of(&self, users: impl IntoIterator<Item = &str>) -> Result<HashMap<UserId, Key>, StoreError> {
        let mut scopes =
            users.into_iter().map(|user| Ok(Scope::User(id(user, "user id")?))).collect::<Result<Vec<_>, StoreError>>()?;
        scopes.sort_by_key(|scope| scope.owner());
        scopes.dedup();
        let keys = self.vault.keys(&scopes).await?;
        Ok(keys.into_iter().filter_map(|(scope, key)| Some((scope.owner()?, key))).collect())
    }

    /// What seals that which is nobody's.
    pub(super) async fn lab_key(&self) -> Result<Key, StoreError> {
        Ok(self.vault.key(Scope::Lab).await?)
    }

    /// Seals the names that were written before names were sealed. The migration laid them aside; they go with it.
    pub(super) async fn seal_old_names(&self) -> Result<(), StoreError> {
        if !SchemaManager::new(&self.db).has_table(TO_SEAL).await? {
            return Ok(());
        }
        let backend = self.db.get_database_backend();
        let transaction = self.write().await?;
        // Another process may have been first.
        if !SchemaManager::new(&transaction).has_table(TO_SEAL).await? {
            return Ok(());
        }
        let there = Statement::from_string(backend, "SELECT of, id, owner, name FROM names_to_seal");
        let rows = transaction.query_all_raw(there).await?;
        let lab = self.lab_key().await?;
        for row in rows {
            let (of, row_id): (String, String) = (row.try_get("", "of")?, row.try_get("", "id")?);
            let (owner, name): (String, String) = (row.try_get("", "owner")?, row.try_get("", "name")?);
            let key = self.vault.create(Scope::User(id(&owner, "user id")?)).await?;
            let (statement, values): (_, Vec<Value>) = match of.as_str() {
                "users" => (
                    "UPDATE users SET name_index = ?, name_sealed = ? WHERE id = ?",
                    vec![USERS.index(&lab, &name).into(), USERS.seal(&key, &row_id, 0, &name).into()],
                ),
                "projects" => (
                    "UPDATE projects SET name_index = ?, name_sealed = ? WHERE id = ?",
                    vec![PROJECTS.index(&key, &name).into(), PROJECTS.seal(&key, &row_id, 0, &name).into()],
                ),
                "api_keys" => {
                    ("UPDATE api_keys SET name_sealed = ? WHERE kid = ?", vec![KEYS.seal(&key, &row_id, 0, &name).into()])
                }
                "devices" => (
                    "UPDATE devices SET name_index = ?, name_sealed = ? WHERE id = ?",
                    vec![DEVICES.index(&key, &name.to_ascii_lowercase()).into(), DEVICES.seal(&key, &row_id, 0, &name).into()],
                ),
                "hostnames" => {
                    ("UPDATE devices SET hostname_sealed = ? WHERE id = ?", vec![HOSTNAMES.seal(&key, &row_id, 0, &name).into()])
                }
                _ => return Err(StoreError::Corrupt("name to seal")),
            };
            let values = values.into_iter().chain([row_id.into()]);
            transaction.execute_raw(Statement::from_sql_and_values(backend, statement, values)).await?;
        }
        transaction.execute_unprepared("DROP TABLE names_to_seal").await?;
        transaction.commit().await?;
        // The log has held them too.
        self.db.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await.map(drop).map_err(DbErr::into)
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Instant};

    use sea_orm_migration::MigratorTrait;
    use wire::{DeviceId, ProjectId};

    use super::*;
    use crate::store::{DeviceName, Enrolment, NewPairing, migration::Migrator, scratch::Scratch};

    const CANARY: &[u8] = b"canary";

    /// How often the word stands in the files of a folder.
    fn found_in(dir: &Path) -> usize {
        let files = std::fs::read_dir(dir).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
        files.map(|file| memchr::memmem::find_iter(&file.to_ascii_lowercase(), CANARY).count()).sum()
    }

    #[tokio::test]
    async fn names_that_were_there_are_sealed_and_nothing_of_them_stays() {
        let dir = std::env::temp_dir().join(format!("1k4-store-{}", wire::RequestId::random()));
        let store = Scratch::open(&dir).await;
        Migrator::up(&store.db, Some(4)).await.unwrap();
        let (user, other, kid) = (UserId::random(), UserId::random(), "0123456789ab");
        let (project, gone, device) = (ProjectId::random(), ProjectId::random(), DeviceId::random());
        for sql in [
            format!("INSERT INTO users (id, name, created_at) VALUES ('{user}', 'canary ada', 1), ('{other}', 'canary bob', 2)"),
            format!("INSERT INTO projects (id, user_id, name, created_at) VALUES ('{project}', '{user}', 'canary project', 1)"),
            format!("INSERT INTO projects (id, user_id, name, created_at, deleted_at) VALUES ('{gone}', '{user}', 'canary gone', 1, 2)"),
            format!(
                "INSERT INTO api_keys (kid, project_id, name, salt, hash, last4, created_at) \
                 VALUES ('{kid}', '{project}', 'canary key', zeroblob(16), zeroblob(32), 'last', 1)"
            ),
            format!(
                "INSERT INTO devices (id, user_id, name, public_key, hostname, os, version, created_at) \
                 VALUES ('{device}', '{user}', 'Canary-box', zeroblob(32), 'canary.local', 'Linux', '1', 1)"
            ),
            "INSERT INTO pairings (device_code_hash, user_code, public_key, hostname, os, version, address, interval_s, expires_at, state) \
             VALUES (zeroblob(32), 'A', zeroblob(32), 'canary', 'Linux', '1', '127.0.0.1', 5, 1, 'pending')"
                .to_owned(),
        ] {
            store.db.execute_unprepared(&sql).await.unwrap();
        }
        assert!(found_in(&dir) > 0);
        store.migrate().await.unwrap();
        store.migrate().await.unwrap();
        assert_eq!(found_in(&dir), 0);

        let names: Vec<String> = store.users().await.unwrap().into_iter().map(|user| user.name).collect();
        assert_eq!(names, ["canary ada", "canary bob"]);
        assert_eq!(store.user_named("canary bob").await.unwrap().unwrap().id, other);
        assert!(matches!(store.add_user("canary ada").await, Err(StoreError::Taken("a user"))));
        let projects = store.projects(user).await.unwrap();
        assert_eq!(projects.iter().map(|project| project.name.as_str()).collect::<Vec<_>>(), ["canary project"]);
        assert!(matches!(store.add_project(user, "canary project").await, Err(StoreError::Taken("a project"))));
        assert_eq!(store.keys(project).await.unwrap()[0].name, "canary key");
        let before = store.device(device).await.unwrap().unwrap();
        assert_eq!((before.name.as_str(), before.hostname.as_str()), ("Canary-box", "canary.local"));
        let second = Enrolment { owner: user, public_key: &[1; 32], hostname: "canary-BOX", os: "Linux", version: "1" };
        assert_eq!(store.enrol_device(&second).await.unwrap().name, "canary-BOX-2");
        store.rename_device(user, device, &DeviceName::parse("canary-3").unwrap()).await.unwrap();
        let pairing = NewPairing {
            device_code_hash: [7; 32],
            user_code: "BCDFGHJK".into(),
            public_key: [7; 32],
            hostname: "canary.lan".into(),
            os: "Linux".into(),
            version: "1".into(),
            address: "192.0.2.7".parse().unwrap(),
            interval_s: 5,
            expires_at: i64::MAX,
        };
        store.open_pairing(&pairing).await.unwrap();
        let found = store.pending_pairing("BCDFGHJK").await.unwrap().unwrap().request;
        assert_eq!((found.hostname, found.address), (pairing.hostname, pairing.address));
        assert_eq!(found_in(&dir), 0);
        let row = "SELECT typeof(name_index), length(name_index) FROM users WHERE length(name_index) = 43";
        let rows = store.db.query_all_raw(Statement::from_string(store.db.get_database_backend(), row)).await.unwrap();
        assert_eq!(rows.len(), 2);
        store.close().await.unwrap();
        let _ = std::fs::remove_dir_all(&dir);
    }

    #[tokio::test]
    async fn five_thousand_devices_of_as_many_people_are_read_in_a_moment() {
        const MANY: u16 = 5_000;
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let scopes: Vec<Scope> = (0..MANY).map(|_| Scope::User(UserId::random())).collect();
        let transaction = store.write().await.unwrap();
        for (number, scope) in (0..MANY).zip(&scopes) {
            let (owner, device) = (scope.owner().unwrap().to_string(), DeviceId::random().to_string());
            let key = store.vault.create(*scope).await.unwrap();
            let user = "INSERT INTO users (id, name_index, created_at) VALUES (?, ?, 1)";
            let device_row = "INSERT INTO devices (id, user_id, name_index, public_key, os, version, created_at, name_sealed, hostname_sealed) \
                 VALUES (?, ?, ?, ?, 'Linux', '1', 1, ?, ?)";
            let name = format!("box-{number}");
            let values = [
                device.clone().into(),
                owner.clone().into(),
                DEVICES.index(&key, &name).into(),
                vec![0_u8; 32].into(),
                DEVICES.seal(&key, &device, 0, &name).into(),
                HOSTNAMES.seal(&key, &device, 0, &name).into(),
            ];
            let backend = transaction.get_database_backend();
            let user = Statement::from_sql_and_values(backend, user, [owner.clone().into(), owner.into()]);
            transaction.execute_raw(user).await.unwrap();
            transaction.execute_raw(Statement::from_sql_and_values(backend, device_row, values)).await.unwrap();
        }
        transaction.commit().await.unwrap();
        // As a server that has just been started.
        let fresh = Scratch::open(&scratch.dir).await;
        let began = Instant::now();
        let devices = fresh.active_devices().await.unwrap();
        eprintln!("{} devices in {:?}", devices.len(), began.elapsed());
        assert_eq!(devices.len(), usize::from(MANY));
        let mut names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), usize::from(MANY));
    }
}
