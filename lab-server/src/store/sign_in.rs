//! People on their way in: those who are away at a provider, and the links that were mailed. All of it lives for minutes.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter,
    sea_query::Expr,
};
use wire::{SessionId, UserId};

use super::{MAIL, Store, StoreError, bytes, id, security_epoch};
use crate::{
    clock::millis,
    vault::{Opened, Place, Scope},
};

/// Somebody who is away at a provider.
#[derive(Debug, Clone, Copy)]
pub struct NewAttempt<'a> {
    /// SHA-256 of what the provider is to hand back.
    pub state_hash: &'a [u8; 32],
    /// SHA-256 of what the browser keeps meanwhile.
    pub browser_hash: &'a [u8; 32],
    /// Where they went.
    pub provider: &'a str,
    /// What is needed when they come back; sealed.
    pub detail: &'a [u8],
    /// The session that it happens inside of, if it does.
    pub session: Option<SessionId>,
    /// Milliseconds since 1970.
    pub expires_at: i64,
}

/// Somebody who came back.
pub struct Attempt {
    /// SHA-256 of what the browser must show.
    pub browser_hash: [u8; 32],
    /// Where they went.
    pub provider: String,
    /// What was kept for them.
    pub detail: Opened,
    /// The session that it must happen inside of.
    pub session: Option<SessionId>,
}

/// A link to be mailed.
#[derive(Debug, Clone, Copy)]
pub struct NewLink<'a> {
    /// SHA-256 of its token.
    pub token_hash: &'a [u8; 32],
    /// The normalised address.
    pub address: &'a str,
    /// What is needed when it is used; sealed.
    pub detail: &'a [u8],
    /// SHA-256 of what the browser keeps that asked for it; `None` for an invitation, which nobody asked for.
    pub browser_hash: Option<&'a [u8; 32]>,
    /// The code that another browser must show.
    pub code: &'a str,
    /// The session that it happens inside of, if it does.
    pub session: Option<SessionId>,
    /// Milliseconds since 1970, as what follows.
    pub created_at: i64,
    /// When it dies.
    pub expires_at: i64,
}

/// A link that is good.
pub struct Link {
    /// SHA-256 of what the browser must show, or else a code; `None` for an invitation.
    pub browser_hash: Option<[u8; 32]>,
    /// What was kept for it.
    pub detail: Opened,
    /// The session that it must be used inside of.
    pub session: Option<SessionId>,
}

/// Links for one address in [`LINK_WINDOW`].
const LINKS: u64 = 5;
const LINK_WINDOW: std::time::Duration = std::time::Duration::from_secs(3600);
/// With so many wrong codes a link is dead, and its address gets no other for [`LOCKOUT`] (SECURITY 4.5 and 4.9).
const WRONG_CODES: i32 = 5;
const LOCKOUT: std::time::Duration = std::time::Duration::from_secs(900);
/// When a link died that was used up or replaced: before anybody's now. Two requests may have read the clock in another order than the
/// database serves them in.
const LONG_AGO: i64 = 0;
const ADDRESS: &str = "link address";
const CODE: &str = "link code";

impl Store {
    /// Remembers somebody who goes to a provider.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_attempt(&self, new: &NewAttempt<'_>) -> Result<(), StoreError> {
        let lab = self.vault.key(Scope::Lab).await?;
        attempts::ActiveModel {
            state_hash: Set(new.state_hash.to_vec()),
            provider: Set(new.provider.to_owned()),
            browser_hash: Set(new.browser_hash.to_vec()),
            detail_sealed: Set(lab.seal(detail_place(&hex(new.state_hash)), new.detail)),
            session_id: Set(new.session.map(|session| session.to_string())),
            expires_at: Set(new.expires_at),
        }
        .insert(&self.db)
        .await?;
        Ok(())
    }

    /// Whoever comes back with this state; they come back once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_attempt(&self, state_hash: &[u8; 32], now: i64) -> Result<Option<Attempt>, StoreError> {
        let transaction = self.write().await?;
        let Some(row) = attempts::Entity::find_by_id(state_hash.to_vec()).one(&transaction).await? else { return Ok(None) };
        attempts::Entity::delete_by_id(state_hash.to_vec()).exec(&transaction).await?;
        transaction.commit().await?;
        if row.expires_at <= now {
            return Ok(None);
        }
        let lab = self.vault.key(Scope::Lab).await?;
        Ok(Some(Attempt {
            browser_hash: bytes(row.browser_hash, "attempt")?,
            detail: lab.open(detail_place(&hex(state_hash)), &row.detail_sealed)?,
            provider: row.provider,
            session: row.session_id.as_deref().map(|session| id(session, "attempt")).transpose()?,
        }))
    }

    /// Remembers a link, which ends those that the address had before. `false` when the address had too many, or somebody guessed its
    /// codes: then nothing is remembered.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_link(&self, new: &NewLink<'_>) -> Result<bool, StoreError> {
        let lab = self.vault.key(Scope::Lab).await?;
        let index = lab.blind(ADDRESS, new.address.as_bytes()).as_bytes().to_vec();
        let transaction = self.write().await?;
        let of_address = || links::Entity::find().filter(links::Column::AddressIndex.eq(index.clone()));
        let lately = new.created_at.saturating_sub(millis(LINK_WINDOW));
        let locked = new.created_at.saturating_sub(millis(LOCKOUT));
        let count = of_address().filter(links::Column::CreatedAt.gt(lately)).count(&transaction).await?;
        let guessed = of_address()
            .filter(links::Column::WrongCodes.gte(WRONG_CODES))
            .filter(links::Column::ExpiresAt.gt(locked))
            .count(&transaction)
            .await?;
        if count >= LINKS || guessed > 0 {
            return Ok(false);
        }
        links::Entity::update_many()
            .col_expr(links::Column::ExpiresAt, Expr::value(LONG_AGO))
            .filter(links::Column::AddressIndex.eq(index.clone()))
            .filter(links::Column::ExpiresAt.gt(new.created_at))
            .exec(&transaction)
            .await?;
        links::ActiveModel {
            token_hash: Set(new.token_hash.to_vec()),
            address_index: Set(index),
            address_sealed: Set(lab.seal(address_place(&hex(new.token_hash)), new.detail)),
            browser_hash: Set(new.browser_hash.map(|hash| hash.to_vec()).unwrap_or_default()),
            code_hash: Set(lab.blind(CODE, &[&new.token_hash[..], new.code.as_bytes()].concat()).as_bytes().to_vec()),
            wrong_codes: Set(0),
            session_id: Set(new.session.map(|session| session.to_string())),
            created_at: Set(new.created_at),
            expires_at: Set(new.expires_at),
        }
        .insert(&transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// A link that is good, to look at.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn link(&self, token_hash: &[u8; 32], now: i64) -> Result<Option<Link>, StoreError> {
        let row = links::Entity::find_by_id(token_hash.to_vec())
            .filter(links::Column::ExpiresAt.gt(now))
            .filter(links::Column::WrongCodes.lt(WRONG_CODES))
            .one(&self.db)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let lab = self.vault.key(Scope::Lab).await?;
        Ok(Some(Link {
            browser_hash: if row.browser_hash.is_empty() { None } else { Some(bytes(row.browser_hash, "link")?) },
            detail: lab.open(address_place(&hex(token_hash)), &row.address_sealed)?,
            session: row.session_id.as_deref().map(|session| id(session, "link")).transpose()?,
        }))
    }

    /// Whether a code is a good link's. Every try is counted before it is looked at, so that a thousand at once are a thousand; after
    /// the fifth wrong one the link is dead.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn try_code(&self, token_hash: &[u8; 32], code: &str, now: i64) -> Result<bool, StoreError> {
        let transaction = self.write().await?;
        let counted = links::Entity::update_many()
            .col_expr(links::Column::WrongCodes, Expr::col(links::Column::WrongCodes).add(1))
            .filter(links::Column::TokenHash.eq(token_hash.to_vec()))
            .filter(links::Column::WrongCodes.lt(WRONG_CODES))
            .filter(links::Column::ExpiresAt.gt(now))
            .exec(&transaction)
            .await?;
        if counted.rows_affected == 0 {
            return Ok(false);
        }
        let row = links::Entity::find_by_id(token_hash.to_vec()).one(&transaction).await?.ok_or(StoreError::Missing("link"))?;
        let lab = self.vault.key(Scope::Lab).await?;
        let expected = lab.blind(CODE, &[&token_hash[..], code.as_bytes()].concat());
        let right = bool::from(subtle::ConstantTimeEq::ct_eq(&expected.as_bytes()[..], &row.code_hash[..]));
        let this = links::Entity::update_many().filter(links::Column::TokenHash.eq(token_hash.to_vec()));
        if right {
            // The tries before the right one lock nobody out.
            this.col_expr(links::Column::WrongCodes, Expr::value(0)).exec(&transaction).await?;
        } else if row.wrong_codes >= WRONG_CODES {
            // The lockout counts from here.
            this.col_expr(links::Column::ExpiresAt, Expr::value(now)).exec(&transaction).await?;
        }
        transaction.commit().await?;
        Ok(right)
    }

    /// Uses a link up. `false` when it is none, or somebody was first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn use_link(&self, token_hash: &[u8; 32], now: i64) -> Result<bool, StoreError> {
        let used = links::Entity::update_many()
            .col_expr(links::Column::ExpiresAt, Expr::value(LONG_AGO))
            .filter(links::Column::TokenHash.eq(token_hash.to_vec()))
            .filter(links::Column::ExpiresAt.gt(now))
            .filter(links::Column::WrongCodes.lt(WRONG_CODES))
            .exec(&self.db)
            .await?;
        Ok(used.rows_affected == 1)
    }

    /// Forgets who did not come back, links whose time in the counts is over, and sessions that began or were last used before these
    /// times, all as milliseconds since 1970. Gives how many sessions went; where some did, the security epoch is raised, so that what
    /// runs for them learns of it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn purge_sign_in(&self, now: i64, began_before: i64, used_before: i64) -> Result<u64, StoreError> {
        attempts::Entity::delete_many().filter(attempts::Column::ExpiresAt.lte(now)).exec(&self.db).await?;
        links::Entity::delete_many()
            .filter(links::Column::CreatedAt.lte(now.saturating_sub(millis(LINK_WINDOW))))
            .filter(links::Column::ExpiresAt.lte(now.saturating_sub(millis(LOCKOUT))))
            .exec(&self.db)
            .await?;
        let old = super::sessions::entity::Column::BeganAt.lte(began_before);
        let idle = super::sessions::entity::Column::UsedAt.lte(used_before);
        let transaction = self.write().await?;
        let ended = super::sessions::entity::Entity::delete_many().filter(old.or(idle)).exec(&transaction).await?;
        if ended.rows_affected > 0 {
            security_epoch::raise(&transaction).await?;
        }
        transaction.commit().await?;
        Ok(ended.rows_affected)
    }
}

/// What the links to a person's addresses are found by.
pub(super) async fn link_indices(store: &Store, user: UserId) -> Result<Vec<Vec<u8>>, StoreError> {
    let lab = store.vault.key(Scope::Lab).await?;
    let subjects = match store.subjects_at(user, MAIL).await {
        // Whose key is gone has been through here.
        Err(StoreError::Missing(_)) => Vec::new(),
        found => found?,
    };
    Ok(subjects.iter().map(|address| lab.blind(ADDRESS, address.as_bytes()).as_bytes().to_vec()).collect())
}

/// Forgets the links and invitations of these addresses.
pub(super) async fn forget_links(db: &impl ConnectionTrait, indices: Vec<Vec<u8>>) -> Result<(), StoreError> {
    links::Entity::delete_many().filter(links::Column::AddressIndex.is_in(indices)).exec(db).await?;
    Ok(())
}

fn detail_place(row: &str) -> Place<'_> {
    Place { table: "sign_in_attempts", column: "detail_sealed", row, version: 0 }
}

fn address_place(row: &str) -> Place<'_> {
    Place { table: "magic_links", column: "address_sealed", row, version: 0 }
}

fn hex(hash: &[u8; 32]) -> String {
    data_encoding::HEXLOWER.encode(hash)
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod attempts {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "sign_in_attempts")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub state_hash: Vec<u8>,
        pub provider: String,
        pub browser_hash: Vec<u8>,
        pub detail_sealed: Vec<u8>,
        pub session_id: Option<String>,
        pub expires_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod links {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "magic_links")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub token_hash: Vec<u8>,
        pub address_index: Vec<u8>,
        pub address_sealed: Vec<u8>,
        pub browser_hash: Vec<u8>,
        pub code_hash: Vec<u8>,
        pub wrong_codes: i32,
        pub session_id: Option<String>,
        pub created_at: i64,
        pub expires_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
