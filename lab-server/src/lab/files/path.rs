//! Where a file is in its project: parsed once, safe from then on.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use unicode_normalization::UnicodeNormalization;

/// Bytes of a path at most.
const MAX_BYTES: usize = 512;
/// Names in a path at most.
const MAX_NAMES: usize = 32;
/// What Windows takes for devices, with whatever ending.
const DEVICES: [&str; 8] = ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$", "$mft"];

/// A relative path below a project: names with `/` between them, in Unicode's form NFC, with their case.
///
/// No name is empty, `.` or `..`, ends in a dot or a space, holds a control character, `\` or `:`, turns the direction of writing, or
/// is a device of Windows: wherever a project is written out, each file lands where its path says.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(String);

/// A text that is no [`Path`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a path of a project's file: it must be {}", Path::EXPECTED)]
pub struct InvalidPath;

impl Path {
    /// What a path must be, as the end of the sentence "it must be ...".
    pub const EXPECTED: &'static str = "relative, of 1 to 32 names with / between them and at most 512 bytes; no name may be empty, \
                                        `.` or `..`, end in a dot or a space, hold a control character, `\\` or `:`, or be a device \
                                        of Windows such as `con`";

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for Path {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        // Before it is brought into form: a text cannot shrink below a third by that.
        if text.len() > 3 * MAX_BYTES {
            return Err(InvalidPath);
        }
        let path: String = text.nfc().collect();
        let fits = path.len() <= MAX_BYTES && path.split('/').count() <= MAX_NAMES && path.split('/').all(is_name);
        if fits { Ok(Self(path)) } else { Err(InvalidPath) }
    }
}

fn is_name(name: &str) -> bool {
    let is_sound = |c: char| !c.is_control() && !matches!(c, '\\' | ':') && !is_unseen(c);
    !matches!(name, "" | "." | "..") && !name.ends_with(['.', ' ']) && name.chars().all(is_sound) && !is_device(name)
}

/// What turns the direction of writing, breaks a line or marks an order of bytes: a name with one is not what it looks like.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_lowercase();
    let numbered = |prefix| stem.strip_prefix(prefix).is_some_and(|rest| matches!(rest, "¹" | "²" | "³") || is_digit(rest));
    DEVICES.contains(&stem.as_str()) || numbered("com") || numbered("lpt")
}

fn is_digit(text: &str) -> bool {
    matches!(text.as_bytes(), [b'0'..=b'9'])
}

/// File names are their owner's: they are not shown where somebody else reads.
impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Path(..)")
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_project() {
        let long = "a".repeat(513);
        let deep = ["a"; 33].join("/");
        let mut nasty: Vec<String> = [
            "",
            "/",
            ".",
            "..",
            "/a",
            "a/",
            "a//b",
            "./a",
            "a/.",
            "a/./b",
            "../a",
            "a/..",
            "a/../b",
            "a/../../b",
            "..\\a",
            "a\\b",
            "\\\\host\\share",
            "C:",
            "C:/a",
            "c:\\a",
            "a:b",
            "a.txt:stream",
            "a\0",
            "\0",
            "a\nb",
            "a\rb",
            "a\tb",
            "a\u{7f}b",
            "a\u{85}b",
            "a\u{1b}[2Jb",
            "a.",
            "a ",
            "a. ",
            "a/b./c",
            "a /b",
            "...",
            ". .",
            " ",
            "a/ /b",
            "con",
            "CON",
            "Con.txt",
            "con .txt",
            "prn",
            "aux.c",
            "NUL",
            "nul.tar.gz",
            "com1",
            "COM9.txt",
            "com0",
            "lpt1",
            "LPT3.doc",
            "com¹",
            "lpt².x",
            "CONIN$",
            "conout$",
            "a/con/b",
            "a/nul",
            "\u{202e}gpj.exe",
            "a\u{2066}b",
            "a\u{200e}",
            "\u{feff}a",
            "a\u{2028}b",
            "a\u{2029}",
            "~\u{202d}",
            "/etc/passwd",
            "//etc/passwd",
            "file:///etc/passwd",
            "http://x/",
            "a/b/../../../c",
            "..//",
            "./..",
            "/..",
            "\\",
            "\\..",
            "..%00/\0",
            "a/\u{0}/b",
            "dir/..",
            "dir/../",
            "../",
            "..../..",
            "a/b/c/..",
            "$MFT",
            "clock$",
            "\u{1}",
            "a\u{9f}",
        ]
        .map(str::to_owned)
        .to_vec();
        nasty.extend([long, deep, format!("{}/..", "a/".repeat(20)), "é".repeat(257)]);
        nasty.push("a\u{61c}b".to_owned());
        // Each of them deeper, and with something below it.
        let deeper: Vec<_> = nasty.iter().flat_map(|path| [format!("ok/{path}"), format!("{path}/ok")]).collect();
        nasty.extend(deeper);
        nasty.sort();
        nasty.dedup();
        assert!(nasty.len() >= 200, "{}", nasty.len());
        for path in &nasty {
            assert!(path.parse::<Path>().is_err(), "{path:?}");
        }
    }

    #[test]
    fn what_people_call_files_is_a_path() {
        for path in [
            "a",
            "src/main.rs",
            ".env",
            "..a",
            "a..b",
            "Grüße aus Köln.md",
            "日本/東京.txt",
            "a b/c d",
            "console",
            "com",
            "com10",
            "nullable",
            "👩‍💻.txt",
            "x'\"<>|?*.md",
        ] {
            assert_eq!(path.parse::<Path>().unwrap().as_str(), path.nfc().collect::<String>());
        }
        assert_eq!("cafe\u{301}".parse::<Path>().unwrap(), "café".parse().unwrap());
        assert_ne!("A".parse::<Path>().unwrap(), "a".parse().unwrap());
        assert_eq!("a/b/c.txt".parse::<Path>().unwrap().name(), "c.txt");
        assert_eq!(format!("{:?}", "secret".parse::<Path>().unwrap()), "Path(..)");
    }

    proptest::proptest! {
        #[test]
        fn a_path_stays_below_its_folder_and_is_itself(text in "\\PC{0,20}(/\\PC{0,10}){0,4}|[./\\\\a:]{0,12}") {
            if let Ok(path) = text.parse::<Path>() {
                let inside = std::path::Path::new(path.as_str());
                proptest::prop_assert!(inside.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                proptest::prop_assert_eq!(path.as_str().parse::<Path>().unwrap(), path);
            }
        }
    }
}
