//! Finding files by path and lines by text.

use globset::{GlobBuilder, GlobMatcher};

/// Lines that are given at most.
const MOST_LINES: usize = 200;
/// Characters of a line that are shown.
const LINE: usize = 300;

/// Bytes of a pattern and of a text that is looked for: what a rule's pattern may have. A glob becomes an automaton whose size is its
/// length some hundred times over, and a longer text is found by its first line.
const MOST_PATTERN: usize = 512;

/// What is looked for.
pub(crate) struct Search {
    paths: Option<GlobMatcher>,
    /// In lower case.
    text: String,
    found: Vec<String>,
}

/// Why it cannot be looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SearchError {
    /// The pattern is no glob.
    #[error("the pattern is no glob; use * within a folder, ** across folders, ? for a character")]
    Pattern,
    /// There is nothing to look for.
    #[error("the text is empty; use files_list to find files by name")]
    Empty,
    /// One of the two is longer than anybody needs.
    #[error("a pattern, and a text that is looked for, has at most 512 bytes; look for a shorter part of it")]
    TooLong,
}

impl Search {
    /// Whatever matches the pattern.
    pub(crate) fn paths(pattern: Option<&str>) -> Result<Self, SearchError> {
        if pattern.is_some_and(|pattern| pattern.len() > MOST_PATTERN) {
            return Err(SearchError::TooLong);
        }
        let glob = |pattern: &str| GlobBuilder::new(pattern).literal_separator(true).build().map_err(|_| SearchError::Pattern);
        let paths = pattern.map(glob).transpose()?.map(|glob| glob.compile_matcher());
        Ok(Self { paths, text: String::new(), found: Vec::new() })
    }

    /// Lines with this text in files that match the pattern.
    pub(crate) fn lines(pattern: Option<&str>, text: &str) -> Result<Self, SearchError> {
        if text.is_empty() {
            return Err(SearchError::Empty);
        }
        if text.len() > MOST_PATTERN {
            return Err(SearchError::TooLong);
        }
        Ok(Self { text: text.to_lowercase(), ..Self::paths(pattern)? })
    }

    /// Whether a file is one of them.
    pub(crate) fn wants(&self, path: &str) -> bool {
        self.paths.as_ref().is_none_or(|glob| glob.is_match(path))
    }

    /// Looks through a file's text; whether there is still room for more.
    pub(crate) fn look(&mut self, path: &str, text: &str) -> bool {
        for (at, line) in text.lines().enumerate() {
            if self.found.len() == MOST_LINES {
                return false;
            }
            if line.to_lowercase().contains(&self.text) {
                let shown: String = line.trim().chars().take(LINE).collect();
                self.found.push(format!("{path}:{}: {shown}", at + 1));
            }
        }
        true
    }

    /// What was found, for the model.
    pub(crate) fn into_text(self) -> String {
        match self.found.len() {
            0 => "nothing was found".to_owned(),
            MOST_LINES => format!("{}\n[the first {MOST_LINES} lines; search more closely for others]", self.found.join("\n")),
            _ => self.found.join("\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_in_any_case_and_in_the_files_that_were_meant() {
        let mut search = Search::lines(Some("docs/**/*.md"), "Straße").unwrap();
        assert!(search.wants("docs/a.md") && search.wants("docs/b/c.md"));
        assert!(!search.wants("a.md") && !search.wants("docs/a.txt"));
        assert!(search.look("docs/a.md", "x\n  die STRAßE \nStrasse"));
        assert_eq!(search.into_text(), "docs/a.md:2: die STRAßE");
        assert_eq!(Search::lines(Some("a["), "x").err(), Some(SearchError::Pattern));
        assert_eq!(Search::lines(None, "").err(), Some(SearchError::Empty));
        let long = |bytes| "?".repeat(bytes);
        assert!(Search::lines(Some(&long(512)), &long(512)).is_ok());
        assert_eq!(Search::paths(Some(&long(513))).err(), Some(SearchError::TooLong));
        assert_eq!(Search::lines(None, &long(513)).err(), Some(SearchError::TooLong));
        assert!(!Search::paths(Some("*.md")).unwrap().wants("docs/a.md"));
        let mut many = Search::lines(None, "x").unwrap();
        assert!(!many.look("a", &"x\n".repeat(300)));
        assert!(many.into_text().ends_with("[the first 200 lines; search more closely for others]"));
    }
}
