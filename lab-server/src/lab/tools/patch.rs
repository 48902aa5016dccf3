//! Changes to a text by exact old and new texts: all of them, or none.

use std::fmt;

use serde::Deserialize;

/// Edits of one call at most: each looks through the whole file. Whoever changes more places than that writes the file anew.
pub(crate) const MOST_EDITS: usize = 100;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// What stands there, exactly.
    pub old: String,
    /// What shall stand there.
    pub new: String,
    /// Everywhere, rather than at the one place.
    #[serde(default)]
    pub all: bool,
}

/// Why nothing was changed. Edits are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// There are no edits.
    Nothing,
    /// There are more than [`MOST_EDITS`].
    TooMany,
    /// An edit's old text is empty.
    Empty(usize),
    /// An edit's old text is not there.
    Absent(usize),
    /// It stands at several places.
    Ambiguous(usize, usize),
    /// The result would be larger than a file may be.
    TooLarge,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("there are no edits; give at least one"),
            Self::TooMany => {
                write!(f, "there are more than {MOST_EDITS} edits; make them in several calls, or write the whole file")
            }
            Self::Empty(at) => write!(f, "edit {at}: the old text is empty; use files_write for a whole file"),
            Self::Absent(at) => {
                write!(f, "edit {at}: the old text is not in the file; read it again and give the text exactly, blanks included")
            }
            Self::Ambiguous(at, count) => {
                write!(f, "edit {at}: the old text stands at {count} places; give more of what is around it, or `all`")
            }
            Self::TooLarge => f.write_str("the file would become too large"),
        }
    }
}

/// Makes all edits one after the other. Nothing is changed when one does not fit.
pub(crate) fn apply(text: &str, edits: &[Edit], most: usize) -> Result<String, Unfit> {
    if edits.is_empty() {
        return Err(Unfit::Nothing);
    }
    if edits.len() > MOST_EDITS {
        return Err(Unfit::TooMany);
    }
    let mut text = text.to_owned();
    for (at, edit) in edits.iter().enumerate() {
        let at = at + 1;
        if edit.old.is_empty() {
            return Err(Unfit::Empty(at));
        }
        let count = text.matches(&edit.old).count();
        match (count, edit.all) {
            (0, _) => return Err(Unfit::Absent(at)),
            (2.., false) => return Err(Unfit::Ambiguous(at, count)),
            (1, _) | (_, true) => {}
        }
        // Known before it is made: a short text that is replaced everywhere by a long one can be arbitrarily large.
        let length = text.len() - count * edit.old.len() + count.saturating_mul(edit.new.len());
        if length > most {
            return Err(Unfit::TooLarge);
        }
        text = text.replace(&edit.old, &edit.new);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_made_together_or_not_at_all() {
        let edit = |old: &str, new: &str, all| Edit { old: old.into(), new: new.into(), all };
        for (edits, result) in [
            (vec![edit("one", "1", false)], Ok("1 two two".to_owned())),
            (vec![edit("two", "2", true)], Ok("one 2 2".to_owned())),
            (vec![edit("one", "two", false), edit("two", "2", true)], Ok("2 2 2".to_owned())),
            (vec![edit("two", "2", false)], Err(Unfit::Ambiguous(1, 2))),
            (vec![edit("one", "1", false), edit("three", "3", false)], Err(Unfit::Absent(2))),
            (vec![edit("", "x", true)], Err(Unfit::Empty(1))),
            (vec![], Err(Unfit::Nothing)),
            (vec![edit("o", "o", true); 100], Ok("one two two".to_owned())),
            (vec![edit("o", "o", true); 101], Err(Unfit::TooMany)),
            (vec![edit("two", &"2".repeat(50), true)], Err(Unfit::TooLarge)),
        ] {
            assert_eq!(apply("one two two", &edits, 100), result, "{edits:?}");
        }
    }
}
