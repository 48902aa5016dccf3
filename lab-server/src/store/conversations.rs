//! Conversations: which project and folder they are in, what they are called, which of their branches is read. Each has a key of its
//! own; with the key it is gone.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel,
    QueryFilter, QueryOrder, QuerySelect, Select,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{ConversationId, FolderId, MessageId, ProjectId, UserId};

use super::{Bookmark, Store, StoreError, folders, id, key_of, messages, now_ms, off_runtime, projects, sealed, unsealed};
use crate::{
    lab::content::ModelChoice,
    vault::{Key, Place, Scope, VaultError},
};

/// One of a person's conversations.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// Which.
    pub id: ConversationId,
    /// Whose.
    pub user: UserId,
    /// Which project it belongs to.
    pub project: ProjectId,
    /// Which folder it lies in.
    pub folder: Option<FolderId>,
    /// As its owner calls it; `None` as long as they have not said.
    pub title: Option<String>,
    /// How it is held.
    pub settings: ConversationSettings,
    /// The last message of the branch that is read.
    pub leaf: Option<MessageId>,
    /// Whether it stays on top.
    pub pinned: bool,
    /// Milliseconds since 1970 when it was put away.
    pub archived_at: Option<i64>,
    /// Grows with each change of what is above, but not with messages.
    pub version: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970 of the last message or change.
    pub updated_at: i64,
}

/// How a conversation is held.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConversationSettings {
    /// Who answers unless a run says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelChoice>,
    /// What the model is to keep in mind all along, beside the project's instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 65536)]
    pub instructions: Option<String>,
}

/// A conversation to be.
#[derive(Debug, Clone)]
pub struct NewConversation {
    /// Which project it belongs to.
    pub project: ProjectId,
    /// Which folder it lies in.
    pub folder: Option<FolderId>,
    /// What it is called.
    pub title: Option<String>,
    /// How it is held.
    pub settings: ConversationSettings,
}

/// What is to be another; `None` stays.
#[derive(Debug, Clone, Default)]
pub struct ConversationChange {
    /// The title; `Some(None)` takes it away.
    pub title: Option<Option<String>>,
    /// The folder; `Some(None)` takes it out of its folder.
    pub folder: Option<Option<FolderId>>,
    /// The settings, all of them.
    pub settings: Option<ConversationSettings>,
    /// The last message of the branch that is read.
    pub leaf: Option<MessageId>,
    /// Whether it stays on top.
    pub pinned: Option<bool>,
    /// Whether it is put away.
    pub archived: Option<bool>,
}

/// Which conversations are meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConversationFilter {
    /// Those of this project.
    pub project: Option<ProjectId>,
    /// Those of this folder.
    pub folder: Option<FolderId>,
    /// Those that are put away, or those that are not.
    pub archived: Option<bool>,
    /// Those that stay on top, or those that do not.
    pub pinned: Option<bool>,
}

impl Store {
    /// Starts a conversation.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project or folder.
    pub async fn add_conversation(&self, owner: UserId, new: NewConversation) -> Result<Conversation, StoreError> {
        // Looked at first: a key that is made and deleted for nothing leaves its tombstone for ever.
        projects::of_owner(&self.db, owner, new.project).await?;
        if let Some(folder) = new.folder {
            folders::of_owner(&self.db, owner, folder).await?;
        }
        let conversation = ConversationId::random();
        let scope = Scope::Conversation(owner, conversation);
        let key = self.vault.create(scope).await?;
        let added = self.insert_conversation(owner, conversation, &key, new).await;
        if added.is_err() {
            // The key of what never was. If it cannot be deleted it opens nothing all the same.
            let _ = self.vault.shred(scope).await;
        }
        added
    }

    async fn insert_conversation(
        &self,
        owner: UserId,
        conversation: ConversationId,
        key: &Key,
        new: NewConversation,
    ) -> Result<Conversation, StoreError> {
        let transaction = self.write().await?;
        projects::of_owner(&transaction, owner, new.project).await?;
        if let Some(folder) = new.folder {
            folders::of_owner(&transaction, owner, folder).await?;
        }
        let now = now_ms();
        let made = Conversation {
            id: conversation,
            user: owner,
            project: new.project,
            folder: new.folder,
            title: new.title,
            settings: new.settings,
            leaf: None,
            pinned: false,
            archived_at: None,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        made.row(key)?.into_active_model().insert(&transaction).await?;
        transaction.commit().await?;
        Ok(made)
    }

    /// One conversation, if it is this person's.
    ///
    /// # Errors
    /// When the database fails, or what is stored was changed.
    pub async fn conversation(&self, owner: UserId, conversation: ConversationId) -> Result<Option<Conversation>, StoreError> {
        let row = of(owner).filter(entity::Column::Id.eq(conversation.to_string())).one(&self.db).await?;
        match row {
            Some(row) => self.opened(owner, row).await,
            None => Ok(None),
        }
    }

    /// Which project a conversation belongs to.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such conversation.
    pub async fn conversation_project(&self, owner: UserId, conversation: ConversationId) -> Result<ProjectId, StoreError> {
        id(&of_owner(&self.db, owner, conversation).await?.project_id, "project id")
    }

    /// A person's conversations, those that were used last first: at most `limit` after `after`, and where to go on.
    ///
    /// # Errors
    /// When the database fails, or what is stored was changed.
    pub async fn conversations(
        &self,
        owner: UserId,
        filter: ConversationFilter,
        after: Option<Bookmark<ConversationId>>,
        limit: u64,
    ) -> Result<(Vec<Conversation>, Option<Bookmark<ConversationId>>), StoreError> {
        let mut find = filter.apply(of(owner));
        if let Some(Bookmark { time, id }) = after {
            let same_time = Condition::all().add(entity::Column::UpdatedAt.eq(time)).add(entity::Column::Id.lt(id.to_string()));
            find = find.filter(Condition::any().add(entity::Column::UpdatedAt.lt(time)).add(same_time));
        }
        // One more than asked for tells whether there are more.
        let mut rows = find
            .order_by_desc(entity::Column::UpdatedAt)
            .order_by_desc(entity::Column::Id)
            .limit(limit.saturating_add(1))
            .all(&self.db)
            .await?;
        let kept = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > kept;
        rows.truncate(kept);
        let next = match rows.last().filter(|_| more) {
            Some(last) => Some(Bookmark { time: last.updated_at, id: id(&last.id, "conversation id")? }),
            None => None,
        };
        let scope = |row: &entity::Model| Ok(Scope::Conversation(owner, id(&row.id, "conversation id")?));
        let scopes = rows.iter().map(scope).collect::<Result<Vec<_>, StoreError>>()?;
        let keys = self.vault.keys(&scopes).await?;
        let opened = off_runtime(move || {
            // What has no key is deleted, be its row there for another moment.
            let opened = rows.into_iter().zip(scopes).filter_map(|(row, scope)| Some(row.open(keys.get(&scope)?)));
            opened.collect::<Result<Vec<_>, _>>()
        });
        Ok((opened.await?, next))
    }

    /// Changes a conversation. With `seen`, only as long as it is still of that version.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such conversation, folder or message, [`StoreError::Stale`] when it was changed
    /// meanwhile.
    pub async fn update_conversation(
        &self,
        owner: UserId,
        conversation: ConversationId,
        seen: Option<i64>,
        change: ConversationChange,
    ) -> Result<Conversation, StoreError> {
        let key = key_of(&self.vault, Scope::Conversation(owner, conversation), "conversation").await?;
        let transaction = self.write().await?;
        let row = of_owner(&transaction, owner, conversation).await?;
        if seen.is_some_and(|seen| seen != row.version) {
            return Err(StoreError::Stale("conversation"));
        }
        let mut changed = row.open(&key)?;
        if let Some(folder) = change.folder {
            if let Some(folder) = folder {
                folders::of_owner(&transaction, owner, folder).await?;
            }
            changed.folder = folder;
        }
        if let Some(leaf) = change.leaf {
            messages::of_conversation(&transaction, owner, conversation, leaf).await?;
            changed.leaf = Some(leaf);
        }
        let now = now_ms();
        changed.title = change.title.unwrap_or(changed.title);
        changed.settings = change.settings.unwrap_or(changed.settings);
        changed.pinned = change.pinned.unwrap_or(changed.pinned);
        if let Some(archived) = change.archived {
            changed.archived_at = archived.then(|| changed.archived_at.unwrap_or(now));
        }
        changed.version += 1;
        changed.updated_at = now.max(changed.updated_at);
        changed.row(&key)?.into_active_model().reset_all().update(&transaction).await?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// Begins another conversation with what was said up to a message: each goes on by itself then.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such conversation, or that has no such message.
    pub async fn fork_conversation(
        &self,
        owner: UserId,
        conversation: ConversationId,
        at: MessageId,
    ) -> Result<Conversation, StoreError> {
        let from = self.conversation(owner, conversation).await?.ok_or(StoreError::Missing("conversation"))?;
        messages::of_conversation(&self.db, owner, conversation, at).await?;
        let (project, folder) = (from.project, from.folder);
        let new = NewConversation { project, folder, title: from.title, settings: from.settings };
        let fork = self.add_conversation(owner, new).await?;
        let copied = self.copy_path(owner, (conversation, at), fork.id).await;
        match copied {
            Ok(()) => self.conversation(owner, fork.id).await?.ok_or(StoreError::Missing("conversation")),
            Err(error) => {
                // Half a conversation is none. If it cannot be deleted either, it is seen, and its owner can.
                let _ = self.delete_conversation(owner, fork.id).await;
                Err(error)
            }
        }
    }

    /// Deletes a conversation with all its messages and runs. Its key goes first: when that is done nobody reads it any more, and
    /// what fails afterwards is done by deleting once more, or when the Lab starts.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such conversation.
    pub async fn delete_conversation(&self, owner: UserId, conversation: ConversationId) -> Result<(), StoreError> {
        of_owner(&self.db, owner, conversation).await?;
        self.vault.shred(Scope::Conversation(owner, conversation)).await?;
        entity::Entity::delete_many()
            .filter(entity::Column::Id.eq(conversation.to_string()))
            .filter(entity::Column::UserId.eq(owner.to_string()))
            .exec(&self.db)
            .await?;
        Ok(())
    }

    /// A row as its owner reads it; nothing when its key is gone.
    async fn opened(&self, owner: UserId, row: entity::Model) -> Result<Option<Conversation>, StoreError> {
        let conversation = id(&row.id, "conversation id")?;
        match self.vault.key(Scope::Conversation(owner, conversation)).await {
            Err(VaultError::NoKey) => Ok(None),
            key => row.open(&key?).map(Some),
        }
    }
}

impl ConversationFilter {
    fn apply(self, mut find: Select<entity::Entity>) -> Select<entity::Entity> {
        if let Some(project) = self.project {
            find = find.filter(entity::Column::ProjectId.eq(project.to_string()));
        }
        if let Some(folder) = self.folder {
            find = find.filter(entity::Column::FolderId.eq(folder.to_string()));
        }
        if let Some(pinned) = self.pinned {
            find = find.filter(entity::Column::Pinned.eq(pinned));
        }
        match self.archived {
            Some(true) => find.filter(entity::Column::ArchivedAt.is_not_null()),
            Some(false) => find.filter(entity::Column::ArchivedAt.is_null()),
            None => find,
        }
    }
}

/// A person's conversations.
fn of(owner: UserId) -> Select<entity::Entity> {
    entity::Entity::find().filter(entity::Column::UserId.eq(owner.to_string()))
}

/// One conversation, which must be this person's.
pub(super) async fn of_owner(
    db: &impl ConnectionTrait,
    owner: UserId,
    conversation: ConversationId,
) -> Result<entity::Model, StoreError> {
    let row = of(owner).filter(entity::Column::Id.eq(conversation.to_string())).one(db).await?;
    row.ok_or(StoreError::Missing("conversation"))
}

/// A message was said: the branch that is read ends with it.
pub(super) async fn grown(
    transaction: &DatabaseTransaction,
    row: entity::Model,
    leaf: MessageId,
    time: i64,
) -> Result<(), StoreError> {
    let updated_at = time.max(row.updated_at);
    let mut row = row.into_active_model();
    row.leaf_id = Set(Some(leaf.to_string()));
    row.updated_at = Set(updated_at);
    row.update(transaction).await?;
    Ok(())
}

fn place<'a>(column: &'static str, row: &'a str, version: i64) -> Place<'a> {
    Place { table: "conversations", column, row, version }
}

impl Conversation {
    fn row(&self, key: &Key) -> Result<entity::Model, StoreError> {
        let row = self.id.to_string();
        Ok(entity::Model {
            title_sealed: sealed(key, place("title", &row, self.version), &self.title)?,
            settings_sealed: sealed(key, place("settings", &row, self.version), &self.settings)?,
            id: row,
            user_id: self.user.to_string(),
            project_id: self.project.to_string(),
            folder_id: self.folder.map(|folder| folder.to_string()),
            leaf_id: self.leaf.map(|leaf| leaf.to_string()),
            pinned: self.pinned,
            archived_at: self.archived_at,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

impl entity::Model {
    fn open(self, key: &Key) -> Result<Conversation, StoreError> {
        Ok(Conversation {
            id: id(&self.id, "conversation id")?,
            user: id(&self.user_id, "user id")?,
            project: id(&self.project_id, "project id")?,
            folder: self.folder_id.map(|folder| id(&folder, "folder id")).transpose()?,
            title: unsealed(key, place("title", &self.id, self.version), &self.title_sealed)?,
            settings: unsealed(key, place("settings", &self.id, self.version), &self.settings_sealed)?,
            leaf: self.leaf_id.map(|leaf| id(&leaf, "message id")).transpose()?,
            pinned: self.pinned,
            archived_at: self.archived_at,
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "conversations")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub project_id: String,
        pub folder_id: Option<String>,
        pub title_sealed: Vec<u8>,
        pub settings_sealed: Vec<u8>,
        pub leaf_id: Option<String>,
        pub pinned: bool,
        pub archived_at: Option<i64>,
        pub version: i64,
        pub created_at: i64,
        pub updated_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lab::content::{Content, Part},
        store::{FolderChange, Message, NewTask, Role, TaskChange, TaskPlace, TaskState, scratch::Scratch},
    };

    pub(crate) fn words(text: &str) -> Content {
        Content { parts: vec![Part::Text { text: text.to_owned() }], usage: Vec::new() }
    }

    fn new(project: ProjectId) -> NewConversation {
        NewConversation { project, folder: None, title: None, settings: ConversationSettings::default() }
    }

    struct People {
        scratch: Scratch,
        ada: UserId,
        eve: UserId,
        project: ProjectId,
    }

    async fn people() -> People {
        let scratch = Scratch::new().await;
        let (ada, eve) = (scratch.store.add_user("ada").await.unwrap().id, scratch.store.add_user("eve").await.unwrap().id);
        let project = scratch.store.add_project(ada, "one").await.unwrap().id;
        People { scratch, ada, eve, project }
    }

    #[tokio::test]
    async fn a_conversation_is_a_tree_of_its_owner() {
        let People { scratch, ada, eve, project } = people().await;
        let store = &scratch.store;
        let conversation = store.add_conversation(ada, new(project)).await.unwrap();
        let at = conversation.id;
        let say = |parent, role, text: &'static str| store.add_message(ada, at, parent, role, words(text), None);
        let question = say(None, Role::User, "  first\nwords of it ").await.unwrap();
        let answer = say(Some(question.id), Role::Assistant, "answer").await.unwrap();
        let again = say(Some(question.id), Role::Assistant, "another").await.unwrap();
        let edited = say(None, Role::User, "first, edited").await.unwrap();
        let all = store.messages_page(ada, at, None, 99).await.unwrap().0;
        assert_eq!(all, [question.clone(), answer.clone(), again.clone(), edited.clone()]);
        assert!(all.is_sorted_by(|one, other| one.created_at < other.created_at));
        assert_eq!(store.path_to(ada, at, again.id, usize::MAX).await.unwrap().messages, [question.clone(), again.clone()]);
        assert_eq!(store.conversation(ada, at).await.unwrap().unwrap().leaf, Some(edited.id));
        let (page, next) = store.messages_page(ada, at, None, 3).await.unwrap();
        assert_eq!(page.len(), 3);
        assert_eq!(store.messages_page(ada, at, next, 3).await.unwrap(), (vec![edited], None));
        store.set_message_content(ada, answer.id, words("more")).await.unwrap();
        assert_eq!(store.message(ada, answer.id).await.unwrap().unwrap().content, words("more"));
        assert_eq!(store.first_words(ada, at, 12).await.unwrap().as_deref(), Some("first words"));

        // A branch that is read is chosen; what somebody has not seen is not changed.
        let chosen = ConversationChange { leaf: Some(again.id), title: Some(Some("Name".into())), ..Default::default() };
        let changed = store.update_conversation(ada, at, Some(1), chosen.clone()).await.unwrap();
        assert_eq!((changed.leaf, changed.title.as_deref(), changed.version), (Some(again.id), Some("Name"), 2));
        assert!(matches!(store.update_conversation(ada, at, Some(1), chosen.clone()).await, Err(StoreError::Stale(_))));
        assert_eq!(store.conversation(ada, at).await.unwrap(), Some(changed));

        let fork = store.fork_conversation(ada, at, again.id).await.unwrap();
        let texts: Vec<_> =
            store.messages_page(ada, fork.id, None, 99).await.unwrap().0.into_iter().map(|said| said.content).collect();
        assert_eq!((fork.title.as_deref(), texts), (Some("Name"), vec![question.content.clone(), again.content.clone()]));

        let missing = |error: StoreError| assert!(matches!(error, StoreError::Missing(_)), "{error}");
        missing(store.add_conversation(eve, new(project)).await.unwrap_err());
        missing(store.add_message(eve, at, None, Role::User, words("x"), None).await.unwrap_err());
        missing(store.add_message(ada, fork.id, Some(again.id), Role::User, words("x"), None).await.unwrap_err());
        missing(store.messages_page(eve, at, None, 99).await.unwrap_err());
        missing(store.messages_page(eve, at, None, 9).await.unwrap_err());
        missing(store.path_to(eve, at, again.id, 9).await.unwrap_err());
        missing(store.path_to(ada, fork.id, again.id, 9).await.unwrap_err());
        missing(store.set_message_content(eve, again.id, words("x")).await.unwrap_err());
        missing(store.update_conversation(eve, at, None, chosen).await.unwrap_err());
        missing(store.fork_conversation(eve, at, again.id).await.unwrap_err());
        missing(store.delete_conversation(eve, at).await.unwrap_err());
        assert_eq!(store.message(eve, again.id).await.unwrap(), None);
        assert_eq!(store.conversation(eve, at).await.unwrap(), None);
        assert_eq!(store.conversations(eve, ConversationFilter::default(), None, 9).await.unwrap(), (vec![], None));

        store.delete_conversation(ada, at).await.unwrap();
        assert_eq!(store.conversation(ada, at).await.unwrap(), None);
        assert_eq!(store.message(ada, answer.id).await.unwrap(), None);
        assert!(matches!(store.vault.key(Scope::Conversation(ada, at)).await, Err(VaultError::NoKey)));
        assert_eq!(store.messages_page(ada, fork.id, None, 99).await.unwrap().0.len(), 2);
    }

    #[tokio::test]
    async fn a_conversation_of_thousands_one_below_the_other_can_be_read_and_deleted() {
        let People { scratch, ada, project, .. } = people().await;
        let store = &scratch.store;
        let at = store.add_conversation(ada, new(project)).await.unwrap().id;
        let first = store.add_message(ada, at, None, Role::User, words("x"), None).await.unwrap();
        let long = store.add_conversation(ada, new(project)).await.unwrap().id;
        store.copy_messages(ada, long, None, vec![first; 2500]).await.unwrap();
        let leaf = store.conversation(ada, long).await.unwrap().unwrap().leaf.unwrap();
        assert_eq!(store.path_to(ada, long, leaf, usize::MAX).await.unwrap().messages.len(), 2500);
        store.delete_conversation(ada, long).await.unwrap();
        assert_eq!(store.message(ada, leaf).await.unwrap(), None);
    }

    #[tokio::test]
    async fn nobody_reads_more_of_a_conversation_than_so_many_bytes_at_once() {
        let People { scratch, ada, project, .. } = people().await;
        let store = &scratch.store;
        let at = store.add_conversation(ada, new(project)).await.unwrap().id;
        let text = "x".repeat(1 << 20);
        let mut said: Vec<MessageId> = Vec::new();
        for _ in 0..20 {
            let parent = said.last().copied();
            said.push(store.add_message(ada, at, parent, Role::User, words(&text), None).await.unwrap().id);
        }
        let ids = |messages: &[Message]| messages.iter().map(|message| message.id).collect::<Vec<_>>();
        // Seven, for what is sealed is a little longer than a mebibyte.
        let (mut read, mut after) = (Vec::new(), None);
        for expected in [7, 7, 6] {
            let (page, next) = store.messages_page(ada, at, after, 1000).await.unwrap();
            assert_eq!(page.len(), expected);
            read.extend(ids(&page));
            after = next;
        }
        assert_eq!((&read, after), (&said, None));
        // A branch is read from its end, and goes on where it says.
        let newest = store.path_to(ada, at, said[19], crate::store::AT_ONCE).await.unwrap();
        assert_eq!((&ids(&newest.messages)[..], newest.earlier, newest.left_out), (&said[13..], Some(said[12]), 13));
        let before = store.path_to(ada, at, said[12], crate::store::AT_ONCE).await.unwrap();
        assert_eq!((&ids(&before.messages)[..], before.left_out), (&said[6..13], 6));
        let last = store.path_to(ada, at, said[19], 0).await.unwrap();
        assert_eq!((ids(&last.messages), last.left_out), (vec![said[19]], 19), "the last one is read whatever it has");
        let whole = store.path_to(ada, at, said[19], usize::MAX).await.unwrap();
        assert_eq!((whole.messages.len(), whole.earlier, whole.left_out), (20, None, 0));
        // A copy is whole, in its order, though it is made in parts.
        let fork = store.fork_conversation(ada, at, said[18]).await.unwrap();
        let copied = store.path_to(ada, fork.id, fork.leaf.unwrap(), usize::MAX).await.unwrap().messages;
        let times = |messages: &[Message]| messages.iter().map(|message| message.created_at).collect::<Vec<_>>();
        assert_eq!(times(&copied), times(&whole.messages[..19]));
        // What is searched comes in parts as well.
        let mut seen = 0;
        let mut position = None;
        for expected in [7, 7, 6] {
            let (found, last) =
                store.look_through(ada, &[at], position, 1000, 1000, |message| Some(message.id)).await.unwrap().unwrap();
            assert_eq!(found.len(), expected);
            seen += found.len();
            position = Some(last);
        }
        assert_eq!(seen, 20);
        assert!(store.look_through(ada, &[at], position, 1000, 1000, |_| Some(())).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_conversation_has_so_many_messages() {
        let People { scratch, ada, project, .. } = people().await;
        let store = &scratch.store;
        let at = store.add_conversation(ada, new(project)).await.unwrap().id;
        let first = store.add_message(ada, at, None, Role::User, words("x"), None).await.unwrap();
        let full = store.add_conversation(ada, new(project)).await.unwrap().id;
        store.copy_messages(ada, full, None, vec![first; 9_999]).await.unwrap();
        let last = store.add_message(ada, full, None, Role::User, words("the last"), None).await.unwrap();
        let more = store.add_message(ada, full, Some(last.id), Role::User, words("more"), None).await;
        assert!(matches!(more, Err(StoreError::Full(why)) if why.ends_with("begin another one")), "{more:?}");
    }

    #[tokio::test]
    async fn what_is_sealed_for_one_row_opens_in_no_other() {
        use sea_orm::ConnectionTrait;

        let People { scratch, ada, project, .. } = people().await;
        let store = &scratch.store;
        let at = store.add_conversation(ada, new(project)).await.unwrap().id;
        let one = store.add_message(ada, at, None, Role::User, words("one"), None).await.unwrap();
        let two = store.add_message(ada, at, None, Role::User, words("two"), None).await.unwrap();
        let swap = format!(
            "UPDATE messages SET content_sealed = (SELECT content_sealed FROM messages WHERE id = '{}') WHERE id = '{}'",
            one.id, two.id
        );
        store.db.execute_unprepared(&swap).await.unwrap();
        assert!(matches!(store.message(ada, two.id).await, Err(StoreError::Vault(VaultError::Broken))));
        // An old version of the same row.
        store
            .db
            .execute_unprepared(&format!("CREATE TABLE old AS SELECT content_sealed FROM messages WHERE id = '{}'", one.id))
            .await
            .unwrap();
        store.set_message_content(ada, one.id, words("newer")).await.unwrap();
        store
            .db
            .execute_unprepared(&format!(
                "UPDATE messages SET content_sealed = (SELECT content_sealed FROM old) WHERE id = '{}'",
                one.id
            ))
            .await
            .unwrap();
        assert!(matches!(store.message(ada, one.id).await, Err(StoreError::Vault(VaultError::Broken))));
    }

    #[tokio::test]
    async fn folders_lie_in_each_other_and_never_in_themselves() {
        let People { scratch, ada, eve, project } = people().await;
        let store = &scratch.store;
        let mut parent = None;
        let mut chain = Vec::new();
        for depth in 0..8 {
            let folder = store.add_folder(ada, parent, format!("level {depth}")).await.unwrap();
            parent = Some(folder.id);
            chain.push(folder.id);
        }
        assert!(matches!(store.add_folder(ada, parent, "nine".into()).await, Err(StoreError::Refused(_))));
        let into = |parent| FolderChange { parent: Some(parent), name: None };
        for inside in [chain[0], chain[1], chain[7]] {
            assert!(matches!(store.update_folder(ada, chain[0], None, into(Some(inside))).await, Err(StoreError::Refused(_))));
        }
        // What lies in the moved one counts too.
        let top = store.add_folder(ada, None, "top".into()).await.unwrap();
        assert!(matches!(store.update_folder(ada, chain[0], None, into(Some(top.id))).await, Err(StoreError::Refused(_))));
        let moved = store.update_folder(ada, chain[7], Some(1), into(Some(top.id))).await.unwrap();
        assert_eq!((moved.parent, moved.version, moved.name.as_str()), (Some(top.id), 2, "level 7"));
        assert!(matches!(store.update_folder(ada, chain[7], Some(1), into(None)).await, Err(StoreError::Stale(_))));
        assert!(matches!(store.update_folder(eve, chain[7], None, into(None)).await, Err(StoreError::Missing(_))));
        assert!(matches!(store.add_folder(eve, Some(top.id), "x".into()).await, Err(StoreError::Missing(_))));
        assert!(matches!(store.delete_folder(eve, top.id).await, Err(StoreError::Missing(_))));

        let lying = NewConversation { folder: Some(chain[7]), ..new(project) };
        let conversation = store.add_conversation(ada, lying).await.unwrap();
        store.delete_folder(ada, top.id).await.unwrap();
        assert_eq!(store.folders(ada).await.unwrap().len(), 7);
        assert_eq!(store.conversation(ada, conversation.id).await.unwrap().unwrap().folder, None);
        assert_eq!(store.folders(eve).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_board_keeps_the_order_that_its_owner_gives_it() {
        let People { scratch, ada, eve, project } = people().await;
        let store = &scratch.store;
        let task = |title: &str| NewTask { state: TaskState::Open, title: title.into(), body: String::new(), assignee: None };
        let mut ids = Vec::new();
        for title in ["a", "b", "c"] {
            ids.push(store.add_task(ada, project, task(title)).await.unwrap().id);
        }
        let order = async || {
            let tasks = store.tasks(ada, project).await.unwrap();
            tasks.into_iter().map(|task| task.title).collect::<String>()
        };
        assert_eq!(order().await, "abc");
        let to = |place| TaskChange { place: Some(place), ..Default::default() };
        store.update_task(ada, ids[2], None, to(TaskPlace::First)).await.unwrap();
        assert_eq!(order().await, "cab");
        store.update_task(ada, ids[2], None, to(TaskPlace::After(ids[0]))).await.unwrap();
        assert_eq!(order().await, "acb");
        // So often that the numbers between two neighbours are used up, and the board is numbered anew.
        for _ in 0..30 {
            store.update_task(ada, ids[1], None, to(TaskPlace::After(ids[0]))).await.unwrap();
            store.update_task(ada, ids[2], None, to(TaskPlace::After(ids[0]))).await.unwrap();
            assert_eq!(order().await, "acb");
        }
        let done = TaskChange { state: Some(TaskState::Done), ..Default::default() };
        let before = store.task(ada, ids[0]).await.unwrap().unwrap();
        let after = store.update_task(ada, ids[0], Some(before.version), done.clone()).await.unwrap();
        assert_eq!((after.state, after.version), (TaskState::Done, before.version + 1));
        assert!(matches!(store.update_task(ada, ids[0], Some(before.version), done.clone()).await, Err(StoreError::Stale(_))));
        assert!(matches!(store.update_task(eve, ids[0], None, done).await, Err(StoreError::Missing(_))));
        assert!(matches!(store.tasks(eve, project).await, Err(StoreError::Missing(_))));
        assert!(matches!(store.delete_task(eve, ids[0]).await, Err(StoreError::Missing(_))));
        assert_eq!(store.task(eve, ids[0]).await.unwrap(), None);
        store.delete_task(ada, ids[0]).await.unwrap();
        assert_eq!(order().await, "cb");
    }

    #[tokio::test]
    async fn a_deleted_project_takes_everything_along() {
        let People { scratch, ada, eve, project } = people().await;
        let store = &scratch.store;
        let at = store.add_conversation(ada, new(project)).await.unwrap().id;
        let said = store.add_message(ada, at, None, Role::User, words("x"), None).await.unwrap();
        let brief = store.update_brief(ada, project, Some(1), |instructions, _| "be brief".clone_into(instructions)).await.unwrap();
        assert_eq!((brief.version, store.brief(ada, project).await.unwrap()), (2, brief.clone()));
        assert!(matches!(store.update_brief(ada, project, Some(1), |_, _| ()).await, Err(StoreError::Stale(_))));
        assert!(matches!(store.brief(eve, project).await, Err(StoreError::Missing(_))));
        assert!(matches!(store.delete_project(eve, project).await, Err(StoreError::Missing(_))));
        assert_eq!(store.message(ada, said.id).await.unwrap().unwrap().content, words("x"));
        store.delete_project(ada, project).await.unwrap();
        assert_eq!(store.conversation(ada, at).await.unwrap(), None);
        assert_eq!(store.message(ada, said.id).await.unwrap(), None);
        for scope in [Scope::Project(ada, project), Scope::Conversation(ada, at)] {
            assert!(matches!(store.vault.key(scope).await, Err(VaultError::NoKey)), "{scope}");
        }
        assert!(matches!(store.add_conversation(ada, new(project)).await, Err(StoreError::Missing(_))));
    }

    #[tokio::test]
    async fn what_a_failing_database_left_half_deleted_goes_when_the_lab_starts() {
        use sea_orm::ConnectionTrait;

        let People { scratch, ada, project, .. } = people().await;
        let store = &scratch.store;
        let other = store.add_project(ada, "other").await.unwrap().id;
        let (lone, inside) =
            (store.add_conversation(ada, new(other)).await.unwrap(), store.add_conversation(ada, new(project)).await.unwrap());
        let stays = store.add_conversation(ada, new(other)).await.unwrap();
        for at in [&lone, &inside, &stays] {
            store.add_message(ada, at.id, None, Role::User, words("x"), None).await.unwrap();
        }
        let said = async || messages::entity::Entity::find().all(&store.db).await.unwrap().len();
        for fault in [
            "CREATE TRIGGER broken_c BEFORE DELETE ON conversations BEGIN SELECT RAISE(ABORT, 'broken'); END",
            "CREATE TRIGGER broken_p BEFORE UPDATE ON projects BEGIN SELECT RAISE(ABORT, 'broken'); END",
        ] {
            store.db.execute_unprepared(fault).await.unwrap();
        }
        assert!(matches!(store.delete_conversation(ada, lone.id).await, Err(StoreError::Database(_))));
        assert!(matches!(store.delete_project(ada, project).await, Err(StoreError::Database(_))));
        // Nobody reads them any more, though the rows are there.
        assert_eq!(store.conversation(ada, lone.id).await.unwrap(), None);
        assert!(matches!(store.messages_page(ada, inside.id, None, 99).await, Err(StoreError::Missing(_))));
        assert!(store.finish_departures().await.is_err());
        assert_eq!((said().await, store.projects(ada).await.unwrap().len()), (3, 2));

        store.db.execute_unprepared("DROP TRIGGER broken_c; DROP TRIGGER broken_p").await.unwrap();
        for _ in 0..2 {
            store.finish_departures().await.unwrap();
            let left: Vec<_> = store.projects(ada).await.unwrap().into_iter().map(|project| project.id).collect();
            assert_eq!((said().await, left), (1, vec![other]));
        }
        assert_eq!(entity::Entity::find().all(&store.db).await.unwrap().len(), 1);
        assert_eq!(store.messages_page(ada, stays.id, None, 99).await.unwrap().0[0].content, words("x"));
    }

    /// Ten thousand messages of half a kilobyte, of which one is looked for. It prints how long that took.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_word_among_ten_thousand_messages_is_found() {
        use crate::lab::{files::Files, search};

        let People { scratch, ada, eve, project } = people().await;
        let store = &scratch.store;
        let files = Files::open(store.clone(), scratch.dir.join("blobs")).await.unwrap();
        let search = search::Search::new(store.clone(), files);
        let at = store.add_conversation(ada, new(project)).await.unwrap().id;
        let filler = store.add_message(ada, at, None, Role::User, words(&"lorem ipsum ".repeat(42)), None).await.unwrap();
        for _ in 0..100 {
            let next = store.add_conversation(ada, new(project)).await.unwrap().id;
            store.copy_messages(ada, next, None, vec![filler.clone(); 100]).await.unwrap();
        }
        let needle = store.add_message(ada, at, Some(filler.id), Role::User, words("A Needle, in hay"), None).await.unwrap();
        let query = |text: &str| search::Query { text: text.into(), among: search::Among::Conversations, project: None };
        let began = std::time::Instant::now();
        let (mut finds, mut next) = search.find(ada, query("hay NEEDLE"), None).await.unwrap();
        let mut pages = 1;
        while next.is_some() {
            let page = search.find(ada, query("hay NEEDLE"), next).await.unwrap();
            finds.extend(page.0);
            next = page.1;
            pages += 1;
        }
        eprintln!("10,000 messages of 504 bytes: {:?} in {pages} searches", began.elapsed());
        assert_eq!(finds.len(), 1);
        assert_eq!(finds[0].what, search::Found::Message(at, needle.id));
        assert_eq!(finds[0].snippet.marks, [2..8, 13..16]);
        assert_eq!(search.find(eve, query("needle"), None).await.unwrap(), (vec![], None));
        // More than are given at once are all given, each once.
        let (mut seen, mut next, mut first) = (std::collections::HashSet::new(), None, true);
        while first || next.is_some() {
            first = false;
            let page = search.find(ada, query("ipsum"), next).await.unwrap();
            for find in page.0 {
                let search::Found::Message(_, message) = find.what else { panic!("{find:?}") };
                assert!(seen.insert(message));
            }
            next = page.1.map(|place| place.to_string().parse().unwrap());
            if seen.len() > 500 {
                break;
            }
        }
        assert!(seen.len() > 500);
    }
}
