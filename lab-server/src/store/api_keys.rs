//! API keys: their public part and what is needed to recognise the secret one. The secret itself is never here.

use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, sea_query::Expr};
use serde::Serialize;
use wire::{ProjectId, UserId};

use super::{Store, StoreError, bytes, id, now_ms, projects, security_epoch};
use crate::account::api_key::{Kid, Secret};

/// Whom a key speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyOwner {
    /// The key.
    pub key: Kid,
    /// The project that it belongs to.
    pub project: ProjectId,
    /// The project's owner.
    pub user: UserId,
}

/// A key as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiKeyRecord {
    /// Its public part.
    pub kid: Kid,
    /// Where it belongs.
    pub project: ProjectId,
    /// What its owner calls it.
    pub name: String,
    /// The last four characters of the whole key, so that its owner can tell which it is.
    pub last4: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970; `None` while it is valid.
    pub revoked_at: Option<i64>,
}

impl Store {
    /// Remembers a new key.
    ///
    /// # Errors
    /// When the database fails, or there is no such project.
    pub async fn add_key(&self, record: &ApiKeyRecord, secret: &Secret) -> Result<(), StoreError> {
        entity::ActiveModel {
            kid: Set(record.kid.to_string()),
            project_id: Set(record.project.to_string()),
            name: Set(record.name.clone()),
            salt: Set(secret.salt.to_vec()),
            hash: Set(secret.hash.to_vec()),
            last4: Set(record.last4.clone()),
            created_at: Set(record.created_at),
            revoked_at: Set(record.revoked_at),
        }
        .insert(&self.db)
        .await?;
        Ok(())
    }

    /// What recognises the key `kid` and whom it speaks for; `None` when it is unknown or revoked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn valid_key(&self, kid: Kid) -> Result<Option<(Secret, KeyOwner)>, StoreError> {
        let found = entity::Entity::find_by_id(kid.to_string())
            .filter(entity::Column::RevokedAt.is_null())
            .find_also_related(projects::entity::Entity)
            .one(&self.db)
            .await?;
        let Some((key, project)) = found else { return Ok(None) };
        let project = project.ok_or(StoreError::Corrupt("api key"))?;
        let owner = KeyOwner { key: kid, project: id(&project.id, "project id")?, user: id(&project.user_id, "user id")? };
        let secret = Secret { salt: bytes(key.salt, "api key")?, hash: bytes(key.hash, "api key")? };
        Ok(Some((secret, owner)))
    }

    /// A project's keys, the revoked ones too, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keys(&self, project: ProjectId) -> Result<Vec<ApiKeyRecord>, StoreError> {
        let rows = entity::Entity::find()
            .filter(entity::Column::ProjectId.eq(project.to_string()))
            .order_by_asc(entity::Column::CreatedAt)
            .all(&self.db)
            .await?;
        rows.into_iter().map(ApiKeyRecord::try_from).collect()
    }

    /// Ends a key for good and raises the security epoch, which is returned. Doing it twice is no error and raises it once.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such key.
    pub async fn revoke_key(&self, kid: Kid) -> Result<u64, StoreError> {
        let transaction = self.write().await?;
        let revoked = entity::Entity::update_many()
            .col_expr(entity::Column::RevokedAt, Expr::value(now_ms()))
            .filter(entity::Column::Kid.eq(kid.to_string()))
            .filter(entity::Column::RevokedAt.is_null())
            .exec(&transaction)
            .await?;
        let epoch = if revoked.rows_affected > 0 {
            security_epoch::raise(&transaction).await?
        } else if entity::Entity::find_by_id(kid.to_string()).one(&transaction).await?.is_some() {
            security_epoch::read(&transaction).await?
        } else {
            return Err(StoreError::Missing("key"));
        };
        transaction.commit().await?;
        Ok(epoch)
    }
}

impl TryFrom<entity::Model> for ApiKeyRecord {
    type Error = StoreError;

    fn try_from(row: entity::Model) -> Result<Self, StoreError> {
        Ok(Self {
            kid: id(&row.kid, "key id")?,
            project: id(&row.project_id, "project id")?,
            name: row.name,
            last4: row.last4,
            created_at: row.created_at,
            revoked_at: row.revoked_at,
        })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "api_keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub kid: String,
        pub project_id: String,
        pub name: String,
        pub salt: Vec<u8>,
        pub hash: Vec<u8>,
        pub last4: String,
        pub created_at: i64,
        pub revoked_at: Option<i64>,
    }

    // SeaORM wants one; the derived one would show salt and hash.
    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "key {}", self.kid)
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {
        #[sea_orm(
            belongs_to = "crate::store::projects::entity::Entity",
            from = "Column::ProjectId",
            to = "crate::store::projects::entity::Column::Id"
        )]
        Project,
    }

    impl Related<crate::store::projects::entity::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::Project.def()
        }
    }

    impl ActiveModelBehavior for ActiveModel {}
}
