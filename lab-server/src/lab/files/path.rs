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
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
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
