//! A chat's answer: the branch so far becomes a prompt, the model is asked once, and what it says becomes events.

use wire::UserId;

use super::{Order, RunWriter};
use crate::{
    lab::{
        content::Part,
        event::{Event, Outcome},
        files::{FileError, Files},
        models::{Answer, Models},
        prompt::{Delta, Payer, Prompt, Said, Stop, Turn},
    },
    store::{FileRef, Message, Role, Run, Store, StoreError},
};

/// Bytes of a picture that is shown to a model: what the strictest provider takes.
const MAX_PICTURE: usize = 5 << 20;
/// Bytes of a text file that are told to a model: some 60,000 tokens.
const MAX_TEXT: usize = 256 << 10;

/// What answers are made with. Clones share it.
#[derive(Clone)]
pub struct Chat {
    /// The conversations.
    pub store: Store,
    /// What people show.
    pub files: Files,
    /// Who answers.
    pub models: Models,
}

impl Chat {
    /// One answer, from the prompt to the end.
    pub async fn answer(self, writer: RunWriter, order: Order) -> Outcome {
        let stopped = writer.stopped();
        let answering = async {
            let run = writer.run();
            let prompt = match self.prompt(writer.owner(), &run, order).await {
                Ok(prompt) => prompt,
                Err(error) => return unreadable(&run, &error),
            };
            let payer = Payer { user: writer.owner(), project: run.project };
            writer.push(Event::Asked { step: 1, model: prompt.choice.model.clone() });
            match self.models.ask(payer, prompt).await {
                Ok(answer) => pass_on(answer, &writer).await,
                Err(error) => Outcome::Failed { code: error.code, message: error.message },
            }
        };
        tokio::select! {
            biased;
            // With the answer its request is dropped, and the model stops.
            () = stopped.cancelled() => Outcome::Stopped,
            outcome = answering => outcome,
        }
    }

    async fn prompt(&self, owner: UserId, run: &Run, order: Order) -> Result<Prompt, FileError> {
        let conversation = self.store.conversation(owner, run.conversation).await?.ok_or(StoreError::Missing("conversation"))?;
        let branch = self.store.path_to(owner, run.conversation, run.message).await?;
        let mut turns = Vec::with_capacity(branch.len());
        // The last one is the message that this run makes.
        for message in branch.iter().filter(|message| message.id != run.message) {
            let said = self.said(owner, run, message).await?;
            // What a run left empty that was stopped before its first word says nothing.
            if !said.is_empty() {
                turns.push(match message.role {
                    Role::User => Turn::User(said),
                    Role::Assistant => Turn::Assistant(said),
                });
            }
        }
        Ok(Prompt { choice: order.choice, system: conversation.settings.instructions, turns, tools: Vec::new() })
    }

    /// What a message is to a model without tools: its words and what it shows. Thoughts are a model's own, and the uses of tools mean
    /// nothing to one that has none.
    async fn said(&self, owner: UserId, run: &Run, message: &Message) -> Result<Vec<Said>, FileError> {
        let mut said = Vec::with_capacity(message.content.parts.len());
        for part in &message.content.parts {
            match part {
                Part::Text { text } if text.is_empty() => {}
                Part::Text { text } => said.push(Said::Text(text.clone())),
                Part::File { file, version, name, media_type } => {
                    let file = FileRef::Id(*file);
                    let picture = ["image/png", "image/jpeg", "image/gif", "image/webp"].contains(&media_type.as_str());
                    let shown = if picture {
                        let whole = self.files.read_whole(owner, run.project, &file, Some(*version), MAX_PICTURE).await;
                        whole.map(|(_, data)| Said::Image { media_type: media_type.clone(), data })
                    } else {
                        let text = self.files.read_text(owner, run.project, &file, Some(*version), MAX_TEXT).await;
                        text.map(|text| {
                            let rest = if text.cut { "\n[the rest is left out]" } else { "" };
                            Said::Text(format!("The file {name}:\n{}{rest}", text.text))
                        })
                    };
                    said.push(match shown {
                        Ok(shown) => shown,
                        Err(FileError::TooLarge | FileError::NotText | FileError::Store(StoreError::Missing(_))) => {
                            Said::Text(format!("[the file {name} ({media_type}) cannot be shown]"))
                        }
                        Err(error) => return Err(error),
                    });
                }
                Part::Reasoning { .. } | Part::ToolCall { .. } | Part::ToolResult { .. } => {}
            }
        }
        Ok(said)
    }
}

/// What the model says, as it says it.
async fn pass_on(mut answer: Answer, writer: &RunWriter) -> Outcome {
    while let Some(said) = answer.next().await {
        match said {
            Ok(Delta::Waiting(waiting)) => writer.push(Event::Waiting { waiting }),
            Ok(Delta::Text(text)) => writer.push(Event::Text { text }),
            Ok(Delta::Reasoning(text)) => writer.push(Event::Reasoning { text }),
            // It was offered none.
            Ok(Delta::ToolCall { .. }) => {}
            Ok(Delta::End { stop, usage }) => {
                writer.push(Event::Used { usage });
                return match stop {
                    Stop::Finished | Stop::ToolCalls => Outcome::Done,
                    Stop::Length => Outcome::Exhausted { budget: "tokens".to_owned() },
                    Stop::Refused => Outcome::Failed {
                        code: "refused".to_owned(),
                        message: "the model refused to go on; say it in other words, or ask another model".to_owned(),
                    },
                };
            }
            Err(error) => return Outcome::Failed { code: error.code, message: error.message },
        }
    }
    Outcome::Failed { code: "incomplete".to_owned(), message: "the model's answer has no end; ask once more".to_owned() }
}

fn unreadable(run: &Run, error: &FileError) -> Outcome {
    tracing::error!(run = %run.id, %error, "cannot read what is to be answered");
    Outcome::Failed {
        code: "unreadable".to_owned(),
        message: "the lab cannot read what was said before; its operator finds the cause in its log".to_owned(),
    }
}
