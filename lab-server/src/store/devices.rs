//! Paired workstations. A device is its public key; there is no secret of it here.

use std::fmt;

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, sea_query::Expr,
};
use serde::Serialize;
use wire::{DeviceId, UserId};

use super::{
    Store, StoreError, bytes, id,
    names::{DEVICES, HOSTNAMES},
    now_ms, security_epoch, taken,
};
use crate::vault::Key;

/// A paired workstation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Which.
    pub id: DeviceId,
    /// Whose.
    pub user: UserId,
    /// What its owner calls it, as in `local@name/model`; unique among the owner's devices in use, whatever the case of letters.
    pub name: String,
    /// Its Ed25519 public key.
    #[serde(skip)]
    pub public_key: [u8; 32],
    /// The workstation's own name when it was paired.
    pub hostname: String,
    /// Its operating system when it was paired.
    pub os: String,
    /// The bridge's version when it was paired.
    pub version: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970; `None` while it may link.
    pub revoked_at: Option<i64>,
}

/// A name that fits between `local@` and `/model`: letters, digits, `.`, `_` and `-`, 1 to 63 of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceName(String);

/// A text that is no [`DeviceName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device's name is 1 to 63 letters, digits, dots, dashes or underscores, and not the id of a device")]
pub struct InvalidDeviceName;

impl DeviceName {
    const MAX: usize = 63;

    /// Takes a name that a person chose, or refuses it.
    ///
    /// # Errors
    /// [`InvalidDeviceName`] says what is allowed.
    pub fn parse(text: &str) -> Result<Self, InvalidDeviceName> {
        let fits = (1..=Self::MAX).contains(&text.len()) && text.bytes().all(is_name_byte) && text.parse::<DeviceId>().is_err();
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidDeviceName) }
    }

    /// Makes one out of whatever a workstation calls itself.
    #[must_use]
    pub fn from_hostname(hostname: &str) -> Self {
        let name: String =
            hostname.chars().take(Self::MAX - 8).map(|c| if c.is_ascii() && is_name_byte(c as u8) { c } else { '-' }).collect();
        let name = name.trim_matches(['-', '.', '_']);
        Self::parse(name).unwrap_or_else(|_| Self("workstation".to_owned()))
    }

    /// What stands for it, whatever the case of letters.
    fn index(&self, key: &Key) -> String {
        DEVICES.index(key, &self.0.to_ascii_lowercase())
    }

    /// The same with a number behind it, for the second workstation of one name.
    fn numbered(&self, number: u32) -> Self {
        if number < 2 { self.clone() } else { Self(format!("{}-{number}", self.0)) }
    }
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Store {
    /// One device, also when it is revoked: whoever holds its key is told so.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn device(&self, device: DeviceId) -> Result<Option<Device>, StoreError> {
        let row = entity::Entity::find_by_id(device.to_string()).one(&self.db).await?;
        Ok(self.opened_devices(row.into_iter().collect()).await?.pop())
    }

    /// Every device that may link, of all people.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn active_devices(&self) -> Result<Vec<Device>, StoreError> {
        let rows = entity::Entity::find().filter(entity::Column::RevokedAt.is_null()).all(&self.db).await?;
        self.opened_devices(rows).await
    }

    /// A person's devices, the revoked ones too, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn devices(&self, owner: UserId) -> Result<Vec<Device>, StoreError> {
        let rows = entity::Entity::find()
            .filter(entity::Column::UserId.eq(owner.to_string()))
            .order_by_asc(entity::Column::CreatedAt)
            .all(&self.db)
            .await?;
        self.opened_devices(rows).await
    }

    /// The devices of these rows; of those whose owner is still there.
    async fn opened_devices(&self, rows: Vec<entity::Model>) -> Result<Vec<Device>, StoreError> {
        let keys = self.keys_of(rows.iter().map(|row| row.user_id.as_str())).await?;
        let mut devices = Vec::with_capacity(rows.len());
        for row in rows {
            if let Some(key) = keys.get(&id(&row.user_id, "user id")?) {
                devices.push(row.opened(key)?);
            }
        }
        Ok(devices)
    }

    /// Gives a device that is in use another name.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when another device of the owner's has it, [`StoreError::Missing`] when the owner has no such device.
    pub async fn rename_device(&self, owner: UserId, device: DeviceId, name: &DeviceName) -> Result<(), StoreError> {
        let key = self.key_of(owner).await?;
        let transaction = self.write().await?;
        let row = entity::Entity::find_by_id(device.to_string())
            .filter(entity::Column::UserId.eq(owner.to_string()))
            .filter(entity::Column::RevokedAt.is_null())
            .one(&transaction)
            .await?
            .ok_or(StoreError::Missing("device"))?;
        let hostname = HOSTNAMES.open(&key, &row.id, row.name_version, &row.hostname_sealed)?;
        let new = row.called(&key, &name.0, &hostname);
        new.update(&transaction).await.map_err(|error| taken(error, "a device"))?;
        Ok(transaction.commit().await?)
    }

    /// Ends a device's right to link and raises the security epoch, which is returned. Doing it twice is no error and raises it once.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such device.
    pub async fn revoke_device(&self, owner: UserId, device: DeviceId) -> Result<u64, StoreError> {
        let transaction = self.write().await?;
        let revoked = entity::Entity::update_many()
            .col_expr(entity::Column::RevokedAt, Expr::value(now_ms()))
            .filter(entity::Column::Id.eq(device.to_string()))
            .filter(entity::Column::UserId.eq(owner.to_string()))
            .filter(entity::Column::RevokedAt.is_null())
            .exec(&transaction)
            .await?;
        let epoch = if revoked.rows_affected > 0 {
            security_epoch::raise(&transaction).await?
        } else {
            let known = entity::Entity::find_by_id(device.to_string())
                .filter(entity::Column::UserId.eq(owner.to_string()))
                .one(&transaction)
                .await?;
            if known.is_none() {
                return Err(StoreError::Missing("device"));
            }
            security_epoch::read(&transaction).await?
        };
        transaction.commit().await?;
        Ok(epoch)
    }

    /// Pairs a workstation without the ceremony, as a fleet of simulated bridges needs it.
    ///
    /// # Errors
    /// When the database fails, or there is no such owner.
    pub async fn enrol_device(&self, enrolment: &Enrolment<'_>) -> Result<Device, StoreError> {
        let transaction = self.write().await?;
        let device = enrol(&transaction, enrolment, &self.key_of(enrolment.owner).await?).await?;
        transaction.commit().await?;
        Ok(device)
    }
}

/// A workstation to be written down.
#[derive(Debug, Clone, Copy)]
pub struct Enrolment<'a> {
    /// Whose it becomes.
    pub owner: UserId,
    /// Its Ed25519 public key.
    pub public_key: &'a [u8; 32],
    /// Its own name; the device's name is made of it.
    pub hostname: &'a str,
    /// Its operating system.
    pub os: &'a str,
    /// The bridge's version.
    pub version: &'a str,
}

/// Writes the device down inside the caller's write transaction. A key that its owner has paired before keeps its identity and its
/// name: the same workstation signed in again.
pub(super) async fn enrol(db: &impl ConnectionTrait, new: &Enrolment<'_>, key: &Key) -> Result<Device, StoreError> {
    let mine = || {
        entity::Entity::find().filter(entity::Column::UserId.eq(new.owner.to_string())).filter(entity::Column::RevokedAt.is_null())
    };
    if let Some(row) = mine().filter(entity::Column::PublicKey.eq(new.public_key.to_vec())).one(db).await? {
        let name = DEVICES.open(key, &row.id, row.name_version, &row.name_sealed)?;
        let mut row = row.called(key, &name, new.hostname);
        row.os = Set(new.os.to_owned());
        row.version = Set(new.version.to_owned());
        return row.update(db).await?.opened(key);
    }
    let taken: Vec<String> = mine().all(db).await?.into_iter().map(|row| row.name_index).collect();
    let wanted = DeviceName::from_hostname(new.hostname);
    let name = (1..).map(|number| wanted.numbered(number)).find(|name| !taken.contains(&name.index(key)));
    let (name, id) = (name.unwrap_or(wanted), DeviceId::random().to_string());
    entity::ActiveModel {
        user_id: Set(new.owner.to_string()),
        name_index: Set(name.index(key)),
        name_sealed: Set(DEVICES.seal(key, &id, 0, &name.0)),
        hostname_sealed: Set(HOSTNAMES.seal(key, &id, 0, new.hostname)),
        name_version: Set(0),
        id: Set(id),
        public_key: Set(new.public_key.to_vec()),
        os: Set(new.os.to_owned()),
        version: Set(new.version.to_owned()),
        created_at: Set(now_ms()),
        revoked_at: Set(None),
    }
    .insert(db)
    .await?
    .opened(key)
}

impl entity::Model {
    pub(super) fn opened(self, key: &Key) -> Result<Device, StoreError> {
        Ok(Device {
            name: DEVICES.open(key, &self.id, self.name_version, &self.name_sealed)?,
            hostname: HOSTNAMES.open(key, &self.id, self.name_version, &self.hostname_sealed)?,
            id: id(&self.id, "device id")?,
            user: id(&self.user_id, "user id")?,
            public_key: bytes(self.public_key, "device key")?,
            os: self.os,
            version: self.version,
            created_at: self.created_at,
            revoked_at: self.revoked_at,
        })
    }

    /// The row's change that gives a device these names.
    fn called(self, key: &Key, name: &str, hostname: &str) -> entity::ActiveModel {
        let (id, version) = (self.id.clone(), self.name_version + 1);
        let mut row = entity::ActiveModel::from(self);
        row.name_index = Set(DEVICES.index(key, &name.to_ascii_lowercase()));
        row.name_sealed = Set(DEVICES.seal(key, &id, version, name));
        row.hostname_sealed = Set(HOSTNAMES.seal(key, &id, version, hostname));
        row.name_version = Set(version);
        row
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "devices")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub name_index: String,
        pub public_key: Vec<u8>,
        pub os: String,
        pub version: String,
        pub created_at: i64,
        pub revoked_at: Option<i64>,
        pub name_sealed: Vec<u8>,
        pub name_version: i64,
        pub hostname_sealed: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::scratch::Scratch;

    #[test]
    fn names_fit_an_address() {
        for (hostname, name) in [
            ("gpu-box", "gpu-box"),
            ("Ada's PC", "Ada-s-PC"),
            ("", "workstation"),
            ("日本", "workstation"),
            ("a/b", "a-b"),
            ("dev_00000000000000000000000000", "workstation"),
        ] {
            assert_eq!(DeviceName::from_hostname(hostname).to_string(), name, "{hostname}");
        }
        for name in ["", "a/b", "a b", "ä", &"x".repeat(64), "dev_00000000000000000000000000"] {
            assert_eq!(DeviceName::parse(name), Err(InvalidDeviceName), "{name}");
        }
    }

    #[tokio::test]
    async fn one_key_is_one_device_and_names_stay_apart() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let (ada, bob) = (store.add_user("ada").await.unwrap().id, store.add_user("bob").await.unwrap().id);
        let enrol = async |owner, key: u8, hostname: &str| {
            let enrolment = Enrolment { owner, public_key: &[key; 32], hostname, os: "Linux", version: "1" };
            store.enrol_device(&enrolment).await.unwrap()
        };
        let first = enrol(ada, 1, "box").await;
        let second = enrol(ada, 2, "BOX").await;
        let others = enrol(bob, 1, "box").await;
        assert_eq!((first.name.as_str(), second.name.as_str(), others.name.as_str()), ("box", "BOX-2", "box"));
        let again = enrol(ada, 1, "renamed").await;
        assert_eq!((again.id, again.name.as_str(), again.hostname.as_str()), (first.id, "box", "renamed"));

        let name = DeviceName::parse("Box").unwrap();
        assert!(matches!(store.rename_device(ada, second.id, &name).await, Err(StoreError::Taken("a device"))));
        assert!(matches!(store.revoke_device(bob, first.id).await, Err(StoreError::Missing("device"))));
        let epoch = store.security_epoch().await.unwrap();
        assert_eq!(store.revoke_device(ada, first.id).await.unwrap(), epoch + 1);
        assert_eq!(store.revoke_device(ada, first.id).await.unwrap(), epoch + 1);
        assert!(store.device(first.id).await.unwrap().is_some_and(|device| device.revoked_at.is_some()));
        // A revoked name and a revoked key are free again, for another identity.
        store.rename_device(ada, second.id, &name).await.unwrap();
        assert_ne!(enrol(ada, 1, "box").await.id, first.id);
    }
}
