//! What a run's events come to: the message that it makes. A pure function of the events, one after the other.

use crate::lab::{
    content::{Content, Part},
    event::Event,
};

/// The message so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Fold {
    content: Content,
    cost_nano: i64,
}

impl Fold {
    /// Takes the next event. Words that follow words are one part.
    pub(super) fn take(&mut self, event: &Event) {
        let parts = &mut self.content.parts;
        match event {
            Event::Text { text } => match parts.last_mut() {
                Some(Part::Text { text: before }) => before.push_str(text),
                _ => parts.push(Part::Text { text: text.clone() }),
            },
            Event::Reasoning { text } => match parts.last_mut() {
                Some(Part::Reasoning { text: before }) => before.push_str(text),
                _ => parts.push(Part::Reasoning { text: text.clone() }),
            },
            Event::ToolCall { call, tool, arguments } => {
                parts.push(Part::ToolCall { call: call.clone(), tool: tool.clone(), arguments: arguments.clone() });
            }
            Event::ToolResult { call, text, ok } => {
                parts.push(Part::ToolResult { call: call.clone(), text: text.clone(), ok: *ok });
            }
            Event::Planned { plan, .. } => parts.push(Part::Text { text: plan.clone() }),
            Event::Used { usage } => {
                self.cost_nano = self.cost_nano.saturating_add(usage.cost_nano);
                self.content.usage.push(usage.clone());
            }
            Event::Asked { .. }
            | Event::Waiting { .. }
            | Event::ApprovalAsked { .. }
            | Event::ApprovalAnswered { .. }
            | Event::Ended { .. } => {}
        }
    }

    /// What the message says.
    pub(super) const fn content(&self) -> &Content {
        &self.content
    }

    /// What it cost so far, in nano-credits.
    pub(super) const fn cost_nano(&self) -> i64 {
        self.cost_nano
    }
}
