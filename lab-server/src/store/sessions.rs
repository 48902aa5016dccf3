//! The browsers that people are signed in with. Each is a family of tokens that follow one another; only their hashes are here.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, sea_query::Expr,
};
use wire::{IdentityId, SessionId, UserId};

use super::{Store, StoreError, id, security_epoch};
use crate::vault::{Place, Scope};

/// A browser that somebody is signed in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Which.
    pub id: SessionId,
    /// Who.
    pub user: UserId,
    /// What they signed in with.
    pub identity: IdentityId,
    /// Milliseconds since 1970, as all that follow.
    pub began_at: i64,
    /// When they last proved who they are.
    pub authenticated_at: i64,
    /// When it was last used, to the minute.
    pub used_at: i64,
}

/// A token as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRecord {
    /// Milliseconds since 1970, as what follows.
    pub issued_at: i64,
    /// When another took its place; `None` while it is the newest.
    pub replaced_at: Option<i64>,
}

impl Store {
    /// Writes a new session with its first token down. `browser` is what its owner will know it by.
    ///
    /// # Errors
    /// When the database fails, or there is no such person.
    pub async fn add_session(&self, session: &SessionRecord, browser: &str, token_hash: &[u8; 32]) -> Result<(), StoreError> {
        let row = session.id.to_string();
        let key = self.vault.create(Scope::User(session.user)).await?;
        let transaction = self.write().await?;
        entity::ActiveModel {
            id: Set(row.clone()),
            user_id: Set(session.user.to_string()),
            identity_id: Set(session.identity.to_string()),
            began_at: Set(session.began_at),
            authenticated_at: Set(session.authenticated_at),
            used_at: Set(session.used_at),
            browser_sealed: Set(key.seal(browser_place(&row), browser.as_bytes())),
        }
        .insert(&transaction)
        .await?;
        issue(&transaction, session.id, token_hash, session.began_at).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// The session that a token belongs to, and how that token stands.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session_of(&self, token_hash: &[u8; 32]) -> Result<Option<(SessionRecord, TokenRecord)>, StoreError> {
        let Some(token) = tokens::Entity::find_by_id(token_hash.to_vec()).one(&self.db).await? else { return Ok(None) };
        let Some(session) = entity::Entity::find_by_id(token.session_id).one(&self.db).await? else { return Ok(None) };
        Ok(Some((session.try_into()?, TokenRecord { issued_at: token.issued_at, replaced_at: token.replaced_at })))
    }

    /// Whether a session is still there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session_exists(&self, session: SessionId) -> Result<bool, StoreError> {
        Ok(entity::Entity::find_by_id(session.to_string()).one(&self.db).await?.is_some())
    }

    /// Puts a token in the place of another. `false` when that one was replaced before or its session has ended: then nothing is
    /// changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replace_token(
        &self,
        session: SessionId,
        old_hash: &[u8; 32],
        new_hash: &[u8; 32],
        now: i64,
    ) -> Result<bool, StoreError> {
        let transaction = self.write().await?;
        let replaced = tokens::Entity::update_many()
            .col_expr(tokens::Column::ReplacedAt, Expr::value(now))
            .filter(tokens::Column::TokenHash.eq(old_hash.to_vec()))
            .filter(tokens::Column::SessionId.eq(session.to_string()))
            .filter(tokens::Column::ReplacedAt.is_null())
            .exec(&transaction)
            .await?;
        if replaced.rows_affected == 0 {
            return Ok(false);
        }
        issue(&transaction, session, new_hash, now).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Notes that a session was used.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_session_used(&self, session: SessionId, now: i64) -> Result<(), StoreError> {
        entity::Entity::update_many()
            .col_expr(entity::Column::UsedAt, Expr::value(now))
            .filter(entity::Column::Id.eq(session.to_string()))
            .exec(&self.db)
            .await?;
        Ok(())
    }

    /// Notes that a session's person has proved once more who they are. This new token takes the place of the one before it. `false` when the session is
    /// over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn confirm_session(&self, session: SessionId, token_hash: &[u8; 32], now: i64) -> Result<bool, StoreError> {
        let transaction = self.write().await?;
        let confirmed = entity::Entity::update_many()
            .col_expr(entity::Column::AuthenticatedAt, Expr::value(now))
            .col_expr(entity::Column::UsedAt, Expr::value(now))
            .filter(entity::Column::Id.eq(session.to_string()))
            .exec(&transaction)
            .await?;
        if confirmed.rows_affected == 0 {
            return Ok(false);
        }
        tokens::Entity::update_many()
            .col_expr(tokens::Column::ReplacedAt, Expr::value(now))
            .filter(tokens::Column::SessionId.eq(session.to_string()))
            .filter(tokens::Column::ReplacedAt.is_null())
            .exec(&transaction)
            .await?;
        issue(&transaction, session, token_hash, now).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Ends one of a person's sessions, and gives the security epoch, which it raises so that what runs for it learns of it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the person has no such session.
    pub async fn end_session(&self, user: UserId, session: SessionId) -> Result<u64, StoreError> {
        let transaction = self.write().await?;
        let ended = entity::Entity::delete_many()
            .filter(entity::Column::Id.eq(session.to_string()))
            .filter(entity::Column::UserId.eq(user.to_string()))
            .exec(&transaction)
            .await?;
        if ended.rows_affected == 0 {
            return Err(StoreError::Missing("session"));
        }
        let epoch = security_epoch::raise(&transaction).await?;
        transaction.commit().await?;
        Ok(epoch)
    }

    /// Ends all of a person's sessions but one, if one is to stay, and gives the security epoch.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_sessions(&self, user: UserId, but: Option<SessionId>) -> Result<u64, StoreError> {
        let transaction = self.write().await?;
        let mut ending = entity::Entity::delete_many().filter(entity::Column::UserId.eq(user.to_string()));
        if let Some(kept) = but {
            ending = ending.filter(entity::Column::Id.ne(kept.to_string()));
        }
        ending.exec(&transaction).await?;
        let epoch = security_epoch::raise(&transaction).await?;
        transaction.commit().await?;
        Ok(epoch)
    }

    /// A person's sessions that began or were used after these times, with what the browser is called, last used first.
    ///
    /// # Errors
    /// When the database fails or a row does not open.
    pub async fn sessions(
        &self,
        user: UserId,
        began_after: i64,
        used_after: i64,
    ) -> Result<Vec<(SessionRecord, String)>, StoreError> {
        let rows = entity::Entity::find()
            .filter(entity::Column::UserId.eq(user.to_string()))
            .filter(entity::Column::BeganAt.gt(began_after))
            .filter(entity::Column::UsedAt.gt(used_after))
            .order_by_desc(entity::Column::UsedAt)
            .order_by_asc(entity::Column::Id)
            .all(&self.db)
            .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.vault.key(Scope::User(user)).await?;
        let open = |row: entity::Model| {
            let browser = key.open(browser_place(&row.id), &row.browser_sealed)?;
            let browser = String::from_utf8(browser.to_vec()).map_err(|_| StoreError::Corrupt("session"))?;
            Ok((row.try_into()?, browser))
        };
        rows.into_iter().map(open).collect()
    }
}

async fn issue(db: &impl ConnectionTrait, session: SessionId, token_hash: &[u8; 32], now: i64) -> Result<(), StoreError> {
    let token = tokens::ActiveModel {
        token_hash: Set(token_hash.to_vec()),
        session_id: Set(session.to_string()),
        issued_at: Set(now),
        replaced_at: Set(None),
    };
    token.insert(db).await?;
    Ok(())
}

fn browser_place(row: &str) -> Place<'_> {
    Place { table: "sessions", column: "browser_sealed", row, version: 0 }
}

impl TryFrom<entity::Model> for SessionRecord {
    type Error = StoreError;

    fn try_from(row: entity::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: id(&row.id, "session")?,
            user: id(&row.user_id, "session")?,
            identity: id(&row.identity_id, "session")?,
            began_at: row.began_at,
            authenticated_at: row.authenticated_at,
            used_at: row.used_at,
        })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "sessions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub identity_id: String,
        pub began_at: i64,
        pub authenticated_at: i64,
        pub used_at: i64,
        pub browser_sealed: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod tokens {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "session_tokens")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub token_hash: Vec<u8>,
        pub session_id: String,
        pub issued_at: i64,
        pub replaced_at: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
