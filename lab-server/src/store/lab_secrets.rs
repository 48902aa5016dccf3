//! What the Lab itself keeps secret, sealed under its own key.

use sea_orm::{ActiveValue::Set, EntityTrait};

use super::{Store, StoreError};
use crate::vault::{Opened, Place, Scope};

impl Store {
    /// A secret of the Lab's by name, as `make` makes it when it is asked for the first time. Of two processes that ask at once both
    /// get the same.
    ///
    /// # Errors
    /// When it does not open: the row was changed, or the master key is another one.
    pub async fn lab_secret(&self, name: &'static str, make: impl FnOnce() -> Vec<u8> + Send) -> Result<Opened, StoreError> {
        let key = self.vault.create(Scope::Lab).await?;
        let place = Place { table: "lab_secrets", column: "value_sealed", row: name, version: 0 };
        if let Some(row) = entity::Entity::find_by_id(name).one(&self.db).await? {
            return Ok(key.open(place, &row.value_sealed)?);
        }
        let made = Opened::new(make());
        let row = entity::ActiveModel { name: Set(name.to_owned()), value_sealed: Set(key.seal(place, &made)) };
        entity::Entity::insert(row).on_conflict_do_nothing().exec(&self.db).await?;
        let row = entity::Entity::find_by_id(name).one(&self.db).await?.ok_or(StoreError::Missing("secret"))?;
        Ok(key.open(place, &row.value_sealed)?)
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "lab_secrets")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        pub value_sealed: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
