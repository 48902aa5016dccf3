//! A part that a model of a fake plays: what it says and which tools it calls, step by step, in the dialect in which it is asked.
//!
//! Which step comes next depends on the conversation alone, so that a part can be gone on with after a restart, in another run or by
//! another request: a step with calls is over once the prompt holds as many results of tools, one without calls once it holds another
//! answer without calls. Behind the last step comes the last step again, which a model that never ends is made of.

use serde_json::Value;

/// One answer of a model's.
#[derive(Debug, Clone, Default)]
pub struct Step {
    pub(crate) thoughts: String,
    pub(crate) text: String,
    pub(crate) calls: Vec<Call>,
}

/// A call of a tool.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) tool: String,
    /// Mostly JSON. Gemini and Ollama send a value and no text, so that theirs is a string where it is not.
    pub(crate) arguments: String,
}

impl Step {
    /// Says this and nothing more.
    #[must_use]
    pub fn say(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    /// Calls a tool.
    #[must_use]
    pub fn call(tool: &str, arguments: &Value) -> Self {
        Self::default().and_call(tool, arguments)
    }

    /// Calls another tool in the same answer.
    #[must_use]
    pub fn and_call(self, tool: &str, arguments: &Value) -> Self {
        self.and_call_in_words(tool, &arguments.to_string())
    }

    /// Calls a tool with a text for arguments that need not be JSON.
    #[must_use]
    pub fn and_call_in_words(mut self, tool: &str, arguments: &str) -> Self {
        self.calls.push(Call { tool: tool.to_owned(), arguments: arguments.to_owned() });
        self
    }

    /// Thinks this before, whether or not it was asked to.
    #[must_use]
    pub fn thinking(mut self, thoughts: &str) -> Self {
        thoughts.clone_into(&mut self.thoughts);
        self
    }

    /// Says this before it calls.
    #[must_use]
    pub fn saying(mut self, text: &str) -> Self {
        text.clone_into(&mut self.text);
        self
    }
}

/// What a prompt holds of the part that was played already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Played {
    /// Results of tools.
    pub(crate) results: usize,
    /// Answers without calls.
    pub(crate) answers: usize,
}

/// The step that comes next, with its number.
pub(crate) fn next(part: &[Step], played: Played) -> Option<(usize, &Step)> {
    let Played { mut results, mut answers } = played;
    for (number, step) in part.iter().enumerate() {
        let (left, takes) = if step.calls.is_empty() { (&mut answers, 1) } else { (&mut results, step.calls.len()) };
        match left.checked_sub(takes) {
            Some(rest) => *left = rest,
            None => return Some((number, step)),
        }
    }
    part.last().map(|last| (part.len() + results + answers, last))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_is_played_by_what_was_seen() {
        let part = [Step::call("a", &json!({})).and_call("b", &json!({})), Step::say("one"), Step::call("c", &json!({}))];
        let at = |results, answers| next(&part, Played { results, answers }).unwrap().0;
        assert_eq!([at(0, 0), at(1, 0), at(2, 0), at(2, 1)], [0, 0, 1, 2]);
        // The last one again and again, each time as another call.
        assert_eq!([at(3, 1), at(4, 1)], [3, 4]);
        assert!(next(&[], Played::default()).is_none());
    }
}
