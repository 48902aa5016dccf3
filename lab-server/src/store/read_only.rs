//! A store that can only be looked at, and only as one of the people who have an account: what the assistant is given. There is no way
//! from here to anything that writes.

use wire::UserId;

use super::{ApiKeyRecord, Balance, Device, Project, RequestFilter, Store, StoreError, SumBy, UsageSum};

/// The few things of a store that the assistant may read. The store itself does not come out of it.
#[derive(Debug, Clone)]
pub struct ReadOnly(Store);

impl ReadOnly {
    /// Looks at this store.
    #[must_use]
    pub const fn of(store: Store) -> Self {
        Self(store)
    }

    /// A person's money.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn balance(&self, user: UserId) -> Result<Option<Balance>, StoreError> {
        self.0.balance(user).await
    }

    /// What a person's requests since `from` (milliseconds since 1970) come to.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn usage(&self, user: UserId, from: i64, by: SumBy) -> Result<Vec<UsageSum>, StoreError> {
        self.0.usage_sums(&RequestFilter { user: Some(user), from: Some(from), ..RequestFilter::default() }, by).await
    }

    /// A person's projects.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn projects(&self, user: UserId) -> Result<Vec<Project>, StoreError> {
        self.0.projects(user).await
    }

    /// A person's keys, with the names of their projects.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keys(&self, user: UserId) -> Result<Vec<(String, ApiKeyRecord)>, StoreError> {
        let mut keys = Vec::new();
        for project in self.0.projects(user).await? {
            let of_project = self.0.keys(project.id).await?;
            keys.extend(of_project.into_iter().map(|key| (project.name.clone(), key)));
        }
        Ok(keys)
    }

    /// A person's devices.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn devices(&self, user: UserId) -> Result<Vec<Device>, StoreError> {
        self.0.devices(user).await
    }
}
