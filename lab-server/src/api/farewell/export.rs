//! Taking everything along: a zip of all that is somebody's, made while it is sent. Nothing of it is laid down on a disk.
//!
//! One task reads and opens what is theirs, piece by piece; a thread of its own packs the pieces; the answer's body is what it packs.
//! All three wait for each other, so that an account of any size takes the memory of some pieces.

use std::{
    collections::HashSet,
    io::{self, Write},
    sync::Arc,
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use http::header;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use wire::{FileId, ProjectId, UserId};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::super::{
    Api, Inner, Session,
    account::EntryView,
    briefs::BriefView,
    conversations::MessageView,
    files::{FileView, VersionView},
    folders::FolderView,
    keys::KeyView,
    operations,
    projects::ProjectView,
    requests::RequestView,
    runs::RunView,
    tasks::TaskView,
};
use crate::{
    error::{ApiError, ErrorBody},
    lab::files::FileError,
    store::{Conversation, ConversationFilter, FileRef, RequestFilter, StoreError},
};

/// Pieces that wait to be packed. One may be a message of some megabytes.
const WAITING: usize = 2;
/// Packed pieces that wait to be sent.
const PACKED: usize = 8;
/// Packed bytes that are sent together.
const PIECE: usize = 64 * 1024;
/// Rows that are read together.
const TOGETHER: u64 = 200;

/// What the zip's reader finds first.
const README: &str = include_str!("README.txt");

/// Everything of the account, as a zip of readable files; its README.txt says what is where.
#[utoipa::path(
    get, path = "/api/account/export", operation_id = "export_account", tag = "account", security(("session" = [])),
    responses(
        (status = 200, description = "The zip.", body = Vec<u8>, content_type = "application/zip"),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn export(State(Api(api)): State<Api>, session: Session) -> Result<Response, ApiError> {
    session.fresh()?;
    let (pieces, to_pack) = mpsc::channel(WAITING);
    let (packed, body) = mpsc::channel(PACKED);
    // A reader who does not read holds a thread, and whoever opens many would hold all.
    let busy = ApiError::TooManyRequests { retry_after_s: 30 };
    let turn = api.exporting.try_take(session.user).ok_or(busy)?;
    let place = Arc::clone(&api.exports).try_acquire_owned().map_err(|_| busy)?;
    tokio::task::spawn_blocking(move || {
        pack(to_pack, packed);
        drop((turn, place));
    });
    tokio::spawn(async move {
        let user = session.user;
        match (Everything { api: &api, user, pieces: &pieces }).send().await {
            // Whoever hung up wants no more of it.
            Ok(()) | Err(ExportError::Gone) => {}
            Err(ExportError::Store(error)) => tracing::error!(%error, %user, "cannot export an account"),
            Err(ExportError::File(error)) => tracing::error!(%error, %user, "cannot export a file of an account"),
        }
    });
    let body = stream::unfold(body, async |mut body| body.recv().await.map(|piece| (piece, body)));
    let head =
        [(header::CONTENT_TYPE, "application/zip"), (header::CONTENT_DISPOSITION, "attachment; filename=\"1k4-account.zip\"")];
    Ok((head, Body::from_stream(body)).into_response())
}

/// What is packed next.
enum Piece {
    /// A file begins.
    File(String),
    /// More of it.
    Bytes(Bytes),
    /// That was everything. Without it the zip has no end, and its reader knows.
    End,
}

/// Why not everything was exported.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("nobody reads it any more")]
    Gone,
}

/// Packs pieces as they come.
fn pack(mut pieces: mpsc::Receiver<Piece>, packed: mpsc::Sender<io::Result<Bytes>>) {
    let outlet = Outlet { packed: packed.clone(), waiting: Vec::with_capacity(PIECE) };
    let mut zip = ZipWriter::new_stream(outlet);
    let mut whole = || -> io::Result<bool> {
        while let Some(piece) = pieces.blocking_recv() {
            match piece {
                // A file may be larger than what 32 bits count.
                Piece::File(name) => zip.start_file(name, SimpleFileOptions::default().large_file(true))?,
                Piece::Bytes(bytes) => zip.write_all(&bytes)?,
                Piece::End => return Ok(true),
            }
        }
        Ok(false)
    };
    let ended = match whole() {
        Ok(true) => zip.finish().map_err(io::Error::from).and_then(|outlet| outlet.into_inner().flush()),
        Ok(false) => Err(io::Error::other("the export was broken off")),
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        // Nobody may be there any more to be told.
        let _ = packed.blocking_send(Err(error));
    }
}

/// Where the packer writes.
struct Outlet {
    packed: mpsc::Sender<io::Result<Bytes>>,
    waiting: Vec<u8>,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.waiting, Vec::with_capacity(PIECE));
        self.packed.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Where files stand in the zip. In a project a file may be called as the folder of another one is, or differ from it in capitals
/// alone; where the zip is unpacked neither may be possible.
#[derive(Default)]
struct Places {
    folders: HashSet<String>,
    taken: HashSet<String>,
}

impl Places {
    /// Every path is said before the first is placed.
    fn know(&mut self, path: &str) {
        let path = path.to_lowercase();
        self.folders.extend(path.match_indices('/').map(|(end, _)| path[..end].to_owned()));
    }

    /// The path itself, or with the file's id where something else is there.
    fn place(&mut self, path: &str, id: FileId) -> String {
        let key = path.to_lowercase();
        let free = !self.folders.contains(&key) && self.taken.insert(key);
        if free { path.to_owned() } else { format!("{path}.{id}") }
    }
}

fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// All that is somebody's, on its way.
struct Everything<'a> {
    api: &'a Inner,
    user: UserId,
    pieces: &'a mpsc::Sender<Piece>,
}

impl Everything<'_> {
    async fn send(&self) -> Result<(), ExportError> {
        let Self { api: Inner { parts, .. }, user, .. } = *self;
        let store = &parts.store;
        self.file("README.txt", README.into()).await?;
        let person = store.user(user).await?.ok_or(StoreError::Missing("user"))?;
        let balance = store.balance(user).await?;
        let (credits, free) = balance.map_or((0, 0), |balance| (balance.balance_nano, balance.free_requests_left));
        let credits = crate::credits::Credits::of_nano(credits);
        self.json("account.json", &json!({ "account": person, "balance": credits, "free_requests_left": free })).await?;
        let identities = store.identities(user).await?.into_iter().map(|one| {
            json!({ "id": one.id, "provider": one.provider, "email": one.email, "created_at": one.created_at, "used_at": one.used_at })
        });
        self.json("identities.json", &identities.collect::<Vec<_>>()).await?;
        let sessions = store.sessions(user, 0, 0).await?.into_iter().map(|(one, browser)| {
            json!({
                "id": one.id, "identity": one.identity, "browser": browser, "began_at": one.began_at,
                "authenticated_at": one.authenticated_at, "used_at": one.used_at
            })
        });
        self.json("sessions.json", &sessions.collect::<Vec<_>>()).await?;
        self.json("devices.json", &store.devices(user).await?).await?;
        let folders: Vec<FolderView> = store.folders(user).await?.into_iter().map(FolderView::from).collect();
        self.json("folders.json", &folders).await?;
        let projects = store.projects(user).await?;
        let mut keys: Vec<KeyView> = Vec::new();
        for project in &projects {
            keys.extend(store.keys(project.id).await?.into_iter().map(KeyView::from));
        }
        self.json("keys.json", &keys).await?;
        for project in &projects {
            self.project(project.id).await?;
        }
        self.json("projects.json", &projects.into_iter().map(ProjectView::from).collect::<Vec<_>>()).await?;
        self.books().await?;
        let mut after = None;
        loop {
            let (page, next) = store.conversations(user, ConversationFilter::default(), after, TOGETHER).await?;
            for conversation in page {
                self.conversation(conversation).await?;
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        self.push(Piece::End).await
    }

    async fn books(&self) -> Result<(), ExportError> {
        let store = &self.api.store;
        self.push(Piece::File("requests.jsonl".to_owned())).await?;
        let (filter, mut after) = (RequestFilter { user: Some(self.user), ..RequestFilter::default() }, None);
        loop {
            let (page, next) = store.requests_page(&filter, after.as_ref(), TOGETHER).await?;
            self.lines(page.into_iter().map(RequestView::from)).await?;
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        self.push(Piece::File("ledger.jsonl".to_owned())).await?;
        let mut before = None;
        loop {
            let page = store.ledger(self.user, before, TOGETHER).await?;
            before = page.last().map(|entry| entry.seq);
            if before.is_none() {
                return Ok(());
            }
            self.lines(page.into_iter().map(EntryView::from)).await?;
        }
    }

    async fn project(&self, project: ProjectId) -> Result<(), ExportError> {
        let Self { api, user, .. } = *self;
        let folder = format!("projects/{project}");
        let brief = api.store.brief(user, project).await?;
        self.json(&format!("{folder}/brief.json"), &BriefView::from(brief)).await?;
        let tasks: Vec<TaskView> = api.store.tasks(user, project).await?.into_iter().map(TaskView::from).collect();
        self.json(&format!("{folder}/tasks.json"), &tasks).await?;
        let rules = api.store.rules(user, project).await?.into_iter();
        let rules = rules.map(|one| json!({ "id": one.id, "rule": one.rule, "created_at": one.created_at }));
        self.json(&format!("{folder}/rules.json"), &rules.collect::<Vec<_>>()).await?;
        // Without the headers that open them, and whatever else in their addresses may: those are secrets.
        let servers = api.store.tool_servers(user, project).await?.into_iter().map(|one| {
            let (url, name) = (one.terms.plain_address(), one.terms.name);
            json!({ "id": one.id, "name": name, "url": url, "enabled": one.enabled, "created_at": one.created_at })
        });
        self.json(&format!("{folder}/tool-servers.json"), &servers.collect::<Vec<_>>()).await?;
        let mut all = Vec::new();
        let mut places = Places::default();
        let mut after = None;
        loop {
            let (page, next) = api.store.files(user, project, false, after, TOGETHER).await?;
            page.iter().for_each(|file| places.know(file.path.as_str()));
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        for deleted in [false, true] {
            let mut after = None;
            loop {
                let (page, next) = api.store.files(user, project, deleted, after, TOGETHER).await?;
                for file in page {
                    let id = file.id;
                    // In the bin several files may have had one path.
                    let path = match deleted {
                        false => format!("{folder}/files/{}", places.place(file.path.as_str(), id)),
                        true => format!("{folder}/bin/{id}/{}", last_name(file.path.as_str())),
                    };
                    let mut versions: Vec<VersionView> = Vec::new();
                    let mut before = None;
                    loop {
                        let older = api.store.file_versions(user, project, id, before, TOGETHER).await?;
                        before = older.last().map(|version| version.version);
                        if before.is_none() {
                            break;
                        }
                        versions.extend(older.into_iter().map(VersionView::from));
                    }
                    all.push(json!({ "file": FileView::from(file), "versions": versions, "content": path }));
                    let (_, content) = api.files.read(user, project, &FileRef::Id(id), None).await?;
                    self.push(Piece::File(path)).await?;
                    let mut content = std::pin::pin!(content);
                    while let Some(chunk) = content.next().await {
                        self.push(Piece::Bytes(chunk?)).await?;
                    }
                }
                match next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        self.json(&format!("{folder}/files.json"), &all).await?;
        self.push(Piece::File(format!("{folder}/operations.jsonl"))).await?;
        let mut lines = std::pin::pin!(operations::lines(api.log.clone(), user, project));
        while let Some(lines) = lines.try_next().await? {
            self.push(Piece::Bytes(lines)).await?;
        }
        Ok(())
    }

    /// Message by message, and of runs some events at a time: a conversation may have more of either than fits into memory.
    async fn conversation(&self, conversation: Conversation) -> Result<(), ExportError> {
        let (id, store) = (conversation.id, &self.api.store);
        let about = json!({
            "id": id, "project": conversation.project, "folder": conversation.folder, "title": conversation.title,
            "settings": conversation.settings, "leaf": conversation.leaf, "pinned": conversation.pinned,
            "archived_at": conversation.archived_at, "created_at": conversation.created_at, "updated_at": conversation.updated_at
        });
        self.file(&format!("conversations/{id}.json"), format!("{{\"conversation\": {about},\n\"messages\": [").into()).await?;
        let (mut separator, mut after) = ("\n", None);
        loop {
            let (page, next) = store.messages_page(self.user, id, after, TOGETHER).await?;
            for message in page {
                self.entry(&mut separator, &MessageView::from(message)).await?;
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        self.push(Piece::Bytes(Bytes::from_static(b"],\n\"runs\": ["))).await?;
        let (mut between, mut after) = ("\n", None);
        loop {
            let (page, next) = store.runs(self.user, id, after, TOGETHER).await?;
            for run in page {
                let about = json!(RunView::from(run.clone()));
                self.push(Piece::Bytes(format!("{between}{{\"run\": {about}, \"events\": [").into())).await?;
                between = ",\n";
                let (mut separator, mut seen) = ("\n", 0);
                loop {
                    let events = store.run_events(self.user, &run, seen).await?;
                    let Some(last) = events.last() else { break };
                    seen = last.seq;
                    for event in &events {
                        self.entry(&mut separator, event).await?;
                    }
                }
                self.push(Piece::Bytes(Bytes::from_static(b"]}"))).await?;
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        self.push(Piece::Bytes(Bytes::from_static(b"]}\n"))).await
    }

    /// An entry of a list, behind what stands between it and the one before.
    async fn entry(&self, separator: &mut &'static str, value: &(impl Serialize + Sync)) -> Result<(), ExportError> {
        let mut entry = separator.as_bytes().to_vec();
        serde_json::to_writer(&mut entry, value).map_err(|_| StoreError::Corrupt("export"))?;
        *separator = ",\n";
        self.push(Piece::Bytes(entry.into())).await
    }

    async fn json(&self, name: &str, value: &(impl Serialize + Sync)) -> Result<(), ExportError> {
        let text = serde_json::to_vec_pretty(value).map_err(|_| StoreError::Corrupt("export"))?;
        self.file(name, text.into()).await
    }

    async fn lines<T: Serialize>(&self, rows: impl Iterator<Item = T>) -> Result<(), ExportError> {
        let mut lines = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut lines, &row).map_err(|_| StoreError::Corrupt("export"))?;
            lines.push(b'\n');
        }
        self.push(Piece::Bytes(lines.into())).await
    }

    async fn file(&self, name: &str, content: Bytes) -> Result<(), ExportError> {
        self.push(Piece::File(name.to_owned())).await?;
        self.push(Piece::Bytes(content)).await
    }

    async fn push(&self, piece: Piece) -> Result<(), ExportError> {
        self.pieces.send(piece).await.map_err(|_| ExportError::Gone)
    }
}
