//! What a text says, whatever its case and form, and where it says it.

use std::ops::Range;

use memchr::memmem::Finder;
use unicode_normalization::{IsNormalized, UnicodeNormalization, char::canonical_combining_class, is_nfkc_quick};

/// Characters before the first match that a snippet begins with.
const BEFORE: usize = 60;
/// Characters of a snippet.
const SNIPPET: usize = 200;

/// Words that must all be there.
pub(super) struct Words(Vec<Finder<'static>>);

/// A piece of a text around what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The piece.
    pub text: String,
    /// Where in it the words are, in UTF-16 code units as browsers count: from and to.
    pub marks: Vec<Range<usize>>,
}

impl Words {
    /// The words of a query, which must not be empty.
    pub(super) fn of(query: &str) -> Option<Self> {
        let folded = Folded::of(query);
        let words: Vec<_> = folded.text.split_whitespace().map(|word| Finder::new(word).into_owned()).collect();
        (!words.is_empty()).then_some(Self(words))
    }

    /// Where a text says all of them.
    pub(super) fn find(&self, text: &str) -> Option<Snippet> {
        let folded = Folded::of(text);
        let mut found = Vec::with_capacity(self.0.len());
        for word in &self.0 {
            let start = word.find(folded.text.as_bytes())?;
            found.push(folded.original(start, text.len())..folded.end(start + word.needle().len(), text.len()));
        }
        found.sort_by_key(|range| range.start);
        Some(snippet(text, &found))
    }
}

/// A text in lower case and in Unicode's form NFKC, and where each piece of it comes from.
struct Folded {
    text: String,
    /// Beginnings here and there; empty when both are the same everywhere.
    pieces: Vec<(usize, usize)>,
}

impl Folded {
    fn of(text: &str) -> Self {
        if text.is_ascii() {
            return Self { text: text.to_ascii_lowercase(), pieces: Vec::new() };
        }
        let mut folded = Self { text: String::with_capacity(text.len()), pieces: Vec::with_capacity(text.len()) };
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            // What belongs together when it is brought into form is one piece.
            let length = rest.char_indices().skip(1).find(|(_, c)| begins(*c)).map_or(rest.len(), |(at, _)| at);
            folded.pieces.push((folded.text.len(), text.len() - rest.len()));
            if length == 1 {
                folded.text.push(first.to_ascii_lowercase());
            } else if length == first.len_utf8() && is_nfkc_quick(std::iter::once(first)) == IsNormalized::Yes {
                // Most letters: bringing one into form takes ten times as long as finding that it is.
                folded.text.extend(lower(first));
            } else {
                folded.text.extend(rest[..length].nfkc().flat_map(lower));
            }
            rest = &rest[length..];
        }
        folded
    }

    /// Where the piece begins that holds this byte.
    fn original(&self, at: usize, length: usize) -> usize {
        if self.pieces.is_empty() {
            return at.min(length);
        }
        let index = self.pieces.partition_point(|(here, _)| *here <= at);
        index.checked_sub(1).and_then(|index| self.pieces.get(index)).map_or(0, |(_, there)| *there)
    }

    /// Where the piece ends that holds the byte before this one.
    fn end(&self, at: usize, length: usize) -> usize {
        if self.pieces.is_empty() {
            return at.min(length);
        }
        let index = self.pieces.partition_point(|(here, _)| *here < at);
        self.pieces.get(index).map_or(length, |(_, there)| *there)
    }
}

/// In lower case, where the two small sigmas are one letter.
fn lower(c: char) -> impl Iterator<Item = char> {
    c.to_lowercase().map(|c| if c == 'ς' { 'σ' } else { c })
}

/// Whether a character never joins the one before it.
fn begins(c: char) -> bool {
    c.is_ascii() || (canonical_combining_class(c) == 0 && is_nfkc_quick(std::iter::once(c)) != IsNormalized::Maybe)
}

/// The surroundings of the first match. Matches are in the order of their beginnings.
fn snippet(text: &str, found: &[Range<usize>]) -> Snippet {
    let first = found.first().map_or(0, |range| range.start);
    let begin = text[..first].char_indices().rev().take(BEFORE).last().map_or(first, |(at, _)| at);
    let end = text[begin..].char_indices().nth(SNIPPET).map_or(text.len(), |(at, _)| begin + at);
    let units = |to: usize| text[begin..to].encode_utf16().count();
    let inside = found.iter().filter(|range| range.start < end);
    let marks = inside.map(|range| units(range.start)..units(range.end.min(end))).collect();
    Snippet { text: text[begin..end].to_owned(), marks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(query: &str, text: &str) -> Option<Vec<String>> {
        let snippet = Words::of(query).unwrap().find(text)?;
        let units: Vec<u16> = snippet.text.encode_utf16().collect();
        Some(snippet.marks.into_iter().map(|mark| String::from_utf16(&units[mark]).unwrap()).collect())
    }

    #[test]
    fn all_words_are_found_whatever_their_case_and_form() {
        let check = |query: &str, text: &str, expected: &[&str]| {
            assert_eq!(found(query, text).unwrap(), expected, "{query:?} in {text:?}");
        };
        check("WORLD hello", "Hello, wide world", &["Hello", "world"]);
        // Composed and decomposed, wide, ligatures, two sigmas, Hangul by letters.
        check("cafe\u{301}", "un CAFÉ noir", &["CAFÉ"]);
        check("café", "un cafe\u{301} noir", &["cafe\u{301}"]);
        check("abc", "x ＡＢＣ y", &["ＡＢＣ"]);
        check("office", "the oﬃce", &["oﬃce"]);
        check("ΟΔΟΣ", "η οδος", &["οδος"]);
        check("\u{1112}\u{1161}\u{11ab}", "한글", &["한"]);
        // Offsets are a browser's.
        check("end", "\u{1f600}\u{1f600} ü end", &["end"]);
        assert_eq!(found("hello mars", "hello world"), None);
        assert_eq!(found("cafe", "café"), None);
        assert!(Words::of(" \u{3000}\t").is_none());
    }

    #[test]
    fn a_snippet_is_a_piece_around_the_first_match() {
        let text = format!("{}needle{}", "ä ".repeat(500), " ö".repeat(500));
        let snippet = Words::of("needle").unwrap().find(&text).unwrap();
        assert_eq!(snippet.text.chars().count(), SNIPPET);
        assert_eq!((snippet.marks.len(), snippet.marks[0].clone()), (1, BEFORE..BEFORE + 6));
        // A second word far away is found, and not in the piece.
        let far = format!("one {} two", "x".repeat(5000));
        let marks = Words::of("two one").unwrap().find(&far).unwrap().marks;
        assert_eq!((marks.len(), marks[0].clone()), (1, 0..3));
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in "\\PC{0,80}", query in "\\PC{1,4}") {
            if let Some(words) = Words::of(&query) && let Some(snippet) = words.find(&text) {
                let units = snippet.text.encode_utf16().count();
                proptest::prop_assert!(snippet.marks.iter().all(|mark| mark.start < mark.end && mark.end <= units));
            }
        }

        #[test]
        fn what_is_in_a_text_is_found(before in "[a-zA-Zäöü ]{0,40}", word in "[a-zA-Zäöü]{1,8}", after in "[a-zA-Zäöü ]{0,40}") {
            let text = format!("{before}{word}{after}");
            proptest::prop_assert!(Words::of(&word.to_uppercase()).unwrap().find(&text).is_some());
        }
    }
}
