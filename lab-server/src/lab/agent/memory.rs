//! What a model is told of the conversation and of its own work, and what is left out when that grows too long.
//!
//! What goes first are the results of the oldest tools, then what was given to them: each is cut to its beginning, and says so, so that
//! the model can look again. What people and models said to each other stays whole.

use serde_json::Value;

use crate::{
    lab::{
        content::{Content, Part},
        files::{FileError, Files},
        prompt::{Said, Turn},
        tools::{MOST_TEXT, bounded},
    },
    store::{FileRef, Message, Role, StoreError},
};
use wire::{ProjectId, UserId};

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
/// Bytes of a picture that is shown to a model: what the strictest provider takes.
const MOST_PICTURE: usize = 5 << 20;
/// Bytes of a text file that are told to a model: some 60,000 tokens.
const MOST_GIVEN: usize = 256 << 10;

/// Bytes that a prompt may have, of which a quarter is kept for the answer.
pub(super) fn room(context_tokens: Option<u64>) -> usize {
    let bytes = context_tokens.map(|tokens| tokens.saturating_mul(BYTES_PER_TOKEN) / 4 * 3);
    bytes.map_or(UNKNOWN, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Cuts what is oldest until everything fits; whether it does.
pub(super) fn fit(turns: &mut [Turn], most: usize) -> bool {
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
            // As many tokens as providers count for one, whatever its bytes.
            Said::Image { .. } => 4096,
            Said::ToolCall { arguments, .. } => arguments.to_string().len(),
        })
        .sum()
}

fn said_mut(turn: &mut Turn) -> &mut [Said] {
    let (Turn::User(said) | Turn::Assistant(said)) = turn;
    said
}

/// A conversation as a model is told of it, from its messages, oldest first. One that has no tools is told of no use of any: providers
/// refuse that, and it would mean nothing.
///
/// # Errors
/// When what is stored cannot be read.
pub(super) async fn turns_of(
    files: &Files,
    owner: UserId,
    project: ProjectId,
    messages: Vec<Message>,
    with_tools: bool,
) -> Result<Vec<Turn>, FileError> {
    let mut turns = Vec::new();
    for mut message in messages {
        if !with_tools {
            message.content.parts.retain(|part| !matches!(part, Part::ToolCall { .. } | Part::ToolResult { .. }));
        }
        match message.role {
            Role::User => turns.push(Turn::User(said_by_person(files, owner, project, message).await?)),
            Role::Assistant => turns.extend(said_by_model(message.content)),
        }
    }
    // What a run left empty that was stopped before its first word says nothing.
    turns.retain(|turn| {
        let (Turn::User(said) | Turn::Assistant(said)) = turn;
        !said.is_empty()
    });
    Ok(turns)
}

async fn said_by_person(files: &Files, owner: UserId, project: ProjectId, message: Message) -> Result<Vec<Said>, FileError> {
    let mut said = Vec::new();
    for part in message.content.parts {
        match part {
            Part::Text { text } if text.is_empty() => {}
            Part::Text { text } => said.push(Said::Text(text)),
            Part::File { file, version, name, media_type } => {
                said.push(match shown(files, owner, project, (FileRef::Id(file), version), &name, &media_type).await {
                    Err(FileError::TooLarge | FileError::NotText | FileError::Store(StoreError::Missing(_))) => {
                        Said::Text(format!("[the file {name} ({media_type}) cannot be shown]"))
                    }
                    other => other?,
                });
            }
            // A person says none of these.
            Part::Reasoning { .. } | Part::ToolCall { .. } | Part::ToolResult { .. } => {}
        }
    }
    Ok(said)
}

/// A file that somebody gave along: its picture or its words.
async fn shown(
    files: &Files,
    owner: UserId,
    project: ProjectId,
    (file, version): (FileRef, i64),
    name: &str,
    media_type: &str,
) -> Result<Said, FileError> {
    if PICTURES.contains(&media_type) {
        let (_, data) = files.read_whole(owner, project, &file, Some(version), MOST_PICTURE).await?;
        return Ok(Said::Image { media_type: media_type.to_owned(), data });
    }
    let text = files.read_text(owner, project, &file, Some(version), MOST_GIVEN).await?;
    let rest = if text.cut { "\n[the rest is left out]" } else { "" };
    Ok(Said::Text(format!("The file {name}:\n{}{rest}", text.text)))
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
}
