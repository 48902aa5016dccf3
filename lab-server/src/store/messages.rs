//! Messages: a tree for each conversation. What was said is never overwritten by another way of saying it: that is a sibling.

use std::{collections::HashMap, fmt, ops::Range, str::FromStr};

use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, FromQueryResult,
    IntoActiveModel, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select, Statement, sea_query::Expr,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{ConversationId, MessageId, RunId, UserId};

use super::{Bookmark, InvalidBookmark, Store, StoreError, conversations, id, key_of, now_ms, off_runtime, sealed, unsealed};
use crate::{
    lab::content::{Content, Part},
    vault::{Key, Place, Scope},
};

/// Messages of a conversation at most: ten times those of the longest that anybody reads to its end. Whoever reads a conversation whole
/// reads so many rows.
const MOST_MESSAGES: u64 = 10_000;
/// Bytes of messages that are read at once, unless one alone has more. Whoever wants more of them comes again, so that nobody makes the
/// Lab hold a conversation of gigabytes.
pub const AT_ONCE: usize = 8 << 20;

/// The end of a branch.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// Its messages, oldest first.
    pub messages: Vec<Message>,
    /// The message that these follow, where there was more than was wanted.
    pub earlier: Option<MessageId>,
    /// How many messages there are up to that one.
    pub left_out: usize,
}

/// Something that was said in a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Which.
    pub id: MessageId,
    /// In which conversation.
    pub conversation: ConversationId,
    /// What it follows; `None` for a beginning.
    pub parent: Option<MessageId>,
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// The run that makes or made it.
    pub run: Option<RunId>,
    /// Grows with each change of the content.
    pub version: i64,
    /// Milliseconds since 1970; later messages of a conversation have later times.
    pub created_at: i64,
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A person.
    User,
    /// A model, with the tools that it used.
    Assistant,
}

/// A message among those of several conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagePosition {
    /// Its conversation.
    pub conversation: ConversationId,
    /// Its time.
    pub time: i64,
}

impl Store {
    /// Adds a message below its parent; the branch that is read then ends with it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such conversation, or that has no such parent.
    pub async fn add_message(
        &self,
        owner: UserId,
        conversation: ConversationId,
        parent: Option<MessageId>,
        role: Role,
        content: Content,
        run: Option<RunId>,
    ) -> Result<Message, StoreError> {
        let key = key_of(&self.vault, Scope::Conversation(owner, conversation), "conversation").await?;
        let transaction = self.write().await?;
        let message = append(&transaction, &key, owner, Said { conversation, parent, role, content, run }).await?;
        transaction.commit().await?;
        Ok(message)
    }

    /// The messages of a conversation, of all branches, in the order in which they were said: at most `limit` after `after`, and at most
    /// [`AT_ONCE`] bytes of them, and where to go on.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such conversation.
    pub async fn messages_page(
        &self,
        owner: UserId,
        conversation: ConversationId,
        after: Option<Bookmark<MessageId>>,
        limit: u64,
    ) -> Result<(Vec<Message>, Option<Bookmark<MessageId>>), StoreError> {
        conversations::of_owner(&self.db, owner, conversation).await?;
        let mut find = of(owner, conversation);
        if let Some(Bookmark { time, id }) = after {
            let same_time = Condition::all().add(entity::Column::CreatedAt.eq(time)).add(entity::Column::Id.gt(id.to_string()));
            find = find.filter(Condition::any().add(entity::Column::CreatedAt.gt(time)).add(same_time));
        }
        let find = find.order_by_asc(entity::Column::CreatedAt).order_by_asc(entity::Column::Id);
        let sizes = sizes(&self.db, find.clone(), limit.saturating_add(1)).await?;
        let kept = fitting(&sizes, AT_ONCE).min(usize::try_from(limit).unwrap_or(usize::MAX));
        let more = sizes.len() > kept;
        let rows = find.limit(kept as u64).all(&self.db).await?;
        let messages = self.read(owner, conversation, rows).await?;
        let next = messages.last().filter(|_| more).map(|last| Bookmark { time: last.created_at, id: last.id });
        Ok((messages, next))
    }

    /// One message, if it is this person's.
    ///
    /// # Errors
    /// When the database fails, or what is stored was changed.
    pub async fn message(&self, owner: UserId, message: MessageId) -> Result<Option<Message>, StoreError> {
        let Some(row) = self.message_row(owner, message).await? else { return Ok(None) };
        let conversation = id(&row.conversation_id, "conversation id")?;
        Ok(self.read(owner, conversation, vec![row]).await?.pop())
    }

    /// The branch that ends with `leaf`: its newest messages, as many as have at most `most` bytes, and the last one whatever it has.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such conversation, or that has no such message.
    pub async fn path_to(
        &self,
        owner: UserId,
        conversation: ConversationId,
        leaf: MessageId,
        most: usize,
    ) -> Result<Branch, StoreError> {
        let steps = self.steps_to(owner, conversation, leaf).await?;
        let sizes: Vec<i64> = steps.iter().map(|step| step.bytes).collect();
        let kept = fitting(&sizes, most);
        let messages = self.path_part(owner, conversation, leaf, 0..kept).await?;
        let earlier = steps.get(kept).map(|step| id(&step.id, "message id")).transpose()?;
        Ok(Branch { messages, earlier, left_out: steps.len() - kept })
    }

    /// Copies a branch into a conversation that has no messages yet, [`AT_ONCE`] bytes at a time.
    pub(super) async fn copy_path(
        &self,
        owner: UserId,
        (from, leaf): (ConversationId, MessageId),
        to: ConversationId,
    ) -> Result<(), StoreError> {
        let steps = self.steps_to(owner, from, leaf).await?;
        let (mut behind, mut above) = (steps.len(), None);
        while behind > 0 {
            let sizes: Vec<i64> = steps[..behind].iter().rev().map(|step| step.bytes).collect();
            let first = behind - fitting(&sizes, AT_ONCE);
            let said = self.path_part(owner, from, leaf, first..behind).await?;
            if said.is_empty() {
                // It was deleted meanwhile.
                return Err(StoreError::Missing("message"));
            }
            above = self.copy_messages(owner, to, above, said).await?;
            behind = first;
        }
        Ok(())
    }

    /// A branch, from its last message to its first one.
    async fn steps_to(&self, owner: UserId, conversation: ConversationId, leaf: MessageId) -> Result<Vec<Step>, StoreError> {
        let values = [leaf.to_string(), conversation.to_string(), owner.to_string()];
        let sql = format!("{PATH} SELECT path.id, length(messages.content_sealed) AS bytes {OF_PATH} ORDER BY path.depth");
        let walk = Statement::from_sql_and_values(DbBackend::Sqlite, sql, values.map(sea_orm::Value::from));
        let steps = Step::find_by_statement(walk).all(&self.db).await?;
        if steps.is_empty() { Err(StoreError::Missing("message")) } else { Ok(steps) }
    }

    /// The messages of a branch that are so many steps from its last one, oldest first.
    async fn path_part(
        &self,
        owner: UserId,
        conversation: ConversationId,
        leaf: MessageId,
        steps: Range<usize>,
    ) -> Result<Vec<Message>, StoreError> {
        let names = [leaf.to_string(), conversation.to_string(), owner.to_string()].map(sea_orm::Value::from);
        let ends = [steps.start, steps.end].map(|end| sea_orm::Value::from(i64::try_from(end).unwrap_or(i64::MAX)));
        let sql = format!("{PATH} SELECT messages.* {OF_PATH} WHERE path.depth >= $4 AND path.depth < $5 ORDER BY path.depth DESC");
        let walk = Statement::from_sql_and_values(DbBackend::Sqlite, sql, names.into_iter().chain(ends));
        let rows = entity::Entity::find().from_raw_sql(walk).all(&self.db).await?;
        self.read(owner, conversation, rows).await
    }

    /// Writes what a message says anew: what a run has made of it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such message.
    pub async fn set_message_content(&self, owner: UserId, message: MessageId, content: Content) -> Result<(), StoreError> {
        let row = self.message_row(owner, message).await?.ok_or(StoreError::Missing("message"))?;
        let scope = Scope::Conversation(owner, id(&row.conversation_id, "conversation id")?);
        let key = key_of(&self.vault, scope, "message").await?;
        let transaction = self.write().await?;
        if !rewrite(&transaction, &key, owner, message, &content).await? {
            return Err(StoreError::Missing("message"));
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The first words of a conversation, for as long as it has no title: at most `limit` bytes of its first message.
    ///
    /// # Errors
    /// When the database fails, or what is stored was changed.
    pub async fn first_words(
        &self,
        owner: UserId,
        conversation: ConversationId,
        limit: usize,
    ) -> Result<Option<String>, StoreError> {
        let row = of(owner, conversation).order_by_asc(entity::Column::CreatedAt).limit(1).one(&self.db).await?;
        let Some(row) = row else { return Ok(None) };
        let first = self.read(owner, conversation, vec![row]).await?.pop();
        let text = first.and_then(|first| {
            first.content.parts.into_iter().find_map(|part| match part {
                Part::Text { text } => Some(text),
                _ => None,
            })
        });
        Ok(text.map(|text| beginning(&text, limit)))
    }

    /// Looks through the messages of some conversations, at most `limit` after `after`: gives the first `most` of which `look` makes
    /// something, with what it makes, and where to go on; nothing at the end.
    ///
    /// # Errors
    /// When the database fails, or what is stored was changed.
    pub async fn look_through<T: Send + 'static>(
        &self,
        owner: UserId,
        conversations: &[ConversationId],
        after: Option<MessagePosition>,
        limit: u64,
        most: usize,
        look: impl Fn(&Message) -> Option<T> + Send + 'static,
    ) -> Result<Option<(Vec<(Message, T)>, MessagePosition)>, StoreError> {
        let mut find = entity::Entity::find()
            .filter(entity::Column::UserId.eq(owner.to_string()))
            .filter(entity::Column::ConversationId.is_in(conversations.iter().map(ToString::to_string)));
        if let Some(MessagePosition { conversation, time }) = after {
            let (same, later) = (entity::Column::ConversationId.eq(conversation.to_string()), entity::Column::CreatedAt.gt(time));
            let next = entity::Column::ConversationId.gt(conversation.to_string());
            find = find.filter(Condition::any().add(next).add(Condition::all().add(same).add(later)));
        }
        let find = find.order_by_asc(entity::Column::ConversationId).order_by_asc(entity::Column::CreatedAt);
        let sizes = sizes(&self.db, find.clone(), limit).await?;
        if sizes.is_empty() {
            return Ok(None);
        }
        let rows = find.limit(fitting(&sizes, AT_ONCE) as u64).all(&self.db).await?;
        let scopes: Vec<_> = conversations.iter().map(|conversation| Scope::Conversation(owner, *conversation)).collect();
        // What has none was deleted since it was listed.
        let keys: HashMap<String, Key> =
            self.vault.keys(&scopes).await?.into_iter().map(|(scope, key)| (scope.to_string(), key)).collect();
        let found = off_runtime(move || {
            let (mut found, mut last) = (Vec::new(), None);
            for row in rows {
                let at = MessagePosition { conversation: id(&row.conversation_id, "conversation id")?, time: row.created_at };
                last = Some(at);
                let Some(key) = keys.get(&row.conversation_id) else { continue };
                let message = row.open(key)?;
                if let Some(made) = look(&message) {
                    found.push((message, made));
                    if found.len() >= most {
                        break;
                    }
                }
            }
            Ok(last.map(|last| (found, last)))
        });
        found.await
    }

    /// Puts messages below the last one that was put into a conversation, one below the other; which one is the last now.
    pub(super) async fn copy_messages(
        &self,
        owner: UserId,
        conversation: ConversationId,
        above: Option<MessageId>,
        said: Vec<Message>,
    ) -> Result<Option<MessageId>, StoreError> {
        let key = key_of(&self.vault, Scope::Conversation(owner, conversation), "conversation").await?;
        let rows = off_runtime(move || {
            let mut above = above;
            let mut rows = Vec::with_capacity(said.len());
            for said in said {
                let id = MessageId::random();
                // The run stays where it was; what it took is told in the content.
                let copy = Message { id, conversation, parent: above.replace(id), run: None, version: 1, ..said };
                rows.push((id, copy.created_at, copy.row(owner, &key)?));
            }
            Ok(rows)
        });
        let rows = rows.await?;
        let transaction = self.write().await?;
        let grows = conversations::of_owner(&transaction, owner, conversation).await?;
        let last = rows.last().map(|(id, time, _)| (*id, *time));
        for (_, _, row) in rows {
            row.into_active_model().insert(&transaction).await?;
        }
        if let Some((leaf, time)) = last {
            conversations::grown(&transaction, grows, leaf, time).await?;
        }
        transaction.commit().await?;
        Ok(last.map(|(leaf, _)| leaf))
    }

    async fn message_row(&self, owner: UserId, message: MessageId) -> Result<Option<entity::Model>, StoreError> {
        Ok(own(owner, message).one(&self.db).await?)
    }

    async fn read(
        &self,
        owner: UserId,
        conversation: ConversationId,
        rows: Vec<entity::Model>,
    ) -> Result<Vec<Message>, StoreError> {
        let key = key_of(&self.vault, Scope::Conversation(owner, conversation), "conversation").await?;
        off_runtime(move || rows.into_iter().map(|row| row.open(&key)).collect()).await
    }
}

/// What is said, and where.
pub(super) struct Said {
    pub(super) conversation: ConversationId,
    pub(super) parent: Option<MessageId>,
    pub(super) role: Role,
    pub(super) content: Content,
    pub(super) run: Option<RunId>,
}

/// Adds a message below its parent, which must be the conversation's; the branch that is read then ends with it.
pub(super) async fn append(transaction: &DatabaseTransaction, key: &Key, owner: UserId, said: Said) -> Result<Message, StoreError> {
    let Said { conversation, parent, role, content, run } = said;
    let grows = conversations::of_owner(transaction, owner, conversation).await?;
    if let Some(parent) = parent {
        of_conversation(transaction, owner, conversation, parent).await?;
    }
    if of(owner, conversation).count(transaction).await? >= MOST_MESSAGES {
        return Err(StoreError::Full("the conversation has 10,000 messages, which is as many as it can have; begin another one"));
    }
    let newest = of(owner, conversation).order_by_desc(entity::Column::CreatedAt).limit(1);
    let newest: Option<i64> = newest.select_only().column(entity::Column::CreatedAt).into_tuple().one(transaction).await?;
    let message = Message {
        id: MessageId::random(),
        conversation,
        parent,
        role,
        content,
        run,
        version: 1,
        // The order of messages is the order of their times, also within a millisecond and when a clock is set back.
        created_at: newest.map_or(0, |newest| newest + 1).max(now_ms()),
    };
    message.row(owner, key)?.into_active_model().insert(transaction).await?;
    conversations::grown(transaction, grows, message.id, message.created_at).await?;
    Ok(message)
}

/// Writes what a message says anew, in a version that nobody else writes. Whether it is still there.
pub(super) async fn rewrite(
    transaction: &DatabaseTransaction,
    key: &Key,
    owner: UserId,
    message: MessageId,
    content: &Content,
) -> Result<bool, StoreError> {
    let Some(mut row) = own(owner, message).one(transaction).await? else { return Ok(false) };
    row.version += 1;
    row.content_sealed = sealed(key, place(&row.id, row.version), content)?;
    row.into_active_model().reset_all().update(transaction).await?;
    Ok(true)
}

/// A message of a branch.
#[derive(FromQueryResult)]
struct Step {
    id: String,
    bytes: i64,
}

/// The sizes of rows, in their order, without reading them.
async fn sizes(db: &impl ConnectionTrait, find: Select<entity::Entity>, limit: u64) -> Result<Vec<i64>, StoreError> {
    let bytes = Expr::cust("length(content_sealed)");
    Ok(find.limit(limit).select_only().column_as(bytes, "bytes").into_tuple().all(db).await?)
}

/// How many of these have at most so many bytes together; the first one is always among them.
fn fitting(sizes: &[i64], most: usize) -> usize {
    let mut whole = 0_usize;
    let fits = |size: &&i64| {
        whole = whole.saturating_add(usize::try_from(**size).unwrap_or_default());
        whole <= most
    };
    sizes.iter().take_while(fits).count().max(1).min(sizes.len())
}

/// From a message to the beginning.
const PATH: &str = "WITH RECURSIVE path (id, parent_id, depth) AS ( \
     SELECT id, parent_id, 0 FROM messages WHERE id = $1 AND conversation_id = $2 AND user_id = $3 \
     UNION ALL SELECT above.id, above.parent_id, path.depth + 1 FROM messages above JOIN path ON above.id = path.parent_id \
     WHERE above.conversation_id = $2 AND above.user_id = $3)";
/// What stands in the messages that were found so.
const OF_PATH: &str = "FROM path JOIN messages ON messages.id = path.id";

/// The first words of a text, on one line, at most so many bytes.
fn beginning(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.len() + 1 + word.len() > limit {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().filter(|c| !c.is_control()));
    }
    // One word can be longer than all that there is place for.
    while line.len() > limit {
        line.pop();
    }
    line
}

/// A conversation's messages.
fn of(owner: UserId, conversation: ConversationId) -> Select<entity::Entity> {
    entity::Entity::find()
        .filter(entity::Column::ConversationId.eq(conversation.to_string()))
        .filter(entity::Column::UserId.eq(owner.to_string()))
}

/// One message, whatever its conversation.
fn own(owner: UserId, message: MessageId) -> Select<entity::Entity> {
    entity::Entity::find().filter(entity::Column::Id.eq(message.to_string())).filter(entity::Column::UserId.eq(owner.to_string()))
}

/// One message, which must be this conversation's.
pub(super) async fn of_conversation(
    db: &impl ConnectionTrait,
    owner: UserId,
    conversation: ConversationId,
    message: MessageId,
) -> Result<entity::Model, StoreError> {
    let row = of(owner, conversation).filter(entity::Column::Id.eq(message.to_string())).one(db).await?;
    row.ok_or(StoreError::Missing("message"))
}

fn place(row: &str, version: i64) -> Place<'_> {
    Place { table: "messages", column: "content", row, version }
}

impl Message {
    fn row(&self, owner: UserId, key: &Key) -> Result<entity::Model, StoreError> {
        let row = self.id.to_string();
        Ok(entity::Model {
            content_sealed: sealed(key, place(&row, self.version), &self.content)?,
            id: row,
            user_id: owner.to_string(),
            conversation_id: self.conversation.to_string(),
            parent_id: self.parent.map(|parent| parent.to_string()),
            role: self.role.to_string(),
            run_id: self.run.map(|run| run.to_string()),
            version: self.version,
            created_at: self.created_at,
        })
    }
}

impl entity::Model {
    pub(super) fn open(self, key: &Key) -> Result<Message, StoreError> {
        Ok(Message {
            content: unsealed(key, place(&self.id, self.version), &self.content_sealed)?,
            id: id(&self.id, "message id")?,
            conversation: id(&self.conversation_id, "conversation id")?,
            parent: self.parent_id.map(|parent| id(&parent, "message id")).transpose()?,
            role: id(&self.role, "role")?,
            run: self.run_id.map(|run| id(&run, "run id")).transpose()?,
            version: self.version,
            created_at: self.created_at,
        })
    }
}

impl fmt::Display for MessagePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.conversation)
    }
}

impl FromStr for MessagePosition {
    type Err = InvalidBookmark;

    fn from_str(text: &str) -> Result<Self, InvalidBookmark> {
        let Bookmark { time, id } = text.parse()?;
        Ok(Self { conversation: id, time })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        })
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "user" => Ok(Self::User),
            "assistant" => Ok(Self::Assistant),
            _ => Err(()),
        }
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "messages")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub conversation_id: String,
        pub parent_id: Option<String>,
        pub role: String,
        pub content_sealed: Vec<u8>,
        pub run_id: Option<String>,
        pub version: i64,
        pub created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
