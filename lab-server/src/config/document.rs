//! A TOML file that is read to its end whatever is wrong with it, so that its owner learns of all mistakes at once, each with its line.
//!
//! serde would stop at the first. A [`Section`] is asked for the settings that it may have; whatever nobody asked for is a mistake too.
//! No mistake repeats a value: somebody may have written a secret where none belongs.

use std::{cell::RefCell, collections::BTreeMap, fmt::Display, ops::RangeInclusive, str::FromStr};

use serde::Serialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Something in the file that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mistake {
    /// Where, counted from 1.
    pub line: usize,
    /// What is wrong, and what is expected.
    pub problem: String,
}

/// A file's text and what was found wrong with it.
pub(super) struct Document<'t> {
    text: &'t str,
    mistakes: RefCell<Vec<Mistake>>,
}

/// A value with the line that it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// An owner's own word, and what it stands for.
pub(super) type Pair = (At<String>, String);

/// A table of the file, of which what was read is taken out.
pub(super) struct Section<'d, 't> {
    document: &'d Document<'t>,
    /// What it is called in mistakes.
    name: String,
    /// Where it begins.
    pub(super) line: usize,
    entries: BTreeMap<&'d str, (usize, &'d DeValue<'t>)>,
    /// What it may hold, in the order in which it was asked for.
    known: Vec<&'static str>,
}

impl<'t> Document<'t> {
    /// Takes the text apart. What cannot be read as TOML is a mistake.
    pub(super) fn parse(text: &'t str) -> (Self, Spanned<DeTable<'t>>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Self { text, mistakes: RefCell::default() };
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            document.mistake(document.line(at), error.message());
        }
        (document, root)
    }

    /// The whole file as a section.
    pub(super) fn root<'d>(&'d self, root: &'d Spanned<DeTable<'t>>) -> Section<'d, 't> {
        self.section("the file".to_owned(), 1, root.get_ref())
    }

    /// Writes down something that is wrong.
    pub(super) fn mistake(&self, line: usize, problem: impl Display) {
        self.mistakes.borrow_mut().push(Mistake { line, problem: problem.to_string() });
    }

    /// Whether something is wrong.
    pub(super) fn has_mistakes(&self) -> bool {
        !self.mistakes.borrow().is_empty()
    }

    /// All that is wrong, from top to bottom.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort();
        mistakes
    }

    fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn section<'d>(&'d self, name: String, line: usize, table: &'d DeTable<'t>) -> Section<'d, 't> {
        let entries = table.iter().map(|(key, value)| (key.get_ref().as_ref(), (self.line(key.span().start), value.get_ref())));
        Section { document: self, name, line, entries: entries.collect(), known: Vec::new() }
    }
}

impl<'d, 't> Section<'d, 't> {
    /// The setting's value as it stands there.
    fn take(&mut self, key: &'static str) -> Option<At<&'d DeValue<'t>>> {
        self.known.push(key);
        self.entries.remove(key).map(|(line, value)| At { line, value })
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<At<String>> {
        let At { line, value } = self.take(key)?;
        match value {
            DeValue::String(text) => Some(At { line, value: text.clone().into_owned() }),
            _ => self.wrong(line, format_args!("{key} must be a text in quotes")),
        }
    }

    /// A text of a form.
    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Option<At<T>> {
        let At { line, value } = self.text(key)?;
        match value.parse() {
            Ok(value) => Some(At { line, value }),
            Err(error) => self.wrong(line, format_args!("{key} {error}")),
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<At<T>> {
        let At { line, value } = self.text(key)?;
        match words.iter().find(|(word, _)| *word == value) {
            Some((_, meaning)) => Some(At { line, value: *meaning }),
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                self.wrong(line, format_args!("{key} must be one of {}", words.join(", ")))
            }
        }
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<At<u64>> {
        let At { line, value } = self.take(key)?;
        let number = value.as_integer().and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok());
        match number.filter(|number| range.contains(number)) {
            Some(value) => Some(At { line, value }),
            None => self.wrong(line, format_args!("{key} must be a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<At<bool>> {
        let At { line, value } = self.take(key)?;
        match value.as_bool() {
            Some(value) => Some(At { line, value }),
            None => self.wrong(line, format_args!("{key} must be true or false")),
        }
    }

    /// A decimal number as it is written, in quotes or without: nothing of it is lost on the way through a float.
    pub(super) fn decimal(&mut self, key: &'static str) -> Option<At<String>> {
        let At { line, value } = self.take(key)?;
        let text = match value {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => return self.wrong(line, format_args!("{key} must be a number such as \"0.25\"")),
        };
        Some(At { line, value: text.to_owned() })
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<At<Vec<At<String>>>> {
        let At { line, value } = self.take(key)?;
        let Some(items) = value.as_array() else {
            return self.wrong(line, format_args!("{key} must be a list of texts, such as [\"a\", \"b\"]"));
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items.iter() {
            let line = self.document.line(item.span().start);
            match item.get_ref().as_str() {
                Some(text) => texts.push(At { line, value: text.to_owned() }),
                None => self.document.mistake(line, format_args!("{key} must hold texts in quotes only")),
            }
        }
        Some(At { line, value: texts })
    }

    /// A table whose keys are the owner's own words and whose values are texts.
    pub(super) fn pairs(&mut self, key: &'static str) -> Option<At<Vec<Pair>>> {
        let At { line, value } = self.take(key)?;
        let Some(table) = value.as_table() else {
            return self.wrong(line, format_args!("{key} must be a table, such as {{ \"a\" = \"b\" }}"));
        };
        let mut pairs = Vec::with_capacity(table.len());
        for (name, value) in table {
            let line = self.document.line(name.span().start);
            match value.get_ref().as_str() {
                Some(value) => pairs.push((At { line, value: name.get_ref().clone().into_owned() }, value.to_owned())),
                None => self.document.mistake(line, format_args!("{key} must have texts in quotes as values")),
            }
        }
        Some(At { line, value: pairs })
    }

    /// A table.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Section<'d, 't>> {
        let At { line, value } = self.take(key)?;
        match value.as_table() {
            Some(table) => Some(self.document.section(key.to_owned(), line, table)),
            None => self.wrong(line, format_args!("{key} must be a table")),
        }
    }

    /// A table, or the line of what stands in its place: that mistake is the caller's to word.
    pub(super) fn table_or_other(&mut self, key: &'static str) -> Option<Result<Section<'d, 't>, usize>> {
        match self.entries.get(key) {
            Some((line, value)) if !value.is_table() => {
                let line = *line;
                self.take(key);
                Some(Err(line))
            }
            _ => self.table(key).map(Ok),
        }
    }

    /// A list of tables.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Section<'d, 't>> {
        let Some(At { line, value }) = self.take(key) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            self.document.mistake(line, format_args!("{key} must be a list of tables: write [[{key}]] with two brackets"));
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(items.len());
        for item in items.iter() {
            let line = self.document.line(item.span().start);
            match item.get_ref().as_table() {
                Some(table) => tables.push(self.document.section(key.to_owned(), line, table)),
                None => self.document.mistake(line, format_args!("{key} must hold tables only")),
            }
        }
        tables
    }

    /// Writes down something that is wrong, and is no value.
    pub(super) fn wrong<T>(&self, line: usize, problem: impl Display) -> Option<T> {
        self.document.mistake(line, problem);
        None
    }

    /// A setting that must be there.
    pub(super) fn need(&self, key: &'static str) {
        if !self.has(key) {
            self.document.mistake(self.line, format_args!("{} needs {key}", self.name));
        }
    }

    /// Whether the setting stands here; to be asked before it is taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Nobody asks for more: what is left is unknown.
    pub(super) fn finish(self) {
        for (key, (line, _)) in &self.entries {
            // What does not look like the name of a setting may be anything, a secret too.
            let is_name = key.len() <= 40 && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            let shown = if is_name { format!("unknown field `{key}`") } else { "a field of an unknown name".to_owned() };
            self.document.mistake(*line, format_args!("{shown} in {}, expected one of {}", self.name, self.known.join(", ")));
        }
    }
}
