//! Noticing an agent that goes round in circles: the same call, time after time, and nothing else between.

use serde_json::Value;

/// From this time on the model is told that it repeats itself.
const TOLD: u32 = 3;
/// The time that ends the run: it was told twice, and nothing will be different the sixth time.
const ENOUGH: u32 = 5;

/// The last call, and how often it was made in a row.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    last: Option<(String, Value)>,
    count: u32,
}

/// What is to be made of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeated {
    /// Nothing.
    No,
    /// The model is told that it has made it so often in a row.
    Told(u32),
    /// The run ends.
    Enough,
}

impl Repeats {
    /// A call is about to be made.
    pub(super) fn note(&mut self, tool: &str, arguments: &Value) -> Repeated {
        let same = self.last.as_ref().is_some_and(|(name, given)| name == tool && given == arguments);
        if same {
            self.count += 1;
        } else {
            self.last = Some((tool.to_owned(), arguments.clone()));
            self.count = 1;
        }
        match self.count {
            ENOUGH.. => Repeated::Enough,
            TOLD.. => Repeated::Told(self.count),
            _ => Repeated::No,
        }
    }
}

impl Repeated {
    /// What the model is told beside the result.
    pub(super) fn warning(self) -> Option<String> {
        let Self::Told(count) = self else { return None };
        Some(format!(
            "[this very call was made {count} times in a row; the run ends at {ENOUGH}: do something else, or finish with what you have]"
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_call_in_a_row_is_told_and_then_enough() {
        let mut repeats = Repeats::default();
        let (a, b) = (json!({"path": "a"}), json!({"path": "b"}));
        let seen: Vec<_> = [&a, &a, &b, &a, &a, &a, &a, &a].iter().map(|of| repeats.note("files_read", of)).collect();
        use Repeated::{Enough, No, Told};
        assert_eq!(seen, [No, No, No, No, No, Told(3), Told(4), Enough]);
        assert_eq!(repeats.note("files_list", &a), No);
        assert!(Told(3).warning().unwrap().contains("3 times"));
    }
}
