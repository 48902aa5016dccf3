//! How long a context a workstation's Ollama is asked for.
//!
//! Left alone, Ollama loads a model with a context of the owner's choice, often 4096 tokens, and cuts a longer conversation without a
//! word. Asked for another length than the one that is loaded, it loads the model anew, which takes seconds. So: what is loaded is taken
//! where it is enough, nothing is asked for where any is, and otherwise lengths grow in powers of two, a few in a whole conversation.

use crate::lab::prompt::{Prompt, Said, Turn};

/// Tokens of context that Ollama loads at least, when nobody asks for less.
const LEAST: u64 = 4_096;
/// Tokens kept for an answer of which nobody says how long it may be; a third of the prompt where that is more.
const ANSWER: u64 = 2_048;
/// Tokens of a picture, above what models make of one: a thousand or less, for most.
const PICTURE: u64 = 2_048;
/// Tokens that a turn or a tool takes beside its words.
const FRAME: u64 = 16;
/// Bytes of text that a token stands for at least, on the whole.
const BYTES_PER_TOKEN: u64 = 3;

/// A workstation that may be asked, as far as it matters here.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    /// The longest context that the model takes there and its owner lets be asked for; `None` where nobody says.
    pub(super) most: Option<u64>,
    /// The one that it is loaded with.
    pub(super) loaded: Option<u64>,
}

/// Tokens of context to ask for; `None` to leave it to Ollama.
pub(super) fn wanted(prompt: &Prompt, places: &[Place]) -> Option<u64> {
    let tokens = tokens(prompt);
    let answer = prompt.choice.max_output_tokens.map_or_else(|| ANSWER.max(tokens / 3), u64::from);
    let need = tokens.saturating_add(answer);
    let loaded = || places.iter().filter_map(|place| place.loaded);
    if let Some(enough) = loaded().filter(|loaded| *loaded >= need).min() {
        return Some(enough);
    }
    if need <= LEAST && loaded().next().is_none() {
        return None;
    }
    let step = need.checked_next_power_of_two().unwrap_or(need).max(LEAST);
    Some(places.iter().filter_map(|place| place.most).max().map_or(step, |most| step.min(most)))
}

/// What the prompt comes to, rather too much than too little.
fn tokens(prompt: &Prompt) -> u64 {
    let of = |text: usize| u64::try_from(text).unwrap_or(u64::MAX).div_ceil(BYTES_PER_TOKEN);
    let system = prompt.system.as_ref().map_or(0, |system| of(system.len()) + FRAME);
    let tools = prompt.tools.iter().map(|tool| {
        let text = tool.name.len() + tool.description.len() + tool.parameters.to_string().len();
        of(text) + FRAME
    });
    let said = prompt.turns.iter().flat_map(|turn| match turn {
        Turn::User(said) | Turn::Assistant(said) => said,
    });
    let said = said.map(|said| match said {
        Said::Text(text) | Said::ToolResult { text, .. } => of(text.len()) + FRAME,
        Said::Image { .. } => PICTURE,
        Said::ToolCall { tool, arguments, .. } => of(tool.len() + arguments.to_string().len()) + FRAME,
    });
    system + tools.sum::<u64>() + said.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::content::ModelChoice;

    fn prompt(bytes: usize, max_output_tokens: Option<u32>) -> Prompt {
        Prompt {
            choice: ModelChoice { model: "m".into(), max_output_tokens, temperature: None },
            system: None,
            turns: vec![Turn::User(vec![Said::Text("x".repeat(bytes))])],
            tools: Vec::new(),
        }
    }

    #[test]
    fn a_context_is_asked_for_only_where_the_loaded_one_is_too_short_and_grows_in_steps() {
        let place = |most, loaded| [Place { most, loaded }];
        let cold = place(Some(32_768), None);
        assert_eq!(wanted(&prompt(60, None), &cold), None);
        assert_eq!(wanted(&prompt(60, None), &[]), None);
        assert_eq!(wanted(&prompt(9_000, None), &cold), Some(8_192));
        assert_eq!(wanted(&prompt(60, Some(6_000)), &cold), Some(8_192));
        // What is loaded stays loaded, also for a short question and also where the owner's own length is no power of two.
        assert_eq!(wanted(&prompt(60, None), &place(Some(32_768), Some(5_000))), Some(5_000));
        assert_eq!(wanted(&prompt(9_000, None), &place(Some(32_768), Some(5_000))), Some(8_192));
        assert_eq!(wanted(&prompt(60, None), &place(Some(32_768), Some(1_024))), Some(4_096));
        // As far as the model and its owner go, and no further.
        assert_eq!(wanted(&prompt(90_000, None), &place(Some(20_000), Some(8_192))), Some(20_000));
        assert_eq!(wanted(&prompt(900_000, None), &place(Some(20_000), Some(20_000))), Some(20_000));
        assert_eq!(wanted(&prompt(90_000, None), &place(None, None)), Some(65_536));
        // A long conversation, turn by turn, has the model loaded only so often.
        let mut loads = Vec::new();
        for turn in 1..=100 {
            let now = place(Some(131_072), loads.last().copied());
            if let Some(asked) = wanted(&prompt(turn * 3_000, None), &now)
                && loads.last() != Some(&asked)
            {
                loads.push(asked);
            }
        }
        assert_eq!(loads, [8_192, 16_384, 32_768, 65_536, 131_072]);
    }

    #[test]
    fn everything_in_a_prompt_counts() {
        let mut all = prompt(300, None);
        assert_eq!(tokens(&all), 116);
        all.system = Some("x".repeat(30));
        all.turns.push(Turn::User(vec![Said::Image { media_type: "image/png".into(), data: bytes::Bytes::from_static(b"x") }]));
        assert_eq!(tokens(&all), 116 + 26 + PICTURE);
    }
}
