//! Where one message of a streamed answer ends and the next begins, however its bytes were cut.

use bytes::{Buf, BytesMut};

/// The longest message that is read, in bytes. Ollama's own client reads lines of so many.
const LONGEST: usize = 8 << 20;

/// How messages are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lab) enum Framing {
    /// Server-sent events: a message is the `data` of one.
    Events,
    /// A message is a line.
    Lines,
}

/// Takes bytes as they come and gives whole messages.
pub(in crate::lab) struct Frames {
    framing: Framing,
    /// What has come of the line that is not whole yet, and how much of it was looked at.
    line: BytesMut,
    looked: usize,
    /// The lines of an event's data so far.
    data: Vec<u8>,
    has_data: bool,
}

/// A message was longer than anybody writes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lab) struct TooLong;

impl Frames {
    pub(in crate::lab) fn new(framing: Framing) -> Self {
        Self { framing, line: BytesMut::new(), looked: 0, data: Vec::new(), has_data: false }
    }

    /// Gives `message` every message that these bytes complete.
    pub(in crate::lab) fn read(&mut self, bytes: &[u8], mut message: impl FnMut(&[u8])) -> Result<(), TooLong> {
        self.line.extend_from_slice(bytes);
        while let Some(end) = memchr::memchr(b'\n', &self.line[self.looked..]) {
            let mut line = self.line.split_to(self.looked + end);
            self.line.advance(1);
            self.looked = 0;
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            self.whole_line(&line, &mut message)?;
        }
        self.looked = self.line.len();
        if self.line.len() > LONGEST { Err(TooLong) } else { Ok(()) }
    }

    /// Nothing more comes: what is there without a line's end is a message, too.
    pub(in crate::lab) fn finish(&mut self, mut message: impl FnMut(&[u8])) -> Result<(), TooLong> {
        let line = self.line.split();
        self.looked = 0;
        self.whole_line(&line, &mut message)?;
        if self.framing == Framing::Events {
            self.whole_line(&[], &mut message)?;
        }
        Ok(())
    }

    fn whole_line(&mut self, line: &[u8], message: &mut impl FnMut(&[u8])) -> Result<(), TooLong> {
        match self.framing {
            Framing::Lines if line.is_empty() => {}
            Framing::Lines => message(line),
            Framing::Events if line.is_empty() => {
                if std::mem::take(&mut self.has_data) {
                    message(&self.data);
                }
                self.data.clear();
            }
            Framing::Events => {
                let Some(value) = line.strip_prefix(b"data:") else { return Ok(()) };
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                if self.data.len() > LONGEST {
                    return Err(TooLong);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(framing: Framing, pieces: &[&[u8]]) -> Vec<String> {
        let mut frames = Frames::new(framing);
        let mut found = Vec::new();
        let mut take = |message: &[u8]| found.push(String::from_utf8(message.to_vec()).unwrap());
        for piece in pieces {
            frames.read(piece, &mut take).unwrap();
        }
        frames.finish(&mut take).unwrap();
        found
    }

    #[test]
    fn messages_are_whole_wherever_the_bytes_are_cut() {
        let events = ": hello\r\n\r\nevent: a\r\ndata: {\"é\":1}\r\n\r\ndata:one\ndata: two\n\nid: 7\n\ndata: last".as_bytes();
        let lines = "{\"a\":\"é\"}\n\n\r\n{\"b\":2}\r\n{\"c\":3}".as_bytes();
        for (framing, bytes, expected) in [
            (Framing::Events, events, &["{\"é\":1}", "one\ntwo", "last"][..]),
            (Framing::Lines, lines, &["{\"a\":\"é\"}", "{\"b\":2}", "{\"c\":3}"][..]),
        ] {
            assert_eq!(read(framing, &[bytes]), expected);
            for at in 0..=bytes.len() {
                assert_eq!(read(framing, &[&bytes[..at], &bytes[at..]]), expected, "cut at {at}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(read(framing, &single), expected);
        }
    }

    #[test]
    fn a_message_without_an_end_is_given_up() {
        let mut frames = Frames::new(Framing::Lines);
        let piece = vec![b'x'; LONGEST / 2 + 1];
        assert_eq!(frames.read(&piece, |_| {}), Ok(()));
        assert_eq!(frames.read(&piece, |_| {}), Err(TooLong));
    }
}
