//! Where a list goes on that is ordered by time.

use std::{fmt, str::FromStr};

/// The last row of a page, by its time and its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bookmark<Id> {
    /// Milliseconds since 1970, or whatever else the list is ordered by.
    pub time: i64,
    /// Which row, among those of that time.
    pub id: Id,
}

/// A text that is no [`Bookmark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: use the one that came with the page before")]
pub struct InvalidBookmark;

impl<Id: FromStr> FromStr for Bookmark<Id> {
    type Err = InvalidBookmark;

    fn from_str(text: &str) -> Result<Self, InvalidBookmark> {
        let (time, id) = text.split_once('-').ok_or(InvalidBookmark)?;
        Ok(Self { time: time.parse().map_err(|_| InvalidBookmark)?, id: id.parse().map_err(|_| InvalidBookmark)? })
    }
}

impl<Id: fmt::Display> fmt::Display for Bookmark<Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.id)
    }
}
