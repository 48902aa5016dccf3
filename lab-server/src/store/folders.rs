//! Folders that a person keeps conversations in. They are seen by their owner alone and hold nothing: a folder that goes leaves its
//! conversations behind.

use std::collections::HashMap;

use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter, QueryOrder, Select,
};
use wire::{FolderId, UserId};

use super::{Store, StoreError, id, key_of, now_ms, sealed, unsealed};
use crate::vault::{Key, Place, Scope};

/// Folders within each other at most: a menu of more cannot be read.
pub const MAX_FOLDER_DEPTH: usize = 8;
/// Folders of a person at most: they are listed all at once.
const MAX_FOLDERS: u64 = 1000;

/// One of a person's folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Which.
    pub id: FolderId,
    /// Which folder it lies in; `None` for none.
    pub parent: Option<FolderId>,
    /// As its owner calls it.
    pub name: String,
    /// Grows with each change.
    pub version: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// What is to be another; `None` stays.
#[derive(Debug, Clone, Default)]
pub struct FolderChange {
    /// The name.
    pub name: Option<String>,
    /// The folder that it lies in; `Some(None)` takes it out.
    pub parent: Option<Option<FolderId>>,
}

impl Store {
    /// Makes a folder.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such parent, [`StoreError::Refused`] when it would lie too deep,
    /// [`StoreError::Full`] when there are too many.
    pub async fn add_folder(&self, owner: UserId, parent: Option<FolderId>, name: String) -> Result<Folder, StoreError> {
        let key = self.vault.create(Scope::User(owner)).await?;
        let transaction = self.write().await?;
        if of(owner).count(&transaction).await? >= MAX_FOLDERS {
            return Err(StoreError::Full("there are 1,000 folders, which is as many as there can be; delete some first"));
        }
        let folder = Folder { id: FolderId::random(), parent, name, version: 1, created_at: now_ms() };
        let mut shape = shape(&transaction, owner).await?;
        shape.push((folder.id, parent));
        check_shape(&shape)?;
        folder.row(owner, &key)?.into_active_model().insert(&transaction).await?;
        transaction.commit().await?;
        Ok(folder)
    }

    /// A person's folders, oldest first.
    ///
    /// # Errors
    /// When the database fails, or what is stored was changed.
    pub async fn folders(&self, owner: UserId) -> Result<Vec<Folder>, StoreError> {
        let rows = of(owner).order_by_asc(entity::Column::CreatedAt).order_by_asc(entity::Column::Id).all(&self.db).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.vault.key(Scope::User(owner)).await?;
        rows.into_iter().map(|row| row.open(&key)).collect()
    }

    /// Renames or moves a folder. With `seen`, only as long as it is still of that version.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such folder or parent, [`StoreError::Stale`] when it was changed meanwhile,
    /// [`StoreError::Refused`] when it would lie in itself or too deep.
    pub async fn update_folder(
        &self,
        owner: UserId,
        folder: FolderId,
        seen: Option<i64>,
        change: FolderChange,
    ) -> Result<Folder, StoreError> {
        let key = key_of(&self.vault, Scope::User(owner), "folder").await?;
        let transaction = self.write().await?;
        let row = of_owner(&transaction, owner, folder).await?;
        if seen.is_some_and(|seen| seen != row.version) {
            return Err(StoreError::Stale("folder"));
        }
        let mut changed = row.open(&key)?;
        changed.name = change.name.unwrap_or(changed.name);
        if let Some(parent) = change.parent {
            let mut shape = shape(&transaction, owner).await?;
            shape.iter_mut().filter(|(known, _)| *known == folder).for_each(|(_, above)| *above = parent);
            check_shape(&shape)?;
            changed.parent = parent;
        }
        changed.version += 1;
        changed.row(owner, &key)?.into_active_model().reset_all().update(&transaction).await?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// Deletes a folder with those in it. Conversations stay, and are in no folder then.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such folder.
    pub async fn delete_folder(&self, owner: UserId, folder: FolderId) -> Result<(), StoreError> {
        let deleted = entity::Entity::delete_many()
            .filter(entity::Column::Id.eq(folder.to_string()))
            .filter(entity::Column::UserId.eq(owner.to_string()))
            .exec(&self.db)
            .await?;
        if deleted.rows_affected == 0 { Err(StoreError::Missing("folder")) } else { Ok(()) }
    }
}

/// What lies in what.
async fn shape(db: &impl ConnectionTrait, owner: UserId) -> Result<Vec<(FolderId, Option<FolderId>)>, StoreError> {
    let rows = of(owner).all(db).await?;
    let pair = |row: entity::Model| -> Result<_, StoreError> {
        Ok((id(&row.id, "folder id")?, row.parent_id.map(|parent| id(&parent, "folder id")).transpose()?))
    };
    rows.into_iter().map(pair).collect()
}

/// Whether every folder has a way up to no folder in so many steps.
fn check_shape(shape: &[(FolderId, Option<FolderId>)]) -> Result<(), StoreError> {
    let above: HashMap<FolderId, Option<FolderId>> = shape.iter().copied().collect();
    for (folder, _) in shape {
        let (mut at, mut depth) = (Some(*folder), 0);
        while let Some(folder) = at {
            depth += 1;
            if depth > MAX_FOLDER_DEPTH {
                return Err(StoreError::Refused("a folder cannot lie in itself, nor in more than seven others"));
            }
            at = *above.get(&folder).ok_or(StoreError::Missing("folder"))?;
        }
    }
    Ok(())
}

fn of(owner: UserId) -> Select<entity::Entity> {
    entity::Entity::find().filter(entity::Column::UserId.eq(owner.to_string()))
}

/// One folder, which must be this person's.
pub(super) async fn of_owner(db: &impl ConnectionTrait, owner: UserId, folder: FolderId) -> Result<entity::Model, StoreError> {
    let row = of(owner).filter(entity::Column::Id.eq(folder.to_string())).one(db).await?;
    row.ok_or(StoreError::Missing("folder"))
}

fn place(row: &str, version: i64) -> Place<'_> {
    Place { table: "folders", column: "name", row, version }
}

impl Folder {
    fn row(&self, owner: UserId, key: &Key) -> Result<entity::Model, StoreError> {
        let row = self.id.to_string();
        Ok(entity::Model {
            name_sealed: sealed(key, place(&row, self.version), &self.name)?,
            id: row,
            user_id: owner.to_string(),
            parent_id: self.parent.map(|parent| parent.to_string()),
            version: self.version,
            created_at: self.created_at,
        })
    }
}

impl entity::Model {
    fn open(self, key: &Key) -> Result<Folder, StoreError> {
        Ok(Folder {
            id: id(&self.id, "folder id")?,
            name: unsealed(key, place(&self.id, self.version), &self.name_sealed)?,
            parent: self.parent_id.map(|parent| id(&parent, "folder id")).transpose()?,
            version: self.version,
            created_at: self.created_at,
        })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "folders")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub parent_id: Option<String>,
        pub name_sealed: Vec<u8>,
        pub version: i64,
        pub created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
