//! API keys: their public part, their terms, and what is needed to recognise the secret one. The secret itself is never here.

use std::time::Duration;

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect, sea_query::Expr,
};
use serde::Serialize;
use wire::{ProjectId, UserId};

use super::{
    KeyTerms, ProjectSettings, Rates, Spending, Store, StoreError, bytes, id, names, now_ms, projects, rate, security_epoch,
    stored_rate, users,
};
use crate::{
    account::api_key::{Kid, Secret},
    vault::Key,
};

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

/// A key that may be used now, with everything that limits it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidKey {
    /// Whom it speaks for.
    pub owner: KeyOwner,
    /// What recognises its secret.
    pub secret: Secret,
    /// Its own terms.
    pub terms: KeyTerms,
    /// Its project's settings.
    pub project: ProjectSettings,
    /// How fast its owner may ask, with all their keys together.
    pub user_rates: Rates,
    /// What its limits are counted under: the first of the keys that came in each other's place, mostly itself.
    pub counts_as: Kid,
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
    /// The key that took its place.
    pub replaced_by: Option<Kid>,
    /// What it may do.
    #[serde(flatten)]
    pub terms: KeyTerms,
}

impl Store {
    /// Remembers a new key.
    ///
    /// # Errors
    /// When the database fails, or there is no such project.
    pub async fn add_key(&self, record: &ApiKeyRecord, secret: &Secret) -> Result<(), StoreError> {
        let owner = self.owner_of(record.project).await?.ok_or(StoreError::Missing("project"))?;
        insert(&self.db, record, secret, None, &self.key_of(owner).await?).await
    }

    /// What recognises the key `kid`, whom it speaks for and what limits it; `None` when it is unknown, revoked or expired.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn valid_key(&self, kid: Kid) -> Result<Option<ValidKey>, StoreError> {
        let not_expired = Condition::any().add(entity::Column::ExpiresAt.is_null()).add(entity::Column::ExpiresAt.gt(now_ms()));
        let found = entity::Entity::find_by_id(kid.to_string())
            .filter(entity::Column::RevokedAt.is_null())
            .filter(not_expired)
            .find_also_related(projects::entity::Entity)
            .and_also_related(users::entity::Entity)
            .one(&self.db)
            .await?;
        let Some((key, project, user)) = found else { return Ok(None) };
        let (project, user) = project.zip(user).ok_or(StoreError::Corrupt("api key"))?;
        // A key that was being made while its project went opens nothing.
        if project.deleted_at.is_some() {
            return Ok(None);
        }
        let owner = KeyOwner { key: kid, project: id(&project.id, "project id")?, user: id(&user.id, "user id")? };
        Ok(Some(ValidKey {
            owner,
            counts_as: key.counts_as.as_deref().map_or(Ok(kid), |first| id(first, "key id"))?,
            terms: key.terms()?,
            secret: Secret { salt: bytes(key.salt, "api key")?, hash: bytes(key.hash, "api key")? },
            project: project.settings()?,
            user_rates: user.rates()?,
        }))
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
        let Some(owner) = self.owner_of(project).await? else { return Ok(Vec::new()) };
        let key = self.key_of(owner).await?;
        rows.into_iter().map(|row| row.opened(&key)).collect()
    }

    /// Whose project it is, also when it was deleted.
    async fn owner_of(&self, project: ProjectId) -> Result<Option<UserId>, StoreError> {
        let row = projects::entity::Entity::find_by_id(project.to_string()).one(&self.db).await?;
        row.map(|row| id(&row.user_id, "user id")).transpose()
    }

    /// One key, if it is this person's; also when it was revoked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn key(&self, owner: UserId, kid: Kid) -> Result<Option<ApiKeyRecord>, StoreError> {
        let Some(row) = find(&self.db, owner, kid).await? else { return Ok(None) };
        row.opened(&self.key_of(owner).await?).map(Some)
    }

    /// Changes a key's name and terms, all but its environment, and gives it with the security epoch, which this raises so that
    /// running servers learn of it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the person has no such key, or it was revoked.
    pub async fn update_key(
        &self,
        owner: UserId,
        kid: Kid,
        change: impl FnOnce(&mut String, &mut KeyTerms) + Send,
    ) -> Result<(ApiKeyRecord, u64), StoreError> {
        let key = self.key_of(owner).await?;
        let transaction = self.write().await?;
        let row = find(&transaction, owner, kid).await?.filter(|row| row.revoked_at.is_none());
        let row = row.ok_or(StoreError::Missing("key"))?;
        let version = row.name_version + 1;
        let mut record = row.opened(&key)?;
        let environment = record.terms.environment;
        change(&mut record.name, &mut record.terms);
        record.terms.environment = environment;
        let mut new = active(&record, &Secret { salt: [0; 16], hash: [0; 32] }, &key, version)?;
        new.salt = sea_orm::ActiveValue::NotSet;
        new.hash = sea_orm::ActiveValue::NotSet;
        new.update(&transaction).await?;
        let epoch = security_epoch::raise(&transaction).await?;
        transaction.commit().await?;
        Ok((record, epoch))
    }

    /// Puts `new` in a key's place: same project, name and terms, and its limits, which both share. The old one ends after
    /// `overlap`, at once where that is nothing. Gives the new key's record and the security epoch.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the person has no such key, or it was revoked, has expired or was replaced before.
    pub async fn replace_key(
        &self,
        owner: UserId,
        kid: Kid,
        new: &crate::account::api_key::NewKey,
        overlap: Duration,
    ) -> Result<(ApiKeyRecord, u64), StoreError> {
        let (now, key) = (now_ms(), self.key_of(owner).await?);
        let transaction = self.write().await?;
        let row = find(&transaction, owner, kid).await?;
        let usable = |row: &entity::Model| {
            row.revoked_at.is_none() && row.replaced_by.is_none() && row.expires_at.is_none_or(|end| end > now)
        };
        let mut row = row.filter(usable).ok_or(StoreError::Missing("key that can be replaced"))?;
        let record = ApiKeyRecord {
            kid: new.kid(),
            last4: new.last4().to_owned(),
            created_at: now,
            replaced_by: None,
            ..row.clone().opened(&key)?
        };
        let counts_as = row.counts_as.clone().unwrap_or_else(|| row.kid.clone());
        insert(&transaction, &record, &new.secret(), Some(counts_as), &key).await?;
        row.replaced_by = Some(new.kid().to_string());
        if overlap.is_zero() {
            row.revoked_at = Some(now);
        } else {
            let end = now.saturating_add(i64::try_from(overlap.as_millis()).unwrap_or(i64::MAX));
            row.expires_at = Some(row.expires_at.map_or(end, |before| before.min(end)));
        }
        row.into_active_model().reset_all().update(&transaction).await?;
        let epoch = security_epoch::raise(&transaction).await?;
        transaction.commit().await?;
        Ok((record, epoch))
    }

    /// Ends a key for good, whosever it is, and raises the security epoch, which is returned. Doing it twice is no error and raises
    /// it once.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such key.
    pub async fn revoke_key(&self, kid: Kid) -> Result<u64, StoreError> {
        self.revoke(kid, None).await
    }

    /// Like [`Store::revoke_key`], for a key of this person's.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the person has no such key.
    pub async fn revoke_key_of(&self, owner: UserId, kid: Kid) -> Result<u64, StoreError> {
        self.revoke(kid, Some(owner)).await
    }

    async fn revoke(&self, kid: Kid, owner: Option<UserId>) -> Result<u64, StoreError> {
        let transaction = self.write().await?;
        let row = match owner {
            Some(owner) => find(&transaction, owner, kid).await?,
            None => entity::Entity::find_by_id(kid.to_string()).one(&transaction).await?,
        };
        let epoch = match row.ok_or(StoreError::Missing("key"))?.revoked_at {
            Some(_) => security_epoch::read(&transaction).await?,
            None => {
                let key = entity::Column::Kid.eq(kid.to_string());
                revoke_where(&transaction, key, now_ms()).await?;
                security_epoch::raise(&transaction).await?
            }
        };
        transaction.commit().await?;
        Ok(epoch)
    }
}

/// Ends all keys of a project, as part of its deletion.
pub(super) async fn revoke_all(db: &impl ConnectionTrait, project: ProjectId, now: i64) -> Result<(), StoreError> {
    revoke_where(db, entity::Column::ProjectId.eq(project.to_string()), now).await
}

async fn revoke_where(db: &impl ConnectionTrait, which: sea_orm::sea_query::SimpleExpr, now: i64) -> Result<(), StoreError> {
    entity::Entity::update_many()
        .col_expr(entity::Column::RevokedAt, Expr::value(now))
        .filter(which)
        .filter(entity::Column::RevokedAt.is_null())
        .exec(db)
        .await?;
    Ok(())
}

/// A key of this person's, in a project that is still there.
async fn find(db: &impl ConnectionTrait, owner: UserId, kid: Kid) -> Result<Option<entity::Model>, StoreError> {
    let found = entity::Entity::find_by_id(kid.to_string())
        .find_also_related(projects::entity::Entity)
        .filter(projects::entity::Column::UserId.eq(owner.to_string()))
        .filter(projects::entity::Column::DeletedAt.is_null())
        .one(db)
        .await?;
    Ok(found.map(|(key, _)| key))
}

/// What a key's spending is counted under; itself, also where nobody knows it any more.
pub(super) async fn counts_as(db: &impl ConnectionTrait, kid: &str) -> Result<String, StoreError> {
    let found: Option<Option<String>> =
        entity::Entity::find_by_id(kid.to_owned()).select_only().column(entity::Column::CountsAs).into_tuple().one(db).await?;
    Ok(found.flatten().unwrap_or_else(|| kid.to_owned()))
}

async fn insert(
    db: &impl ConnectionTrait,
    record: &ApiKeyRecord,
    secret: &Secret,
    counts_as: Option<String>,
    key: &Key,
) -> Result<(), StoreError> {
    let mut row = active(record, secret, key, 0)?;
    row.counts_as = Set(counts_as);
    row.insert(db).await?;
    Ok(())
}

/// A row whose name is sealed under its owner's key.
fn active(record: &ApiKeyRecord, secret: &Secret, key: &Key, name_version: i64) -> Result<entity::ActiveModel, StoreError> {
    let (terms, row) = (&record.terms, record.kid.to_string());
    let models = terms.models.as_ref().map(serde_json::to_string).transpose();
    Ok(entity::ActiveModel {
        name_sealed: Set(names::KEYS.seal(key, &row, name_version, &record.name)),
        name_version: Set(name_version),
        kid: Set(row),
        project_id: Set(record.project.to_string()),
        salt: Set(secret.salt.to_vec()),
        hash: Set(secret.hash.to_vec()),
        last4: Set(record.last4.clone()),
        created_at: Set(record.created_at),
        revoked_at: Set(record.revoked_at),
        environment: Set(terms.environment.as_str().to_owned()),
        scopes: Set(terms.scopes.to_string()),
        spend_day_nano: Set(terms.spending.day),
        spend_month_nano: Set(terms.spending.month),
        spend_total_nano: Set(terms.spending.total),
        requests_per_minute: Set(stored_rate(terms.rates.requests_per_minute)),
        tokens_per_minute: Set(stored_rate(terms.rates.tokens_per_minute)),
        concurrent: Set(stored_rate(terms.rates.concurrent)),
        models: Set(models.map_err(|_| StoreError::Corrupt("list of models"))?),
        expires_at: Set(terms.expires_at),
        replaced_by: Set(record.replaced_by.map(|kid| kid.to_string())),
        counts_as: sea_orm::ActiveValue::NotSet,
    })
}

impl entity::Model {
    fn opened(self, key: &Key) -> Result<ApiKeyRecord, StoreError> {
        Ok(ApiKeyRecord {
            kid: id(&self.kid, "key id")?,
            project: id(&self.project_id, "project id")?,
            terms: self.terms()?,
            replaced_by: self.replaced_by.as_deref().map(|kid| id(kid, "key id")).transpose()?,
            name: names::KEYS.open(key, &self.kid, self.name_version, &self.name_sealed)?,
            last4: self.last4,
            created_at: self.created_at,
            revoked_at: self.revoked_at,
        })
    }

    fn terms(&self) -> Result<KeyTerms, StoreError> {
        let models = self.models.as_deref().map(serde_json::from_str).transpose();
        Ok(KeyTerms {
            environment: id(&self.environment, "environment")?,
            scopes: id(&self.scopes, "scopes")?,
            spending: Spending { day: self.spend_day_nano, month: self.spend_month_nano, total: self.spend_total_nano },
            rates: Rates {
                requests_per_minute: rate(self.requests_per_minute)?,
                tokens_per_minute: rate(self.tokens_per_minute)?,
                concurrent: rate(self.concurrent)?,
            },
            models: models.map_err(|_| StoreError::Corrupt("list of models"))?,
            expires_at: self.expires_at,
        })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "api_keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub kid: String,
        pub project_id: String,
        pub salt: Vec<u8>,
        pub hash: Vec<u8>,
        pub last4: String,
        pub created_at: i64,
        pub revoked_at: Option<i64>,
        pub environment: String,
        pub scopes: String,
        pub spend_day_nano: Option<i64>,
        pub spend_month_nano: Option<i64>,
        pub spend_total_nano: Option<i64>,
        pub requests_per_minute: Option<i64>,
        pub tokens_per_minute: Option<i64>,
        pub concurrent: Option<i64>,
        pub models: Option<String>,
        pub expires_at: Option<i64>,
        pub replaced_by: Option<String>,
        pub counts_as: Option<String>,
        pub name_sealed: Vec<u8>,
        pub name_version: i64,
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::{
        account::{api_key::Environment, create_key, rotate_key},
        store::{Charge, RequestRecord, Scope, Settlement, SpendingWindow, sample, scratch::Scratch, spending},
    };

    fn terms() -> KeyTerms {
        KeyTerms {
            environment: Environment::Test,
            scopes: [Scope::Inference].into_iter().collect(),
            spending: Spending { day: Some(1), month: Some(2), total: None },
            rates: Rates { requests_per_minute: NonZeroU32::new(60), ..Rates::default() },
            models: Some(vec!["gpt-5*".parse().unwrap()]),
            expires_at: None,
        }
    }

    #[tokio::test]
    async fn terms_come_back_as_they_went_and_only_the_owner_changes_them() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let (ada, eve) = (store.add_user("ada").await.unwrap().id, store.add_user("eve").await.unwrap().id);
        let project = store.add_project(ada, "default").await.unwrap().id;
        let (new, record) = create_key(store, project, "k", terms()).await.unwrap();
        assert_eq!(store.key(ada, new.kid()).await.unwrap(), Some(record.clone()));
        assert_eq!(store.key(eve, new.kid()).await.unwrap(), None);
        let valid = store.valid_key(new.kid()).await.unwrap().unwrap();
        assert_eq!((valid.terms, valid.project, valid.user_rates), (terms(), ProjectSettings::default(), Rates::default()));

        let epoch = store.security_epoch().await.unwrap();
        let change = |name: &mut String, terms: &mut KeyTerms| {
            "other".clone_into(name);
            *terms = KeyTerms::default();
        };
        assert!(matches!(store.update_key(eve, new.kid(), change).await, Err(StoreError::Missing("key"))));
        let (changed, raised) = store.update_key(ada, new.kid(), change).await.unwrap();
        let expected = KeyTerms { environment: Environment::Test, ..KeyTerms::default() };
        assert_eq!((changed.terms.clone(), raised), (expected, epoch + 1));
        assert_eq!(store.keys(project).await.unwrap(), [changed]);
        // The secret is the one that it was.
        let key = new.reveal().parse().unwrap();
        assert!(crate::account::authenticate(store, &key).await.unwrap().is_some());
        assert!(matches!(store.revoke_key_of(eve, new.kid()).await, Err(StoreError::Missing("key"))));
        assert_eq!(store.revoke_key_of(ada, new.kid()).await.unwrap(), epoch + 2);
        assert!(matches!(store.update_key(ada, new.kid(), change).await, Err(StoreError::Missing("key"))));
    }

    #[tokio::test]
    async fn an_expired_key_is_no_key() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let ada = store.add_user("ada").await.unwrap().id;
        let project = store.add_project(ada, "default").await.unwrap().id;
        for (expires_at, valid) in [(now_ms() - 1, false), (now_ms() + 60_000, true)] {
            let terms = KeyTerms { expires_at: Some(expires_at), ..KeyTerms::default() };
            let (new, _) = create_key(store, project, "k", terms).await.unwrap();
            assert_eq!(store.valid_key(new.kid()).await.unwrap().is_some(), valid);
        }
    }

    #[tokio::test]
    async fn a_replaced_key_ends_after_the_overlap_and_shares_its_spending() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let ada = store.add_user("ada").await.unwrap().id;
        let project = store.add_project(ada, "default").await.unwrap().id;
        let (old, record) = create_key(store, project, "k", terms()).await.unwrap();
        spending::add(&store.db, &old.kid().to_string(), SpendingWindow::Total, "", 7).await.unwrap();

        let hour = Duration::from_secs(3600);
        let (second, renewed, _) = rotate_key(store, ada, old.kid(), hour).await.unwrap();
        let same = ApiKeyRecord { kid: second.kid(), last4: second.last4().into(), created_at: renewed.created_at, ..record };
        assert_eq!(renewed, same);
        assert!(second.reveal().starts_with("1k4_test_"));
        let ending = store.key(ada, old.kid()).await.unwrap().unwrap();
        assert_eq!((ending.revoked_at, ending.replaced_by), (None, Some(second.kid())));
        assert!((3_590_000..=3_600_000).contains(&(ending.terms.expires_at.unwrap() - now_ms())));
        assert!(store.valid_key(old.kid()).await.unwrap().is_some());
        assert_eq!(store.spent(second.kid(), now_ms()).await.unwrap().total, 7);
        assert!(matches!(rotate_key(store, ada, old.kid(), hour).await, Err(StoreError::Missing("key that can be replaced"))));

        let (third, ..) = rotate_key(store, ada, second.kid(), Duration::ZERO).await.unwrap();
        assert!(store.valid_key(second.kid()).await.unwrap().is_none());
        assert_eq!(store.valid_key(third.kid()).await.unwrap().unwrap().counts_as, old.kid());
        for (key, nano) in [(old.kid(), 1), (third.kid(), 2)] {
            let record = RequestRecord { key: key.to_string(), cost_nano: nano, ..sample::record(ada, now_ms()) };
            store.grant(ada, nano, &format!("{nano}")).await.unwrap();
            store.write_settlements(&[Settlement { record, charge: Charge::Credits }]).await.unwrap();
        }
        for key in [old, second, third] {
            assert_eq!(store.spent(key.kid(), now_ms()).await.unwrap().total, 10);
        }
    }
}
