//! Server-sent events, in pieces of any size: what stands behind `data:`, and where an event ends.
//!
//! Nothing is gathered: every piece of data is handed on where it lies, so a line may be as long as it likes. Names of events and
//! comments are skipped; each protocol says the kind of an event in its data as well.

use memchr::memchr2;

/// What is told of the events.
pub(super) trait Listener {
    /// A piece of an event's data. Lines of data are joined by `\n`.
    fn data(&mut self, piece: &[u8]);
    /// The event is whole. It had data.
    fn event(&mut self);
}

/// The reader of lines.
pub(super) struct Events {
    line: Line,
    /// The last byte was `\r`: a `\n` that follows belongs to it.
    after_cr: bool,
    /// Whether this event had a line of data yet.
    has_data: bool,
}

const MARK: &[u8] = b"\xef\xbb\xbf";
const FIELD: &[u8] = b"data:";

enum Line {
    /// The stream begins; so many bytes of a byte order mark were there.
    Mark(usize),
    /// So many bytes of `data:` were there.
    Field(usize),
    /// One blank after the colon does not belong to the data.
    Blank,
    /// Data.
    Data,
    /// Something else.
    Other,
}

impl Events {
    pub(super) fn new() -> Self {
        Self { line: Line::Mark(0), after_cr: false, has_data: false }
    }

    pub(super) fn push(&mut self, bytes: &[u8], listener: &mut impl Listener) {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                rest = &rest[1..];
                continue;
            }
            match self.line {
                Line::Data | Line::Other => {
                    let end = memchr2(b'\n', b'\r', rest);
                    let (piece, more) = rest.split_at(end.unwrap_or(rest.len()));
                    if matches!(self.line, Line::Data) {
                        listener.data(piece);
                    }
                    rest = more;
                    if let Some((&byte, more)) = rest.split_first() {
                        self.line = Line::Field(0);
                        self.after_cr = byte == b'\r';
                        rest = more;
                    }
                }
                Line::Mark(known) => {
                    if byte == MARK[known] {
                        rest = &rest[1..];
                        self.line = if known + 1 == MARK.len() { Line::Field(0) } else { Line::Mark(known + 1) };
                    } else {
                        self.line = if known == 0 { Line::Field(0) } else { Line::Other };
                    }
                }
                Line::Field(0) if rest.starts_with(b"data: ") => {
                    self.begin_data(listener);
                    self.line = Line::Data;
                    rest = &rest[6..];
                }
                Line::Field(known) => {
                    if byte == b'\n' || byte == b'\r' {
                        match known {
                            0 if std::mem::take(&mut self.has_data) => listener.event(),
                            // `data` without a colon is an empty line of data.
                            4 => self.begin_data(listener),
                            _ => {}
                        }
                        self.line = Line::Field(0);
                        self.after_cr = byte == b'\r';
                        rest = &rest[1..];
                    } else if byte == FIELD[known] {
                        rest = &rest[1..];
                        if known + 1 == FIELD.len() {
                            self.begin_data(listener);
                            self.line = Line::Blank;
                        } else {
                            self.line = Line::Field(known + 1);
                        }
                    } else {
                        self.line = Line::Other;
                    }
                }
                Line::Blank => {
                    if byte == b' ' {
                        rest = &rest[1..];
                    }
                    self.line = Line::Data;
                }
            }
        }
    }

    /// The stream is over. Its last event may lack its blank line: what it says of the usage is true nevertheless.
    pub(super) fn end(&mut self, listener: &mut impl Listener) {
        if std::mem::take(&mut self.has_data) {
            listener.event();
        }
        *self = Self::new();
    }

    fn begin_data(&mut self, listener: &mut impl Listener) {
        if std::mem::replace(&mut self.has_data, true) {
            listener.data(b"\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Heard {
        data: Vec<u8>,
        events: Vec<String>,
    }

    impl Listener for Heard {
        fn data(&mut self, piece: &[u8]) {
            self.data.extend_from_slice(piece);
        }
        fn event(&mut self) {
            self.events.push(String::from_utf8_lossy(&std::mem::take(&mut self.data)).into_owned());
        }
    }

    fn heard(pieces: &[&[u8]]) -> Vec<String> {
        let (mut events, mut heard) = (Events::new(), Heard::default());
        pieces.iter().for_each(|piece| events.push(piece, &mut heard));
        events.end(&mut heard);
        heard.events
    }

    #[test]
    fn every_kind_of_line_end_mark_and_field_is_known() {
        for (stream, expected) in [
            ("data: a\n\ndata: b\n\n", &["a", "b"][..]),
            ("data: a\r\n\r\ndata:b\r\n\r\n", &["a", "b"]),
            ("data: a\r\rdata: b\r\r", &["a", "b"]),
            ("data: a\r\ndata: b\r\n\r\ndata: c\r\rdata: d\r\n\n", &["a\nb", "c", "d"]),
            ("\u{feff}data: a\n\n\n\n: comment\n\ndata: b", &["a", "b"]),
            ("event: x\ndata: a\nid: 1\ndata: b\nretry\ndata\ndata:  c\n\n", &["a\nb\n\n c"]),
            ("datax: a\ndat: a\ndatadata: a\n\u{feff}data: a\nData: a\n\n", &[]),
            ("data: é\u{85}中\n\n", &["é\u{85}中"]),
            ("data:\n\n", &[""]),
        ] {
            let bytes = stream.as_bytes();
            assert_eq!(heard(&[bytes]), expected, "{stream:?}");
            for at in 0..=bytes.len() {
                assert_eq!(heard(&[&bytes[..at], &bytes[at..]]), expected, "{stream:?} at {at}");
            }
            let each: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(heard(&each), expected, "{stream:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(stream in "(data|: ?|\r|\n|\r\n|\u{feff}|a|d|dat){0,40}", size in 1usize..9) {
            let pieces: Vec<_> = stream.as_bytes().chunks(size).collect();
            prop_assert_eq!(heard(&pieces), heard(&[stream.as_bytes()]));
        }
    }
}
