//! The ways in which people sign in: accounts at providers, and addresses that links are sent to.
//!
//! An identity is a provider and what that provider calls the person for ever. It is looked up by a stand-in under the Lab's key; the
//! texts themselves are sealed under the person's, so that they go with the person. Nothing is ever found or joined by an e-mail address
//! that a provider names.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    sea_query::Expr,
};
use wire::{IdentityId, SessionId, UserId};

use super::{Store, StoreError, id, security_epoch, sessions, taken};
use crate::vault::{BlindIndex, Key, Place, Scope};

const TABLE: &str = "identities";
const SUBJECT: &str = "identity subject";

/// Who somebody is at a provider.
#[derive(Clone, PartialEq, Eq)]
pub struct Subject {
    /// The provider's name in the configuration, or [`MAIL`].
    pub provider: String,
    /// What it calls the person, for ever; for [`MAIL`] the normalised address.
    pub subject: String,
    /// The address that the provider vouches for, to show to its owner only.
    pub email: Option<String>,
}

/// The provider of links by mail; no configured provider can have this name.
pub const MAIL: &str = "mail";

/// One way in which a person signs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Which.
    pub id: IdentityId,
    /// Whose.
    pub user: UserId,
    /// At which provider.
    pub provider: String,
    /// The address that its owner is shown.
    pub email: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// When somebody last signed in with it.
    pub used_at: Option<i64>,
}

/// No texts of people's.
impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// No texts of people's.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).field("provider", &self.provider).finish_non_exhaustive()
    }
}

impl Store {
    /// Lets a person sign in as this subject from now on.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the subject is somebody's already.
    pub async fn add_identity(&self, user: UserId, subject: &Subject, now: i64) -> Result<Identity, StoreError> {
        let key = self.vault.create(Scope::User(user)).await?;
        let index = self.subject_index(subject).await?;
        insert(&self.db, &key, index, user, subject, now).await
    }

    /// Whom this subject is; nobody, where it never signed in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn identity_of(&self, subject: &Subject) -> Result<Option<(IdentityId, UserId)>, StoreError> {
        let index = self.subject_index(subject).await?;
        let row = entity::Entity::find()
            .filter(entity::Column::Provider.eq(&subject.provider))
            .filter(entity::Column::SubjectIndex.eq(index.as_bytes().to_vec()))
            .one(&self.db)
            .await?;
        row.map(|row| Ok((id(&row.id, TABLE)?, id(&row.user_id, TABLE)?))).transpose()
    }

    /// A person's identities, oldest first.
    ///
    /// # Errors
    /// When the database fails or a row does not open.
    pub async fn identities(&self, user: UserId) -> Result<Vec<Identity>, StoreError> {
        let rows = of(user).order_by_asc(entity::Column::CreatedAt).order_by_asc(entity::Column::Id).all(&self.db).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.vault.key(Scope::User(user)).await?;
        rows.into_iter().map(|row| opened(&key, row)).collect()
    }

    /// Notes that somebody signed in with it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_identity_used(&self, identity: IdentityId, now: i64) -> Result<(), StoreError> {
        entity::Entity::update_many()
            .col_expr(entity::Column::UsedAt, Expr::value(now))
            .filter(entity::Column::Id.eq(identity.to_string()))
            .exec(&self.db)
            .await?;
        Ok(())
    }

    /// Takes one of a person's identities away, but never the last, and ends the sessions that came in by it, but for `current`. Gives
    /// the security epoch, which it raises.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the person has no such identity, [`StoreError::Refused`] when it is the only one.
    pub async fn remove_identity(&self, user: UserId, identity: IdentityId, current: SessionId) -> Result<u64, StoreError> {
        let transaction = self.write().await?;
        let mine = of(user).filter(entity::Column::Id.eq(identity.to_string())).one(&transaction).await?;
        let mine = mine.ok_or(StoreError::Missing("identity"))?;
        if of(user).count(&transaction).await? < 2 {
            return Err(StoreError::Refused("this is the only way to sign in; add another one first"));
        }
        sessions::entity::Entity::delete_many()
            .filter(sessions::entity::Column::UserId.eq(user.to_string()))
            .filter(sessions::entity::Column::IdentityId.eq(&mine.id))
            .filter(sessions::entity::Column::Id.ne(current.to_string()))
            .exec(&transaction)
            .await?;
        entity::Entity::delete_by_id(mine.id).exec(&transaction).await?;
        let epoch = security_epoch::raise(&transaction).await?;
        transaction.commit().await?;
        Ok(epoch)
    }

    /// What a person is called at a provider, as many times as they are there.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when their key is gone.
    pub(super) async fn subjects_at(&self, user: UserId, provider: &str) -> Result<Vec<String>, StoreError> {
        let key = self.key_of(user).await?;
        let rows = of(user).filter(entity::Column::Provider.eq(provider)).all(&self.db).await?;
        rows.iter().map(|row| Ok(key.open_text(place("subject_sealed", &row.id), &row.subject_sealed)?)).collect()
    }

    async fn subject_index(&self, subject: &Subject) -> Result<BlindIndex, StoreError> {
        let lab = self.vault.key(Scope::Lab).await?;
        Ok(lab.blind(SUBJECT, subject.subject.as_bytes()))
    }
}

fn of(user: UserId) -> sea_orm::Select<entity::Entity> {
    entity::Entity::find().filter(entity::Column::UserId.eq(user.to_string()))
}

async fn insert(
    db: &impl ConnectionTrait,
    key: &Key,
    index: BlindIndex,
    user: UserId,
    subject: &Subject,
    now: i64,
) -> Result<Identity, StoreError> {
    let identity = Identity {
        id: IdentityId::random(),
        user,
        provider: subject.provider.clone(),
        email: subject.email.clone(),
        created_at: now,
        used_at: None,
    };
    let row = identity.id.to_string();
    let sealed = |column, text: &str| key.seal(place(column, &row), text.as_bytes());
    entity::ActiveModel {
        id: Set(row.clone()),
        user_id: Set(user.to_string()),
        provider: Set(subject.provider.clone()),
        subject_index: Set(index.as_bytes().to_vec()),
        subject_sealed: Set(sealed("subject_sealed", &subject.subject)),
        email_sealed: Set(subject.email.as_deref().map(|email| sealed("email_sealed", email))),
        created_at: Set(now),
        used_at: Set(None),
    }
    .insert(db)
    .await
    .map_err(|error| taken(error, "an identity"))?;
    Ok(identity)
}

fn opened(key: &Key, row: entity::Model) -> Result<Identity, StoreError> {
    let email = match &row.email_sealed {
        None => None,
        Some(sealed) => {
            let opened = key.open(place("email_sealed", &row.id), sealed)?;
            Some(String::from_utf8(opened.to_vec()).map_err(|_| StoreError::Corrupt("identity"))?)
        }
    };
    Ok(Identity {
        id: id(&row.id, "identity")?,
        user: id(&row.user_id, "identity")?,
        provider: row.provider,
        email,
        created_at: row.created_at,
        used_at: row.used_at,
    })
}

fn place<'a>(column: &'static str, row: &'a str) -> Place<'a> {
    Place { table: TABLE, column, row, version: 0 }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identities")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub provider: String,
        pub subject_index: Vec<u8>,
        pub subject_sealed: Vec<u8>,
        pub email_sealed: Option<Vec<u8>>,
        pub created_at: i64,
        pub used_at: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
