//! Pairings under way: what a workstation said of itself, and what a person answered. They live for minutes.

use std::net::IpAddr;

use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, sea_query::Expr};
use wire::{DeviceId, UserId};

use super::{
    Device, Store, StoreError, bytes, devices, id,
    names::{PAIRING_ADDRESSES, PAIRING_HOSTNAMES},
    now_ms, taken,
};
use crate::vault::Key;

/// A pairing that a bridge asks for.
#[derive(Debug, Clone)]
pub struct NewPairing {
    /// SHA-256 of the device code.
    pub device_code_hash: [u8; 32],
    /// Eight letters, without the dash.
    pub user_code: String,
    /// The bridge's Ed25519 public key.
    pub public_key: [u8; 32],
    /// The workstation's name, as it says.
    pub hostname: String,
    /// Its operating system, as it says.
    pub os: String,
    /// The bridge's version, as it says.
    pub version: String,
    /// Where the request came from.
    pub address: IpAddr,
    /// Seconds between polls.
    pub interval_s: u32,
    /// When the code dies, milliseconds since 1970.
    pub expires_at: i64,
}

/// A pairing under way.
#[derive(Debug, Clone)]
pub struct Pairing {
    /// What the bridge asked for.
    pub request: NewPairing,
    /// What became of it.
    pub state: PairingState,
    /// When the bridge last asked, milliseconds since 1970.
    pub polled_at: Option<i64>,
}

/// What became of a pairing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairingState {
    /// Nobody has answered.
    Pending,
    /// A person said yes; the bridge has not come for it.
    Approved {
        /// Whose workstation it becomes.
        owner: UserId,
    },
    /// A person said no.
    Denied,
    /// The bridge has its device id.
    Redeemed {
        /// Which.
        device: DeviceId,
    },
}

const PENDING: &str = "pending";
const APPROVED: &str = "approved";
const DENIED: &str = "denied";
const REDEEMED: &str = "redeemed";

impl Store {
    /// Forgets pairings whose codes have been dead for an hour at this time, in milliseconds since 1970.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn purge_pairings(&self, now: i64) -> Result<(), StoreError> {
        const HOUR_MS: i64 = 3_600_000;
        entity::Entity::delete_many().filter(entity::Column::ExpiresAt.lt(now - HOUR_MS)).exec(&self.db).await?;
        Ok(())
    }

    /// Remembers a pairing until its code dies, and forgets those that have been dead for an hour.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the user code is in use: draw another.
    pub async fn open_pairing(&self, new: &NewPairing) -> Result<(), StoreError> {
        self.purge_pairings(now_ms()).await?;
        let (row, lab) = (row_of(&new.device_code_hash), self.lab_key().await?);
        entity::ActiveModel {
            hostname_sealed: Set(PAIRING_HOSTNAMES.seal(&lab, &row, 0, &new.hostname)),
            address_sealed: Set(PAIRING_ADDRESSES.seal(&lab, &row, 0, &new.address.to_string())),
            device_code_hash: Set(new.device_code_hash.to_vec()),
            user_code: Set(new.user_code.clone()),
            public_key: Set(new.public_key.to_vec()),
            os: Set(new.os.clone()),
            version: Set(new.version.clone()),
            interval_s: Set(i64::from(new.interval_s)),
            expires_at: Set(new.expires_at),
            polled_at: Set(None),
            state: Set(PENDING.to_owned()),
            user_id: Set(None),
            device_id: Set(None),
        }
        .insert(&self.db)
        .await
        .map_err(|error| taken(error, "a pairing"))?;
        Ok(())
    }

    /// The pairing that waits under this code; `None` when there is none, or it is dead or answered.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_pairing(&self, user_code: &str) -> Result<Option<Pairing>, StoreError> {
        let row = entity::Entity::find()
            .filter(entity::Column::UserCode.eq(user_code))
            .filter(entity::Column::State.eq(PENDING))
            .filter(entity::Column::ExpiresAt.gt(now_ms()))
            .one(&self.db)
            .await?;
        let lab = self.lab_key().await?;
        row.map(|row| row.opened(&lab)).transpose()
    }

    /// All that wait for an answer, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pending_pairings(&self) -> Result<Vec<Pairing>, StoreError> {
        let rows = entity::Entity::find()
            .filter(entity::Column::State.eq(PENDING))
            .filter(entity::Column::ExpiresAt.gt(now_ms()))
            .order_by_asc(entity::Column::ExpiresAt)
            .all(&self.db)
            .await?;
        let lab = self.lab_key().await?;
        rows.into_iter().map(|row| row.opened(&lab)).collect()
    }

    /// A person says yes. The bridge then has until `redeem_by` to come for its device id, so that a yes in the last second counts.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when nothing waits under this code (any more).
    pub async fn approve_pairing(&self, user_code: &str, owner: UserId, redeem_by: i64) -> Result<(), StoreError> {
        let approved = answer(user_code, APPROVED).col_expr(entity::Column::UserId, Expr::value(owner.to_string()));
        let approved = approved.col_expr(entity::Column::ExpiresAt, Expr::value(redeem_by)).exec(&self.db).await;
        answered(approved)
    }

    /// A person says no.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when nothing waits under this code (any more).
    pub async fn deny_pairing(&self, user_code: &str) -> Result<(), StoreError> {
        answered(answer(user_code, DENIED).exec(&self.db).await)
    }

    /// The pairing that this device code belongs to, dead or alive.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pairing(&self, device_code_hash: &[u8; 32]) -> Result<Option<Pairing>, StoreError> {
        let row = entity::Entity::find_by_id(device_code_hash.to_vec()).one(&self.db).await?;
        let lab = self.lab_key().await?;
        row.map(|row| row.opened(&lab)).transpose()
    }

    /// Writes down that the bridge asked, and how long it shall wait from now on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_poll(&self, device_code_hash: &[u8; 32], at: i64, interval_s: u32) -> Result<(), StoreError> {
        entity::Entity::update_many()
            .col_expr(entity::Column::PolledAt, Expr::value(at))
            .col_expr(entity::Column::IntervalS, Expr::value(i64::from(interval_s)))
            .filter(entity::Column::DeviceCodeHash.eq(device_code_hash.to_vec()))
            .exec(&self.db)
            .await?;
        Ok(())
    }

    /// The bridge comes for its device id: writes the device down once and gives the same one ever after. `None` when the pairing
    /// is not approved (any more) or the device has been revoked since.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn redeem_pairing(&self, device_code_hash: &[u8; 32]) -> Result<Option<Device>, StoreError> {
        let lab = self.lab_key().await?;
        let transaction = self.write().await?;
        let row = entity::Entity::find_by_id(device_code_hash.to_vec())
            .filter(entity::Column::ExpiresAt.gt(now_ms()))
            .one(&transaction)
            .await?;
        let Some(pairing) = row.map(|row| row.opened(&lab)).transpose()? else { return Ok(None) };
        let device = match pairing.state {
            PairingState::Pending | PairingState::Denied => None,
            PairingState::Redeemed { device } => {
                let row = devices::entity::Entity::find_by_id(device.to_string())
                    .filter(devices::entity::Column::RevokedAt.is_null())
                    .one(&transaction)
                    .await?;
                match row {
                    Some(row) => Some(row.clone().opened(&self.key_of(id(&row.user_id, "user id")?).await?)?),
                    None => None,
                }
            }
            PairingState::Approved { owner } => {
                let NewPairing { public_key, hostname, os, version, .. } = &pairing.request;
                let enrolment = devices::Enrolment { owner, public_key, hostname, os, version };
                let device = devices::enrol(&transaction, &enrolment, &self.key_of(owner).await?).await?;
                entity::Entity::update_many()
                    .col_expr(entity::Column::State, Expr::value(REDEEMED))
                    .col_expr(entity::Column::DeviceId, Expr::value(device.id.to_string()))
                    .filter(entity::Column::DeviceCodeHash.eq(device_code_hash.to_vec()))
                    .exec(&transaction)
                    .await?;
                Some(device)
            }
        };
        transaction.commit().await?;
        Ok(device)
    }
}

/// Moves a living, unanswered pairing to `state`.
fn answer(user_code: &str, state: &str) -> sea_orm::UpdateMany<entity::Entity> {
    entity::Entity::update_many()
        .col_expr(entity::Column::State, Expr::value(state))
        .filter(entity::Column::UserCode.eq(user_code))
        .filter(entity::Column::State.eq(PENDING))
        .filter(entity::Column::ExpiresAt.gt(now_ms()))
}

fn answered(result: Result<sea_orm::UpdateResult, DbErr>) -> Result<(), StoreError> {
    if result?.rows_affected == 0 { Err(StoreError::Missing("code, or it has expired or been answered")) } else { Ok(()) }
}

/// What a pairing's row is called where it is sealed.
fn row_of(device_code_hash: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(device_code_hash)
}

impl entity::Model {
    fn opened(self, lab: &Key) -> Result<Pairing, StoreError> {
        const WHAT: &str = "pairing";
        let row = self;
        let at = row_of(&row.device_code_hash);
        let hostname = PAIRING_HOSTNAMES.open(lab, &at, 0, &row.hostname_sealed)?;
        let address = PAIRING_ADDRESSES.open(lab, &at, 0, &row.address_sealed)?;
        let state = match (row.state.as_str(), row.user_id, row.device_id) {
            (PENDING, ..) => PairingState::Pending,
            (DENIED, ..) => PairingState::Denied,
            (APPROVED, Some(owner), _) => PairingState::Approved { owner: id(&owner, WHAT)? },
            (REDEEMED, _, Some(device)) => PairingState::Redeemed { device: id(&device, WHAT)? },
            _ => return Err(StoreError::Corrupt(WHAT)),
        };
        let request = NewPairing {
            device_code_hash: bytes(row.device_code_hash, WHAT)?,
            user_code: row.user_code,
            public_key: bytes(row.public_key, WHAT)?,
            hostname,
            os: row.os,
            version: row.version,
            address: id(&address, WHAT)?,
            interval_s: u32::try_from(row.interval_s).map_err(|_| StoreError::Corrupt(WHAT))?,
            expires_at: row.expires_at,
        };
        Ok(Pairing { request, state, polled_at: row.polled_at })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "pairings")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub device_code_hash: Vec<u8>,
        pub user_code: String,
        pub public_key: Vec<u8>,
        pub os: String,
        pub version: String,
        pub interval_s: i64,
        pub expires_at: i64,
        pub polled_at: Option<i64>,
        pub state: String,
        pub user_id: Option<String>,
        pub device_id: Option<String>,
        pub hostname_sealed: Vec<u8>,
        pub address_sealed: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
