//! Finds what somebody keeps. Nothing of it is on disk in the clear, nor an index of it: what is kept is opened, looked at and
//! forgotten.
//!
//! That is a bounded matter: one search for each person at a time, few for all, and each gives what it has found after two seconds or
//! fifty finds, with the place where it goes on.

mod text;

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;
use wire::{ConversationId, FileId, MessageId, ProjectId, TaskId, UserId};

pub use text::Snippet;

use super::{
    content::Part,
    files::{FileError, Files},
    turns::Turns,
};
use crate::store::{Bookmark, Conversation, ConversationFilter, FileEntry, FileRef, Message, MessagePosition, Store, StoreError};
use text::Words;

/// How long a search looks at most.
const TIME: Duration = Duration::from_secs(2);
/// Finds that end a search.
const FINDS: usize = 50;
/// Conversations that are looked through together.
const CONVERSATIONS: u64 = 32;
/// Messages that are opened at once.
const MESSAGES: u64 = 1024;
/// Files that are looked at together.
const FILES: u64 = 100;
/// How much of a text file is looked at, in bytes.
const FILE: usize = 1024 * 1024;
/// Searches at once, of all people: opening is work for a processor, and a small machine has two.
const AT_ONCE: usize = 2;

/// Finds; clones share their turns.
#[derive(Clone)]
pub struct Search(Arc<Inner>);

struct Inner {
    store: Store,
    files: Files,
    turns: Turns,
    all: Semaphore,
}

/// What is looked for.
#[derive(Clone)]
pub struct Query {
    /// The words.
    pub text: String,
    /// Among what.
    pub among: Among,
    /// In which project; else in all.
    pub project: Option<ProjectId>,
}

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// Titles and messages.
    Conversations,
    /// Paths and texts.
    Files,
    /// Titles and bodies.
    Tasks,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Find {
    /// In which project.
    pub project: ProjectId,
    /// What.
    pub what: Found,
    /// Milliseconds since 1970 when it was said or changed.
    pub time: i64,
    /// What it says there.
    pub snippet: Snippet,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A conversation, by its title.
    Conversation(ConversationId),
    /// A message.
    Message(ConversationId, MessageId),
    /// A file.
    File(FileId),
    /// A task.
    Task(TaskId),
}

/// Where a search goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// After these conversations and, of those that follow, after this message.
    Conversations(Option<Bookmark<ConversationId>>, Option<MessagePosition>),
    /// In this project after this file.
    Files(ProjectId, Option<Bookmark<FileId>>),
    /// From this project on.
    Tasks(ProjectId),
}

/// A text that is no [`Place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a place where a search goes on")]
pub struct InvalidPlace;

impl Search {
    /// Looks through what is in this store and these files.
    #[must_use]
    pub fn new(store: Store, files: Files) -> Self {
        Self(Arc::new(Inner { store, files, turns: Turns::new(1), all: Semaphore::new(AT_ONCE) }))
    }

    /// What a person keeps that has all these words, and where to go on if that is not all. No words find nothing.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when they have no such project; when the store or the disk fails.
    pub async fn find(&self, owner: UserId, query: Query, from: Option<Place>) -> Result<(Vec<Find>, Option<Place>), FileError> {
        let Some(words) = Words::of(&query.text) else { return Ok((Vec::new(), None)) };
        let _turn = self.0.turns.take(owner).await;
        // Nobody closes it.
        let _place = self.0.all.acquire().await;
        let mut looking = Looking { owner, words: Arc::new(words), until: Instant::now() + TIME, finds: Vec::new() };
        let next = match (query.among, from) {
            (Among::Conversations, Some(Place::Conversations(batch, message))) => {
                self.conversations(&mut looking, query.project, batch, message).await?
            }
            (Among::Conversations, _) => self.conversations(&mut looking, query.project, None, None).await?,
            (Among::Files, from) => self.in_files(&mut looking, query.project, from).await?,
            (Among::Tasks, from) => self.in_tasks(&mut looking, query.project, from).await?,
        };
        Ok((looking.finds, next))
    }

    async fn conversations(
        &self,
        looking: &mut Looking,
        project: Option<ProjectId>,
        mut batch: Option<Bookmark<ConversationId>>,
        mut message: Option<MessagePosition>,
    ) -> Result<Option<Place>, FileError> {
        let (store, owner) = (&self.0.store, looking.owner);
        self.must_exist(owner, project).await?;
        let filter = ConversationFilter { project, ..ConversationFilter::default() };
        loop {
            let (conversations, next) = store.conversations(owner, filter, batch, CONVERSATIONS).await?;
            if message.is_none() {
                looking.titles(&conversations);
            }
            let ids: Vec<_> = conversations.iter().map(|conversation| conversation.id).collect();
            let project_of = |wanted: ConversationId| {
                conversations.iter().find(|conversation| conversation.id == wanted).map(|conversation| conversation.project)
            };
            loop {
                let most = FINDS.saturating_sub(looking.finds.len()).max(1);
                let looked = store.look_through(owner, &ids, message, MESSAGES, most, looking.matcher()).await?;
                let Some((found, last)) = looked else { break };
                for (said, snippet) in found {
                    let Some(project) = project_of(said.conversation) else { continue };
                    let what = Found::Message(said.conversation, said.id);
                    looking.finds.push(Find { project, what, time: said.created_at, snippet });
                }
                message = Some(last);
                if looking.is_over() {
                    return Ok(Some(Place::Conversations(batch, message)));
                }
            }
            message = None;
            batch = next;
            if batch.is_none() {
                return Ok(None);
            }
            if looking.is_over() {
                return Ok(Some(Place::Conversations(batch, None)));
            }
        }
    }

    async fn in_files(
        &self,
        looking: &mut Looking,
        project: Option<ProjectId>,
        from: Option<Place>,
    ) -> Result<Option<Place>, FileError> {
        let owner = looking.owner;
        let (first, mut after) = match from {
            Some(Place::Files(project, after)) => (Some(project), after),
            _ => (None, None),
        };
        for project in self.projects(owner, project, first).await? {
            loop {
                let (files, next) = self.0.store.files(owner, project, false, after, FILES).await?;
                for file in files {
                    let here = Bookmark { time: file.created_at, id: file.id };
                    self.in_file(looking, file).await?;
                    if looking.is_over() {
                        return Ok(Some(Place::Files(project, Some(here))));
                    }
                }
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(None)
    }

    /// A file is found by its path or by its text.
    async fn in_file(&self, looking: &mut Looking, file: FileEntry) -> Result<(), FileError> {
        let (what, time, project) = (Found::File(file.id), file.updated_at, file.project);
        if let Some(snippet) = looking.words.find(file.path.as_str()) {
            looking.finds.push(Find { project, what, time, snippet });
            return Ok(());
        }
        let text = match self.0.files.read_text(looking.owner, project, &FileRef::Id(file.id), None, FILE).await {
            Ok(text) => text.text,
            // No text, or gone since it was listed.
            Err(FileError::NotText | FileError::Store(StoreError::Missing(_))) => return Ok(()),
            Err(error) => return Err(error),
        };
        let words = Arc::clone(&looking.words);
        let found = tokio::task::spawn_blocking(move || words.find(&text)).await;
        if let Ok(Some(snippet)) = found {
            looking.finds.push(Find { project, what, time, snippet });
        }
        Ok(())
    }

    async fn in_tasks(
        &self,
        looking: &mut Looking,
        project: Option<ProjectId>,
        from: Option<Place>,
    ) -> Result<Option<Place>, FileError> {
        let first = match from {
            Some(Place::Tasks(project)) => Some(project),
            _ => None,
        };
        for project in self.projects(looking.owner, project, first).await? {
            if looking.is_over() {
                return Ok(Some(Place::Tasks(project)));
            }
            let (tasks, words) = (self.0.store.tasks(looking.owner, project).await?, Arc::clone(&looking.words));
            let found = tokio::task::spawn_blocking(move || {
                let find = |task: crate::store::Task| {
                    let snippet = words.find(&format!("{}\n{}", task.title, task.body))?;
                    Some(Find { project, what: Found::Task(task.id), time: task.updated_at, snippet })
                };
                tasks.into_iter().filter_map(find).collect::<Vec<_>>()
            });
            looking.finds.extend(found.await.unwrap_or_default());
        }
        Ok(None)
    }

    /// The projects that are looked through, from `first` on.
    async fn projects(
        &self,
        owner: UserId,
        only: Option<ProjectId>,
        first: Option<ProjectId>,
    ) -> Result<Vec<ProjectId>, FileError> {
        self.must_exist(owner, only).await?;
        let mut projects: Vec<_> = match only {
            Some(project) => vec![project],
            None => self.0.store.projects(owner).await?.into_iter().map(|project| project.id).collect(),
        };
        if let Some(at) = projects.iter().position(|project| Some(*project) == first) {
            projects.drain(..at);
        }
        Ok(projects)
    }

    async fn must_exist(&self, owner: UserId, project: Option<ProjectId>) -> Result<(), FileError> {
        match project {
            Some(project) if self.0.store.project(owner, project).await?.is_none() => Err(StoreError::Missing("project").into()),
            _ => Ok(()),
        }
    }
}

/// A search under way.
struct Looking {
    owner: UserId,
    words: Arc<Words>,
    until: Instant,
    finds: Vec<Find>,
}

impl Looking {
    fn is_over(&self) -> bool {
        self.finds.len() >= FINDS || Instant::now() >= self.until
    }

    fn titles(&mut self, conversations: &[Conversation]) {
        for conversation in conversations {
            if let Some(snippet) = conversation.title.as_ref().and_then(|title| self.words.find(title)) {
                let (project, what) = (conversation.project, Found::Conversation(conversation.id));
                self.finds.push(Find { project, what, time: conversation.updated_at, snippet });
            }
        }
    }

    /// Looks at messages, where they are opened.
    fn matcher(&self) -> impl Fn(&Message) -> Option<Snippet> + Send + 'static + use<> {
        let words = Arc::clone(&self.words);
        move |message| {
            let mut text = String::new();
            for part in &message.content.parts {
                if let Part::Text { text: more } | Part::File { name: more, .. } = part {
                    text.push_str(more);
                    text.push('\n');
                }
            }
            words.find(text.trim_end())
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conversations(batch, message) => {
                f.write_str("c.")?;
                batch.iter().try_for_each(|batch| batch.fmt(f))?;
                f.write_str(".")?;
                message.iter().try_for_each(|message| message.fmt(f))
            }
            Self::Files(project, after) => {
                write!(f, "f.{project}.")?;
                after.iter().try_for_each(|after| after.fmt(f))
            }
            Self::Tasks(project) => write!(f, "t.{project}."),
        }
    }
}

impl FromStr for Place {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        fn maybe<T: FromStr>(text: &str) -> Result<Option<T>, InvalidPlace> {
            if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| InvalidPlace) }
        }
        let parts: Vec<_> = text.split('.').collect();
        match parts[..] {
            ["c", batch, message] => Ok(Self::Conversations(maybe(batch)?, maybe(message)?)),
            ["f", project, after] => Ok(Self::Files(project.parse().map_err(|_| InvalidPlace)?, maybe(after)?)),
            ["t", project, ""] => Ok(Self::Tasks(project.parse().map_err(|_| InvalidPlace)?)),
            _ => Err(InvalidPlace),
        }
    }
}
