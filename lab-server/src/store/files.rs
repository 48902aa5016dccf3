//! A project's files and their versions. Every change is a new version, renaming too; what was there before can be read and brought
//! back until it is deleted for good.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel,
    PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select, Statement,
};
use serde::{Deserialize, Serialize};
use wire::{BlobId, FileId, ProjectId, UserId};

use super::{Bookmark, Store, StoreError, blobs, id, key_of, now_ms, off_runtime, projects, sealed, taken, unsealed};
use crate::{
    lab::{content::Actor, files::Path},
    vault::{BlindIndex, Key, Place, Scope},
};

/// Bytes of all contents of a project at most, each counted once. Forty files of the largest size; twenty such projects fill the
/// disk of a small machine, and a full disk stops everybody.
const MAX_PROJECT_BYTES: i64 = 2 * 1024 * 1024 * 1024;
/// Files of a project at most, deleted ones too: all their names are opened when somebody searches.
const MAX_FILES: u64 = 10_000;

/// A file as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Which.
    pub id: FileId,
    /// In which project.
    pub project: ProjectId,
    /// Where in the project.
    pub path: Path,
    /// Its newest version, from 1.
    pub version: i64,
    /// Bytes.
    pub size: i64,
    /// What it is.
    pub media_type: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
    /// Milliseconds since 1970 when it was deleted; it can be brought back.
    pub deleted_at: Option<i64>,
}

/// A file as it was at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileVersion {
    /// Which file.
    pub file: FileId,
    /// In which project.
    pub project: ProjectId,
    /// Which version, from 1, without gaps.
    pub version: i64,
    /// Where in the project it was.
    pub path: Path,
    /// Bytes.
    pub size: i64,
    /// What it is.
    pub media_type: String,
    /// Who made it so.
    pub actor: Actor,
    /// Its content.
    pub blob: BlobId,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// That a version was made, and nothing of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeVersion {
    /// Whose.
    pub owner: UserId,
    /// In which project.
    pub project: ProjectId,
    /// Of which file.
    pub file: FileId,
    /// Which version.
    pub version: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// How a file is named.
#[derive(Debug, Clone)]
pub enum FileRef {
    /// By its identity, deleted ones too.
    Id(FileId),
    /// By where it is.
    Path(Path),
}

/// A content that lies in its place and is to be a file's newest.
#[derive(Debug, Clone)]
pub struct NewFileVersion {
    /// The content, as it is called if the project has none like it.
    pub blob: BlobId,
    /// Stands for the content.
    pub address: BlindIndex,
    /// Bytes.
    pub size: i64,
    /// What it is.
    pub media_type: String,
    /// Who made it so.
    pub actor: Actor,
}

/// What a deletion for good leaves to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    /// Of which project.
    pub project: ProjectId,
    /// The contents that nothing has any more.
    pub blobs: Vec<BlobId>,
}

/// What is sealed with a file: the newest version's words, so that a list needs no other table.
#[derive(Serialize, Deserialize)]
struct Head {
    path: Path,
    size: i64,
    media_type: String,
}

/// What is sealed with a version. The content's identity and size are in here too: those in the row are for joins and sums.
#[derive(Serialize, Deserialize)]
struct Detail {
    path: Path,
    size: i64,
    media_type: String,
    actor: Actor,
    blob: BlobId,
}

impl Store {
    /// Makes a content the newest version of the file at `path`, which is made where there is none. With `seen`, only as long as
    /// the file is of that version; 0 stands for none. The version tells which blob is used, which is the new one or an equal one.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project, [`StoreError::Stale`] when the file was changed meanwhile,
    /// [`StoreError::Full`] when the project is.
    pub async fn add_file_version(
        &self,
        owner: UserId,
        project: ProjectId,
        path: &Path,
        seen: Option<i64>,
        new: NewFileVersion,
    ) -> Result<FileVersion, StoreError> {
        let key = self.project_key(owner, project).await?;
        let transaction = self.write().await?;
        projects::of_owner(&transaction, owner, project).await?;
        let row = at(owner, project, &key, path).one(&transaction).await?;
        if seen.is_some_and(|seen| seen != row.as_ref().map_or(0, |row| row.version)) {
            return Err(StoreError::Stale("file"));
        }
        let blob = blobs::NewBlob { id: new.blob, address: new.address, size: new.size };
        let blob = blobs::keep(&transaction, owner, project, &blob, MAX_PROJECT_BYTES).await?;
        let row = match row {
            Some(row) => row,
            None => begin(&transaction, owner, project).await?,
        };
        let detail = Detail { path: path.clone(), size: new.size, media_type: new.media_type, actor: new.actor, blob };
        let version = push(&transaction, row, &key, detail).await?;
        transaction.commit().await?;
        Ok(version)
    }

    /// The versions of everybody's files that were made in the last so many milliseconds before the newest of them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest_file_versions(&self, span_ms: i64) -> Result<Vec<MadeVersion>, StoreError> {
        let sql = "SELECT f.user_id, f.project_id, v.file_id, v.version, v.created_at FROM file_versions v \
                   JOIN files f ON f.id = v.file_id JOIN projects p ON p.id = f.project_id AND p.deleted_at IS NULL \
                   WHERE v.created_at >= (SELECT MAX(created_at) FROM file_versions) - $1";
        let asked = Statement::from_sql_and_values(self.db.get_database_backend(), sql, [span_ms.into()]);
        let rows = self.db.query_all_raw(asked).await?.into_iter().map(|row| {
            let text = |column| row.try_get::<String>("", column);
            Ok(MadeVersion {
                owner: id(&text("user_id")?, "user id")?,
                project: id(&text("project_id")?, "project id")?,
                file: id(&text("file_id")?, "file id")?,
                version: row.try_get("", "version")?,
                created_at: row.try_get("", "created_at")?,
            })
        });
        rows.collect()
    }

    /// Gives a file another path.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such file, [`StoreError::Taken`] when there is one of that path,
    /// [`StoreError::Stale`] when it was changed meanwhile.
    pub async fn rename_file(
        &self,
        owner: UserId,
        file: FileId,
        to: &Path,
        seen: Option<i64>,
        actor: Actor,
    ) -> Result<FileVersion, StoreError> {
        self.again(owner, file, seen, Again::Renamed(to.clone()), actor).await
    }

    /// Makes an older version the newest once more, and brings the file back if it was deleted.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such file or it no such version, [`StoreError::Taken`] when there is another
    /// file where it was, [`StoreError::Stale`] when it was changed meanwhile.
    pub async fn restore_file(
        &self,
        owner: UserId,
        file: FileId,
        version: i64,
        seen: Option<i64>,
        actor: Actor,
    ) -> Result<FileVersion, StoreError> {
        self.again(owner, file, seen, Again::Restored(version), actor).await
    }

    async fn again(
        &self,
        owner: UserId,
        file: FileId,
        seen: Option<i64>,
        again: Again,
        actor: Actor,
    ) -> Result<FileVersion, StoreError> {
        let row = own(owner, file).one(&self.db).await?.ok_or(StoreError::Missing("file"))?;
        let project = id(&row.project_id, "project id")?;
        let key = key_of(&self.vault, Scope::Project(owner, project), "file").await?;
        let transaction = self.write().await?;
        let mut row = own(owner, file).one(&transaction).await?.ok_or(StoreError::Missing("file"))?;
        if seen.is_some_and(|seen| seen != row.version) {
            return Err(StoreError::Stale("file"));
        }
        let version = match &again {
            Again::Renamed(_) if row.deleted_at.is_some() => return Err(StoreError::Missing("file")),
            Again::Renamed(_) => row.version,
            Again::Restored(version) => *version,
        };
        let stored = versions_of(file).filter(entity_versions::Column::Version.eq(version)).one(&transaction).await?;
        let mut detail = stored.ok_or(StoreError::Missing("version"))?.detail(&key)?;
        if let Again::Renamed(path) = again {
            detail.path = path;
        }
        detail.actor = actor;
        row.deleted_at = None;
        let version = push(&transaction, row, &key, detail).await?;
        transaction.commit().await?;
        Ok(version)
    }

    /// A project's files in the order in which they were made: at most `limit` after `after`, and where to go on.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project.
    pub async fn files(
        &self,
        owner: UserId,
        project: ProjectId,
        deleted: bool,
        after: Option<Bookmark<FileId>>,
        limit: u64,
    ) -> Result<(Vec<FileEntry>, Option<Bookmark<FileId>>), StoreError> {
        projects::of_owner(&self.db, owner, project).await?;
        let mut find = of(owner, project);
        find = match deleted {
            true => find.filter(entity::Column::DeletedAt.is_not_null()),
            false => find.filter(entity::Column::DeletedAt.is_null()),
        };
        if let Some(Bookmark { time, id }) = after {
            let same_time = Condition::all().add(entity::Column::CreatedAt.eq(time)).add(entity::Column::Id.gt(id.to_string()));
            find = find.filter(Condition::any().add(entity::Column::CreatedAt.gt(time)).add(same_time));
        }
        let mut rows = find
            .order_by_asc(entity::Column::CreatedAt)
            .order_by_asc(entity::Column::Id)
            .limit(limit.saturating_add(1))
            .all(&self.db)
            .await?;
        let kept = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > kept;
        rows.truncate(kept);
        if rows.is_empty() {
            return Ok((Vec::new(), None));
        }
        let key = key_of(&self.vault, Scope::Project(owner, project), "project").await?;
        let entries: Vec<FileEntry> = off_runtime(move || rows.into_iter().map(|row| row.open(&key)).collect()).await?;
        let next = entries.last().filter(|_| more).map(|last| Bookmark { time: last.created_at, id: last.id });
        Ok((entries, next))
    }

    /// One file of a project, if the project is this person's.
    ///
    /// # Errors
    /// When the database fails, or what is stored was changed.
    pub async fn file(&self, owner: UserId, project: ProjectId, file: &FileRef) -> Result<Option<FileEntry>, StoreError> {
        let key = match self.project_key(owner, project).await {
            Err(StoreError::Missing(_)) => return Ok(None),
            key => key?,
        };
        let find = match file {
            FileRef::Id(file) => of(owner, project).filter(entity::Column::Id.eq(file.to_string())),
            FileRef::Path(path) => at(owner, project, &key, path),
        };
        find.one(&self.db).await?.map(|row| row.open(&key)).transpose()
    }

    /// A file's versions, newest first.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such file in that project.
    pub async fn file_versions(
        &self,
        owner: UserId,
        project: ProjectId,
        file: FileId,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Vec<FileVersion>, StoreError> {
        self.file(owner, project, &FileRef::Id(file)).await?.ok_or(StoreError::Missing("file"))?;
        let key = self.project_key(owner, project).await?;
        let mut find = versions_of(file);
        if let Some(before) = before {
            find = find.filter(entity_versions::Column::Version.lt(before));
        }
        let rows = find.order_by_desc(entity_versions::Column::Version).limit(limit).all(&self.db).await?;
        rows.into_iter().map(|row| row.open(project, &key)).collect()
    }

    /// One version of a file.
    ///
    /// # Errors
    /// When the database fails, or what is stored was changed.
    pub async fn file_version(
        &self,
        owner: UserId,
        project: ProjectId,
        file: &FileRef,
        version: Option<i64>,
    ) -> Result<Option<FileVersion>, StoreError> {
        let Some(entry) = self.file(owner, project, file).await? else { return Ok(None) };
        let key = self.project_key(owner, project).await?;
        let wanted = version.unwrap_or(entry.version);
        let row = versions_of(entry.id).filter(entity_versions::Column::Version.eq(wanted)).one(&self.db).await?;
        row.map(|row| row.open(project, &key)).transpose()
    }

    /// Deletes a file so that it can be brought back.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such file, or it is deleted.
    pub async fn delete_file(&self, owner: UserId, file: FileId) -> Result<(), StoreError> {
        let deleted = entity::Entity::update_many()
            .col_expr(entity::Column::DeletedAt, sea_orm::sea_query::Expr::value(now_ms()))
            .filter(entity::Column::Id.eq(file.to_string()))
            .filter(entity::Column::UserId.eq(owner.to_string()))
            .filter(entity::Column::DeletedAt.is_null())
            .exec(&self.db)
            .await?;
        if deleted.rows_affected == 0 { Err(StoreError::Missing("file")) } else { Ok(()) }
    }

    /// Deletes a file for good, with all its versions.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such file.
    pub async fn purge_file(&self, owner: UserId, file: FileId) -> Result<Purged, StoreError> {
        let transaction = self.write().await?;
        let row = own(owner, file).one(&transaction).await?.ok_or(StoreError::Missing("file"))?;
        let project = id(&row.project_id, "project id")?;
        entity::Entity::delete_by_id(row.id).exec(&transaction).await?;
        let blobs = blobs::forget_unused(&transaction, owner, project).await?;
        transaction.commit().await?;
        Ok(Purged { project, blobs })
    }
}

/// A version that has another's content.
enum Again {
    Renamed(Path),
    Restored(i64),
}

/// A file that has no version yet.
async fn begin(transaction: &DatabaseTransaction, owner: UserId, project: ProjectId) -> Result<entity::Model, StoreError> {
    if of(owner, project).count(transaction).await? >= MAX_FILES {
        return Err(StoreError::Full("the project has 10,000 files, which is as many as it can have; delete some for good first"));
    }
    let now = now_ms();
    Ok(entity::Model {
        id: FileId::random().to_string(),
        user_id: owner.to_string(),
        project_id: project.to_string(),
        path_index: Vec::new(),
        path_sealed: Vec::new(),
        version: 0,
        created_at: now,
        updated_at: now,
        deleted_at: None,
    })
}

/// Adds the next version and makes the file's row say the same.
async fn push(
    transaction: &DatabaseTransaction,
    mut row: entity::Model,
    key: &Key,
    detail: Detail,
) -> Result<FileVersion, StoreError> {
    let is_new = row.version == 0;
    let now = now_ms().max(row.updated_at);
    row.version += 1;
    row.updated_at = now;
    row.path_index = path_index(key, &detail.path);
    let head = Head { path: detail.path.clone(), size: detail.size, media_type: detail.media_type.clone() };
    row.path_sealed = sealed(key, place(&row.id, row.version), &head)?;
    let name = version_name(&row.id, row.version);
    let stored = entity_versions::ActiveModel {
        file_id: Set(row.id.clone()),
        version: Set(row.version),
        blob_id: Set(detail.blob.to_string()),
        size: Set(detail.size),
        detail_sealed: Set(sealed(key, version_place(&name, row.version), &detail)?),
        created_at: Set(now),
    };
    let version = FileVersion {
        file: id(&row.id, "file id")?,
        project: id(&row.project_id, "project id")?,
        version: row.version,
        path: detail.path,
        size: detail.size,
        media_type: detail.media_type,
        actor: detail.actor,
        blob: detail.blob,
        created_at: now,
    };
    let row = row.into_active_model().reset_all();
    let written = if is_new { row.insert(transaction).await } else { row.update(transaction).await };
    written.map_err(|error| taken(error, "a file"))?;
    stored.insert(transaction).await?;
    Ok(version)
}

fn of(owner: UserId, project: ProjectId) -> Select<entity::Entity> {
    entity::Entity::find()
        .filter(entity::Column::UserId.eq(owner.to_string()))
        .filter(entity::Column::ProjectId.eq(project.to_string()))
}

fn own(owner: UserId, file: FileId) -> Select<entity::Entity> {
    entity::Entity::find().filter(entity::Column::Id.eq(file.to_string())).filter(entity::Column::UserId.eq(owner.to_string()))
}

/// The file that is there now.
fn at(owner: UserId, project: ProjectId, key: &Key, path: &Path) -> Select<entity::Entity> {
    of(owner, project).filter(entity::Column::PathIndex.eq(path_index(key, path))).filter(entity::Column::DeletedAt.is_null())
}

fn versions_of(file: FileId) -> Select<entity_versions::Entity> {
    entity_versions::Entity::find().filter(entity_versions::Column::FileId.eq(file.to_string()))
}

fn path_index(key: &Key, path: &Path) -> Vec<u8> {
    key.blind("file path", path.as_str().as_bytes()).as_bytes().to_vec()
}

fn place(row: &str, version: i64) -> Place<'_> {
    Place { table: "files", column: "path", row, version }
}

fn version_name(file: &str, version: i64) -> String {
    format!("{file}/{version}")
}

fn version_place(row: &str, version: i64) -> Place<'_> {
    Place { table: "file_versions", column: "detail", row, version }
}

impl entity::Model {
    fn open(self, key: &Key) -> Result<FileEntry, StoreError> {
        let Head { path, size, media_type } = unsealed(key, place(&self.id, self.version), &self.path_sealed)?;
        Ok(FileEntry {
            id: id(&self.id, "file id")?,
            project: id(&self.project_id, "project id")?,
            path,
            version: self.version,
            size,
            media_type,
            created_at: self.created_at,
            updated_at: self.updated_at,
            deleted_at: self.deleted_at,
        })
    }
}

impl entity_versions::Model {
    fn detail(&self, key: &Key) -> Result<Detail, StoreError> {
        unsealed(key, version_place(&version_name(&self.file_id, self.version), self.version), &self.detail_sealed)
    }

    fn open(self, project: ProjectId, key: &Key) -> Result<FileVersion, StoreError> {
        let Detail { path, size, media_type, actor, blob } = self.detail(key)?;
        let file = id(&self.file_id, "file id")?;
        Ok(FileVersion { file, project, version: self.version, path, size, media_type, actor, blob, created_at: self.created_at })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "files")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub project_id: String,
        pub path_index: Vec<u8>,
        pub path_sealed: Vec<u8>,
        pub version: i64,
        pub created_at: i64,
        pub updated_at: i64,
        pub deleted_at: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity_versions {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "file_versions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub file_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub version: i64,
        pub blob_id: String,
        pub size: i64,
        pub detail_sealed: Vec<u8>,
        pub created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
