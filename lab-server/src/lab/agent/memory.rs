//! What a model is told of the conversation and of its own work, and what is left out when that grows too long.
//!
//! What goes first are the results of the oldest tools, then what was given to them: each is cut to its beginning, and says so, so that
//! the model can look again. What people and models said to each other stays whole, as long as a model could read it at all: of a longer
//! conversation the newest part is told, and that there was more.
//!
//! All of it is bounded in bytes, for it is held as long as the run is. Pictures are not: they are read when they are sent, and given up
//! when the model's host has them.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    lab::{
        content::{Content, Part},
        files::{FileError, Files},
        prompt::{Said, Turn},
        tools::{MOST_TEXT, bounded},
    },
    store::{Branch, FileRef, Message, Role, StoreError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::{FileId, ProjectId, UserId};

/// Bytes that a token stands for at least, on the whole: fewer than in any text that was measured but Chinese, whose tokens are as long.
const BYTES_PER_TOKEN: u64 = 3;
/// Bytes that a prompt may have when nobody says how long the model's context is: what the smallest of today's take.
const UNKNOWN: usize = 96 * 1024;
/// What an old result is cut to.
const GLIMPSE: usize = 600;
/// Turns at the end that are never cut: the model is about to answer them.
const FRESH: usize = 2;
/// Pictures that models can be shown.
const PICTURES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
/// What a picture counts for: as many tokens as providers count for one, whatever its bytes.
const PICTURE: usize = 4096;
/// Bytes of a picture that is shown to a model: what the strictest provider takes.
const MOST_PICTURE: usize = 5 << 20;
/// Bytes of a text file that are told to a model: some 60,000 tokens.
const MOST_GIVEN: usize = 256 << 10;

/// Bytes of messages that a model is told of at most: two million tokens, which is more than any model's context holds.
pub(super) const MOST_SAID: usize = 8 << 20;
/// Bytes of all text files together that were given along: a dozen of the longest.
const MOST_FILES: usize = 4 << 20;
/// Bytes of a prompt at most, with files, and with pictures as they are sent. The proxy takes some more.
const MOST_TOLD: usize = 24 << 20;
/// Prompts that are made at once, of everybody. One of the largest takes some hundred megabytes while it is written, and whoever makes it
/// waits for nobody else meanwhile.
const AT_ONCE: usize = 4;

/// A conversation as a model is told of it.
#[derive(Default)]
pub(super) struct Memory {
    /// Without the pictures: where one stands, it is said that there is one.
    pub(super) turns: Vec<Turn>,
    pictures: Vec<Picture>,
}

/// A picture that somebody gave along.
#[derive(Debug, PartialEq)]
struct Picture {
    /// In which turn, and as which piece of it.
    place: (usize, usize),
    file: FileId,
    version: i64,
    media_type: String,
}

/// Leave to make a prompt; clones share it.
#[derive(Clone)]
pub struct Prompts(Arc<Semaphore>);

impl Default for Prompts {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Prompts {
    /// Waits until one more may be made; given back when dropped.
    pub(super) async fn one(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

/// Bytes that a prompt may have, of which a quarter is kept for the answer.
pub(super) fn room(context_tokens: Option<u64>) -> usize {
    let bytes = context_tokens.map(|tokens| tokens.saturating_mul(BYTES_PER_TOKEN) / 4 * 3);
    bytes.map_or(UNKNOWN, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Cuts what is oldest until everything fits; whether it does.
fn fit(turns: &mut [Turn], most: usize) -> bool {
    let mut whole: usize = turns.iter().map(size).sum();
    let old = turns.len().saturating_sub(FRESH);
    for cut in [cut_result, cut_arguments] {
        for said in turns[..old].iter_mut().flat_map(said_mut) {
            if whole <= most {
                return true;
            }
            whole -= cut(said);
        }
    }
    whole <= most
}

/// How many bytes were saved.
fn cut_result(said: &mut Said) -> usize {
    let Said::ToolResult { text, .. } = said else { return 0 };
    let before = text.len();
    if before <= 2 * GLIMPSE {
        return 0;
    }
    text.truncate(text.floor_char_boundary(GLIMPSE));
    text.push_str(&format!("\n[cut to make room: {before} bytes were here; use the tool again to see them]"));
    before - text.len()
}

fn cut_arguments(said: &mut Said) -> usize {
    // What is bound to a provider's own note of the call stays as it was.
    let Said::ToolCall { arguments: Value::Object(arguments), echo: None, .. } = said else { return 0 };
    let mut saved = 0;
    for value in arguments.values_mut() {
        if let Value::String(text) = value
            && text.len() > 2 * GLIMPSE
        {
            let before = text.len();
            text.truncate(text.floor_char_boundary(GLIMPSE));
            text.push_str(&format!("\n[cut to make room: {before} bytes were here]"));
            saved += before - text.len();
        }
    }
    saved
}

fn size(turn: &Turn) -> usize {
    let (Turn::User(said) | Turn::Assistant(said)) = turn;
    said.iter()
        .map(|said| match said {
            Said::Text(text) | Said::ToolResult { text, .. } => text.len(),
            Said::Image { .. } => PICTURE,
            Said::ToolCall { arguments, .. } => arguments.to_string().len(),
        })
        .sum()
}

fn said_mut(turn: &mut Turn) -> &mut [Said] {
    let (Turn::User(said) | Turn::Assistant(said)) = turn;
    said
}

impl Memory {
    /// A conversation, from its messages. A model that has no tools is told of no use of any: providers refuse that, and it would mean
    /// nothing.
    ///
    /// # Errors
    /// When what is stored cannot be read.
    pub(super) async fn of(
        files: &Files,
        owner: UserId,
        project: ProjectId,
        branch: Branch,
        with_tools: bool,
    ) -> Result<Self, FileError> {
        let mut given = Given { files, owner, project, words: MOST_FILES, pictures: MOST_TOLD - MOST_SAID - MOST_FILES };
        let mut told = Vec::new();
        // The newest first: what there is no room for any more is the oldest.
        for mut message in branch.messages.into_iter().rev() {
            if !with_tools {
                message.content.parts.retain(|part| !matches!(part, Part::ToolCall { .. } | Part::ToolResult { .. }));
            }
            told.push(match message.role {
                Role::User => {
                    let (said, pictures) = given.said(message).await?;
                    (vec![Turn::User(said)], pictures)
                }
                Role::Assistant => (said_by_model(message.content), Vec::new()),
            });
        }
        let (mut turns, mut pictures) = (Vec::new(), Vec::new());
        if branch.left_out > 0 {
            let note = format!("[{} earlier messages of this conversation are left out to make room]", branch.left_out);
            turns.push(Turn::User(vec![Said::Text(note)]));
        }
        for (more, shown) in told.into_iter().rev() {
            let turn = turns.len();
            pictures.extend(shown.into_iter().map(|picture| Picture { place: (turn, picture.place.1), ..picture }));
            // What a run left empty that was stopped before its first word says nothing.
            turns.extend(more.into_iter().filter(|turn| {
                let (Turn::User(said) | Turn::Assistant(said)) = turn;
                !said.is_empty()
            }));
        }
        Ok(Self { turns, pictures })
    }

    /// Cuts what is oldest until everything fits; whether it does.
    pub(super) fn fit(&mut self, most: usize) -> bool {
        fit(&mut self.turns, most.saturating_sub(self.pictures.len() * PICTURE))
    }

    /// What is sent: all of it, with the pictures as they are. One that is not there any more is only named.
    pub(super) async fn with_pictures(&self, files: &Files, owner: UserId, project: ProjectId) -> Result<Vec<Turn>, FileError> {
        let mut turns = self.turns.clone();
        for Picture { place: (turn, piece), file, version, media_type } in &self.pictures {
            let data = match files.read_whole(owner, project, &FileRef::Id(*file), Some(*version), MOST_PICTURE).await {
                Ok((_, data)) => data,
                Err(FileError::TooLarge | FileError::Store(StoreError::Missing(_))) => continue,
                Err(error) => return Err(error),
            };
            let said = turns.get_mut(*turn).and_then(|turn| said_mut(turn).get_mut(*piece));
            if let Some(said) = said {
                *said = Said::Image { media_type: media_type.clone(), data };
            }
        }
        Ok(turns)
    }
}

/// What people gave along, as long as there is room.
struct Given<'a> {
    files: &'a Files,
    owner: UserId,
    project: ProjectId,
    /// Bytes that are left for texts.
    words: usize,
    /// Bytes that are left for pictures.
    pictures: usize,
}

impl Given<'_> {
    /// A person's message, and its pictures by their pieces.
    async fn said(&mut self, message: Message) -> Result<(Vec<Said>, Vec<Picture>), FileError> {
        let (mut said, mut pictures) = (Vec::new(), Vec::new());
        for part in message.content.parts {
            match part {
                Part::Text { text } if text.is_empty() => {}
                Part::Text { text } => said.push(Said::Text(text)),
                Part::File { file, version, name, media_type } => {
                    let told = if PICTURES.contains(&media_type.as_str()) {
                        self.picture(file, version).await
                    } else {
                        self.text(file, version, &name).await
                    };
                    let told = match told {
                        Err(FileError::TooLarge | FileError::NotText | FileError::Store(StoreError::Missing(_))) => None,
                        told => Some(told?),
                    };
                    said.push(Said::Text(match told {
                        Some(Told::Words(text)) => text,
                        Some(Told::LeftOut) => format!("[the file {name} ({media_type}) is left out to make room]"),
                        Some(Told::Picture) => {
                            let text = format!("[the picture {name} ({media_type})]");
                            pictures.push(Picture { place: (0, said.len()), file, version, media_type });
                            text
                        }
                        None => format!("[the file {name} ({media_type}) cannot be shown]"),
                    }));
                }
                // A person says none of these.
                Part::Reasoning { .. } | Part::ToolCall { .. } | Part::ToolResult { .. } => {}
            }
        }
        Ok((said, pictures))
    }

    async fn picture(&mut self, file: FileId, version: i64) -> Result<Told, FileError> {
        let (version, _) = self.files.read(self.owner, self.project, &FileRef::Id(file), Some(version)).await?;
        let size = usize::try_from(version.size).unwrap_or(usize::MAX);
        if size > MOST_PICTURE {
            return Err(FileError::TooLarge);
        }
        // As long as it is when it is written in letters.
        Ok(if take(&mut self.pictures, size.div_ceil(3) * 4) { Told::Picture } else { Told::LeftOut })
    }

    async fn text(&mut self, file: FileId, version: i64, name: &str) -> Result<Told, FileError> {
        if !take(&mut self.words, MOST_GIVEN) {
            return Ok(Told::LeftOut);
        }
        let text = self.files.read_text(self.owner, self.project, &FileRef::Id(file), Some(version), MOST_GIVEN).await?;
        self.words += MOST_GIVEN - text.text.len();
        let rest = if text.cut { "\n[the rest is left out]" } else { "" };
        Ok(Told::Words(format!("The file {name}:\n{}{rest}", text.text)))
    }
}

fn take(left: &mut usize, bytes: usize) -> bool {
    let fits = bytes <= *left;
    *left -= if fits { bytes } else { 0 };
    fits
}

/// How a file is told.
enum Told {
    Words(String),
    /// When it is sent.
    Picture,
    LeftOut,
}

/// A message of a model's: what it said and called, turn about with what the tools said.
fn said_by_model(content: Content) -> Vec<Turn> {
    let mut turns = Vec::new();
    let (mut own, mut results) = (Vec::new(), Vec::new());
    let mut open: Vec<(String, String)> = Vec::new();
    for part in content.parts {
        match part {
            Part::ToolResult { call, text, ok } => {
                // What nobody called has no result.
                let Some(at) = open.iter().position(|(known, _)| *known == call) else { continue };
                let (call, tool) = open.remove(at);
                results.push(Said::ToolResult { call, tool, text: bounded(text, MOST_TEXT), ok });
            }
            Part::Text { text } => {
                round(&mut turns, &mut own, &mut results, &mut open);
                own.push(Said::Text(text));
            }
            Part::ToolCall { call, tool, arguments } => {
                round(&mut turns, &mut own, &mut results, &mut open);
                open.push((call.clone(), tool.clone()));
                own.push(Said::ToolCall { call, tool, arguments, echo: None });
            }
            // What a model thought is not told to it again; a file of its own it finds in the project.
            Part::Reasoning { .. } | Part::File { .. } => {}
        }
    }
    finish(&mut turns, &mut own, &mut results, &mut open);
    turns
}

/// Ends a round of calls and results when the model begins to speak again.
fn round(turns: &mut Vec<Turn>, own: &mut Vec<Said>, results: &mut Vec<Said>, open: &mut Vec<(String, String)>) {
    if !results.is_empty() {
        finish(turns, own, results, open);
    }
}

fn finish(turns: &mut Vec<Turn>, own: &mut Vec<Said>, results: &mut Vec<Said>, open: &mut Vec<(String, String)>) {
    // Providers refuse a call without a result: its run was over before there was one.
    results.extend(open.drain(..).map(|(call, tool)| Said::ToolResult {
        call,
        tool,
        text: "this was not done: the run was over".to_owned(),
        ok: false,
    }));
    turns.push(Turn::Assistant(std::mem::take(own)));
    turns.push(Turn::User(std::mem::take(results)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{ConversationSettings, NewConversation, scratch::Scratch};

    fn result(call: &str, text: String) -> Said {
        Said::ToolResult { call: call.into(), tool: "files_read".into(), text, ok: true }
    }

    fn call(call: &str, text: &str) -> Said {
        Said::ToolCall { call: call.into(), tool: "files_write".into(), arguments: json!({"text": text}), echo: None }
    }

    #[test]
    fn the_oldest_results_go_first_and_words_never() {
        let long = || "x".repeat(10_000);
        let mut turns = vec![
            Turn::User(vec![Said::Text(long())]),
            Turn::Assistant(vec![call("1", &long())]),
            Turn::User(vec![result("1", long())]),
            Turn::Assistant(vec![call("2", "short")]),
            Turn::User(vec![result("2", long())]),
        ];
        assert!(fit(&mut turns, 50_000));
        let sizes = |turns: &[Turn]| turns.iter().map(size).collect::<Vec<_>>();
        let whole = sizes(&turns);
        assert!(fit(&mut turns, 35_000));
        let cut = sizes(&turns);
        assert_eq!([cut[0], cut[1], cut[3], cut[4]], [whole[0], whole[1], whole[3], whole[4]]);
        let Turn::User(said) = &turns[2] else { panic!() };
        let [Said::ToolResult { text, .. }] = &said[..] else { panic!() };
        assert_eq!(text[GLIMPSE..], *"\n[cut to make room: 10000 bytes were here; use the tool again to see them]");
        assert!(fit(&mut turns, 25_000));
        assert!(sizes(&turns)[1] < 1_000 && sizes(&turns)[4] == whole[4]);
        assert!(!fit(&mut turns, 5_000), "what was said stays, whatever that means");
        assert_eq!(sizes(&turns)[0], 10_000);
    }

    #[test]
    fn a_models_message_is_told_in_rounds_and_no_call_stays_without_a_result() {
        let text = |text: &str| Part::Text { text: text.into() };
        let called = |call: &str| Part::ToolCall { call: call.into(), tool: "files_list".into(), arguments: json!({}) };
        let done = |call: &str| Part::ToolResult { call: call.into(), text: "r".into(), ok: true };
        let parts = vec![text("a"), called("1"), called("2"), done("1"), done("2"), done("9"), text("b"), called("3")];
        let turns = said_by_model(Content { parts, usage: Vec::new() });
        let shape: Vec<String> = turns
            .iter()
            .map(|turn| {
                let (side, said) = match turn {
                    Turn::User(said) => ("user", said),
                    Turn::Assistant(said) => ("model", said),
                };
                let said = said.iter().map(|said| match said {
                    Said::Text(text) => text.clone(),
                    Said::Image { .. } => "image".into(),
                    Said::ToolCall { call, .. } => format!("call {call}"),
                    Said::ToolResult { call, ok, .. } => format!("result {call} {ok}"),
                });
                format!("{side}: {}", said.collect::<Vec<_>>().join(", "))
            })
            .collect();
        assert_eq!(
            shape,
            ["model: a, call 1, call 2", "user: result 1 true, result 2 true", "model: b, call 3", "user: result 3 false"]
        );
    }

    /// A project with pictures of a mebibyte and texts of the most that is told of one, and a message with all of them.
    #[tokio::test]
    async fn what_is_told_is_bounded_and_pictures_are_read_when_they_are_sent() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let owner = store.add_user("ada").await.unwrap().id;
        let project = store.add_project(owner, "one").await.unwrap().id;
        let files = Files::open(store.clone(), scratch.dir.join("blobs")).await.unwrap();
        let write = async |name: String, bytes: Vec<u8>| {
            let (path, source) = (name.parse().unwrap(), std::io::Cursor::new(bytes));
            files.write(owner, project, &path, None, source, crate::lab::content::Actor::Person).await.unwrap()
        };
        let picture = [b"\x89PNG\r\n\x1a\n".to_vec(), vec![0; (1 << 20) - 8]].concat();
        let mut parts = vec![Part::Text { text: "look".into() }];
        for number in 0..24 {
            for (kind, bytes) in [("png", picture.clone()), ("txt", vec![b'x'; MOST_GIVEN])] {
                let made = write(format!("{number}.{kind}"), bytes).await;
                let (file, version, media_type) = (made.file, made.version, made.media_type);
                parts.push(Part::File { file, version, name: format!("{number}.{kind}"), media_type });
            }
        }
        let new = NewConversation { project, folder: None, title: None, settings: ConversationSettings::default() };
        let at = store.add_conversation(owner, new).await.unwrap().id;
        let said = |text: String| Content { parts: vec![Part::Text { text }], usage: Vec::new() };
        let first = store.add_message(owner, at, None, Role::User, said("first".into()), None).await.unwrap();
        let long = store.add_message(owner, at, Some(first.id), Role::Assistant, said("x".repeat(MOST_SAID)), None).await.unwrap();
        let last = Content { parts, usage: Vec::new() };
        let last = store.add_message(owner, at, Some(long.id), Role::User, last, None).await.unwrap();
        let branch = store.path_to(owner, at, last.id, MOST_SAID).await.unwrap();
        let memory = Memory::of(&files, owner, project, branch, true).await.unwrap();

        let [Turn::User(note), Turn::User(said)] = &memory.turns[..] else { panic!() };
        let [Said::Text(note)] = &note[..] else { panic!() };
        assert_eq!(note, "[2 earlier messages of this conversation are left out to make room]");
        let texts: Vec<&str> =
            said.iter().map(|said| if let Said::Text(text) = said { text.as_str() } else { panic!("a picture") }).collect();
        assert_eq!(texts[1], "[the picture 0.png (image/png)]");
        assert_eq!(texts[2], format!("The file 0.txt:\n{}", "x".repeat(MOST_GIVEN)));
        let count = |what: &str, kind: &str| texts.iter().filter(|text| text.starts_with(what) && text.contains(kind)).count();
        assert_eq!(
            (count("[the picture", "png"), count("[the file", "png"), count("The file", "txt"), count("[the file", "txt")),
            (8, 16, 16, 8)
        );
        assert_eq!(texts[48], "[the file 23.txt (text/plain; charset=utf-8) is left out to make room]");

        let sent = memory.with_pictures(&files, owner, project).await.unwrap();
        let shown = |turns: &[Turn]| {
            let (Turn::User(said) | Turn::Assistant(said)) = &turns[1];
            let shown = said.iter().map(|said| if let Said::Image { data, .. } = said { data.len() } else { 0 });
            shown.filter(|size| *size > 0).collect::<Vec<_>>()
        };
        assert_eq!(shown(&sent), [1 << 20; 8]);
        let bytes: usize = sent.iter().map(size).sum::<usize>() + 8 * (picture.len() / 3 * 4);
        assert!(bytes < MOST_TOLD, "{bytes}");
    }
}
