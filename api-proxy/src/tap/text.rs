//! How much text there is: by kind of script, and word for word where it is to be counted.

/// How many characters of text there were, by the first byte of their UTF-8, which tells scripts apart well enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Characters {
    /// English, code, numbers.
    pub(crate) ascii: u64,
    /// Latin with accents, Greek, Cyrillic, Hebrew, Arabic.
    pub(crate) two: u64,
    /// The scripts of India, Thai, and others below U+2000, many of whose words are few tokens.
    pub(crate) southern: u64,
    /// Chinese, Japanese, Korean, typographic signs.
    pub(crate) three: u64,
    /// Emoji, rare signs.
    pub(crate) four: u64,
}

impl Characters {
    /// All of them.
    pub(crate) fn all(self) -> u64 {
        [self.ascii, self.two, self.southern, self.three, self.four].into_iter().fold(0, u64::saturating_add)
    }
}

/// Counts the characters of text with JSON's escapes, in pieces of any size.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) characters: Characters,
    escape: Escape,
}

#[derive(Default, Clone, Copy)]
enum Escape {
    #[default]
    None,
    /// After a backslash.
    Begun,
    /// After `\u` and so many digits.
    Digits(u8, u16),
}

impl Tally {
    pub(super) fn push(&mut self, piece: &[u8]) {
        for &byte in piece {
            self.escape = match self.escape {
                Escape::None if byte == b'\\' => Escape::Begun,
                Escape::None => {
                    match byte {
                        0..=0x7f => self.characters.ascii += 1,
                        // The later bytes of a character: its first one was counted.
                        0x80..=0xbf => {}
                        0xc0..=0xdf => self.characters.two += 1,
                        0xe0..=0xe1 => self.characters.southern += 1,
                        0xe2..=0xef => self.characters.three += 1,
                        0xf0..=0xff => self.characters.four += 1,
                    }
                    Escape::None
                }
                Escape::Begun if byte == b'u' => Escape::Digits(0, 0),
                Escape::Begun => {
                    self.characters.ascii += 1;
                    Escape::None
                }
                Escape::Digits(count, code) => {
                    let digit = char::from(byte).to_digit(16).unwrap_or_default() as u16;
                    let code = (code << 4) | digit;
                    if count == 3 {
                        match code {
                            0..=0x7f => self.characters.ascii += 1,
                            0x80..=0x7ff => self.characters.two += 1,
                            0x800..=0x1fff => self.characters.southern += 1,
                            0xd800..=0xdbff => self.characters.four += 1,
                            // The second half of the pair that was just counted.
                            0xdc00..=0xdfff => {}
                            _ => self.characters.three += 1,
                        }
                        Escape::None
                    } else {
                        Escape::Digits(count + 1, code)
                    }
                }
            };
        }
    }

    pub(super) fn end(&mut self) {
        self.escape = Escape::None;
    }
}

/// What text with JSON's escapes says. What is no such text stays as it is: this is for counting.
pub(crate) fn unescaped(raw: &[u8]) -> String {
    let mut plain = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        plain.extend_from_slice(&rest[..at]);
        let (character, used) = escape(&rest[at..]);
        plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[at + used..];
    }
    plain.extend_from_slice(rest);
    String::from_utf8(plain).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The character that an escape stands for, and how many bytes the escape has.
fn escape(text: &[u8]) -> (char, usize) {
    let simple = match text.get(1) {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'u') => {
            let Some(first) = code(text) else { return ('u', 2) };
            let pair = text.get(6..).filter(|rest| rest.starts_with(b"\\u")).and_then(code);
            return match (first, pair) {
                (0xd800..=0xdbff, Some(second @ 0xdc00..=0xdfff)) => {
                    let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                    (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
                }
                _ => (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
            };
        }
        Some(byte) if byte.is_ascii() => char::from(*byte),
        _ => return ('\\', 1),
    };
    (simple, 2)
}

fn code(escape: &[u8]) -> Option<u32> {
    escape.get(2..6)?.iter().try_fold(0, |code, digit| Some((code << 4) | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn characters_are_counted_written_out_or_escaped() {
        let expected = Characters { ascii: 6, two: 1, southern: 1, three: 2, four: 1 };
        for raw in [r#"a\n\"bcéह中文😀d"#, r#"a\n\"bc\u00e9\u0939\u4e2d\u6587\ud83d\ude00\u0064"#] {
            let mut tally = Tally::default();
            raw.as_bytes().chunks(1).for_each(|piece| tally.push(piece));
            assert_eq!(tally.characters, expected, "{raw}");
            assert_eq!(unescaped(raw.as_bytes()), "a\n\"bcéह中文😀d");
        }
        assert_eq!(unescaped(br"\ud83dx\u12\"), "\u{fffd}xu12\\");
    }

    proptest! {
        #[test]
        fn what_json_escapes_comes_back(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(unescaped(&json.as_bytes()[1..json.len() - 1]), text);
        }

        #[test]
        fn anything_can_be_unescaped(raw in any::<Vec<u8>>()) {
            unescaped(&raw);
        }
    }
}
