//! Reads JSON that comes in pieces of any size, and keeps only what was asked for.
//!
//! An answer may be tens of megabytes of picture with thirty bytes of usage behind it, so no tree is built and nothing is kept but
//! the values that a [`Node`] names. Skipping is a search for quotes and brackets. It never fails: what is no JSON is skipped like
//! everything else that nobody wants, and its memory is bounded by [`KEPT_BYTES`]. Where the pieces are cut makes no difference.
//!
//! Keys are compared as they are written: a provider that spells `usage` with escapes is not known.

use memchr::memchr2;

/// The longest value that is kept; a usage with a hundred iterations has a fifth of it. A longer one is skipped.
pub(crate) const KEPT_BYTES: usize = 64 * 1024;
/// How deep values are looked for. The deepest one that is wanted lies at 7; what is nested deeper is skipped.
const DEPTH: usize = 12;

/// What is wanted of a value. An array's elements are looked at with the array's own node.
pub(crate) struct Node<S: 'static> {
    /// Which members are looked at, if it is an object.
    pub(crate) keys: &'static [(&'static str, Node<S>)],
    /// What is done with the value itself.
    pub(crate) take: Take<S>,
}

/// What is done with a value.
#[derive(Clone, Copy)]
pub(crate) enum Take<S> {
    /// Nothing; its members may be wanted.
    Nothing,
    /// A string is told as text.
    Text,
    /// A string is told as text, and an object or array as the text that it is written as.
    Aloud,
    /// It is kept until it is whole, and then told.
    Keep(S),
}

/// Who is told.
pub(crate) trait Sink<S> {
    /// A piece of text, with JSON's escapes as they came.
    fn text(&mut self, piece: &[u8]);
    /// The text is whole.
    fn text_end(&mut self) {}
    /// A number where text could have been.
    fn number(&mut self) {}
    /// A string that was to be kept, without its quotes and with its escapes.
    fn string(&mut self, slot: S, raw: &[u8]);
    /// Any other value that was to be kept.
    fn value(&mut self, slot: S, raw: &[u8]);
    /// The outermost object or array is whole.
    fn whole(&mut self) {}
}

impl<S> Node<S> {
    const NOTHING: &'static Self = &Self { keys: &[], take: Take::Nothing };

    /// A value of which only members are wanted.
    pub(crate) const fn object(keys: &'static [(&'static str, Self)]) -> Self {
        Self { keys, take: Take::Nothing }
    }

    /// A value that is taken by itself.
    pub(crate) const fn leaf(take: Take<S>) -> Self {
        Self { keys: &[], take }
    }

    fn child(&self, key: &[u8]) -> &'static Self {
        self.keys.iter().find(|(name, _)| name.as_bytes() == key).map_or(Self::NOTHING, |(_, node)| node)
    }
}

/// The reader.
pub(crate) struct Skimmer<S: 'static> {
    root: &'static Node<S>,
    /// The open objects and arrays whose members are looked at.
    levels: [Level<S>; DEPTH],
    depth: usize,
    state: State<S>,
    /// The beginning of a key or of a kept value, from earlier pieces.
    spill: Vec<u8>,
}

struct Level<S: 'static> {
    node: &'static Node<S>,
    object: bool,
}

#[derive(Clone, Copy)]
enum State<S: 'static> {
    /// A value is to come, or an array's end.
    Value(&'static Node<S>),
    /// A key is to come, or an object's end.
    Key,
    /// Inside a key.
    InKey { escaped: bool },
    /// A colon is to come, then a value.
    Colon(&'static Node<S>),
    /// A comma is to come, or the end.
    After,
    /// Inside a string.
    Text { how: How<S>, escaped: bool },
    /// Inside an object or array whose members are not looked at.
    Nested { how: How<S>, depth: usize, quoted: bool, escaped: bool },
    /// Inside a number, `true`, `false`, `null`, or what is no JSON.
    Bare { how: How<S> },
}

#[derive(Clone, Copy)]
enum How<S> {
    Skip,
    Aloud,
    Keep(S),
}

impl<S: Copy> Skimmer<S> {
    pub(crate) fn new(root: &'static Node<S>) -> Self {
        let levels = std::array::from_fn(|_| Level { node: root, object: false });
        Self { root, levels, depth: 0, state: State::Value(root), spill: Vec::new() }
    }

    /// Forgets where it was: another document begins.
    pub(crate) fn reset(&mut self) {
        self.depth = 0;
        self.state = State::Value(self.root);
        self.spill.clear();
    }

    /// Reads the next piece.
    pub(crate) fn push(&mut self, bytes: &[u8], sink: &mut impl Sink<S>) {
        let mut at = 0;
        // Every arm goes on by a byte at least, or changes to a state that does.
        while at < bytes.len() {
            at = match self.state {
                State::Value(node) => self.value(node, bytes[at], at, sink),
                State::Key => {
                    match bytes[at] {
                        b'"' => self.state = State::InKey { escaped: false },
                        b'}' | b']' => self.close(sink),
                        _ => {}
                    }
                    at + 1
                }
                State::InKey { escaped } => self.key(escaped, bytes, at),
                State::Colon(node) => {
                    if bytes[at] == b':' {
                        self.state = State::Value(node);
                    }
                    at + 1
                }
                State::After => {
                    match bytes[at] {
                        b',' => self.state = self.next(),
                        b'}' | b']' => self.close(sink),
                        _ => {}
                    }
                    at + 1
                }
                State::Text { how, escaped } => self.string(how, escaped, bytes, at, sink),
                State::Nested { how, depth, quoted, escaped } => self.nested(how, (depth, quoted, escaped), bytes, at, sink),
                State::Bare { how } => self.bare(how, bytes, at, sink),
            };
        }
    }

    /// What follows a comma.
    fn next(&self) -> State<S> {
        match self.depth.checked_sub(1).map(|top| &self.levels[top]) {
            Some(Level { object: true, .. }) => State::Key,
            Some(Level { node, object: false }) => State::Value(node),
            None => State::Value(self.root),
        }
    }

    /// The first byte of a value; gives the place where reading goes on.
    fn value(&mut self, node: &'static Node<S>, byte: u8, at: usize, sink: &mut impl Sink<S>) -> usize {
        let how = match node.take {
            Take::Nothing => How::Skip,
            Take::Text | Take::Aloud => How::Aloud,
            Take::Keep(slot) => How::Keep(slot),
        };
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b',' => at + 1,
            b'}' | b']' => {
                self.close(sink);
                at + 1
            }
            b'"' => {
                self.state = State::Text { how, escaped: false };
                at + 1
            }
            b'{' | b'[' => {
                let object = byte == b'{';
                let looked_at = match node.take {
                    Take::Nothing => !node.keys.is_empty(),
                    Take::Text => !object || !node.keys.is_empty(),
                    Take::Aloud | Take::Keep(_) => false,
                };
                if looked_at && self.depth < DEPTH {
                    self.levels[self.depth] = Level { node, object };
                    self.depth += 1;
                    self.state = if object { State::Key } else { State::Value(node) };
                    at + 1
                } else {
                    let how = if matches!(node.take, Take::Text) { How::Skip } else { how };
                    self.state = State::Nested { how, depth: 0, quoted: false, escaped: false };
                    at
                }
            }
            _ => {
                self.state = State::Bare { how };
                at
            }
        }
    }

    fn close(&mut self, sink: &mut impl Sink<S>) {
        // A closing bracket too many is no JSON, and means nothing.
        if let Some(depth) = self.depth.checked_sub(1) {
            self.depth = depth;
            self.after(true, sink);
        }
    }

    /// A value is over.
    fn after(&mut self, container: bool, sink: &mut impl Sink<S>) {
        if self.depth > 0 {
            self.state = State::After;
        } else {
            self.state = State::Value(self.root);
            if container {
                sink.whole();
            }
        }
    }

    fn key(&mut self, escaped: bool, bytes: &[u8], at: usize) -> usize {
        let (end, escaped) = quote(bytes, at, escaped);
        let piece = &bytes[at..end.unwrap_or(bytes.len())];
        let Some(end) = end else {
            // A key that long is none of those that are wanted, and stays so when it is cut off.
            let room = KEPT_BYTES - self.spill.len().min(KEPT_BYTES);
            self.spill.extend_from_slice(&piece[..piece.len().min(room)]);
            self.state = State::InKey { escaped };
            return bytes.len();
        };
        let node = self.depth.checked_sub(1).map_or(Node::NOTHING, |top| self.levels[top].node);
        let child = if self.spill.is_empty() {
            node.child(piece)
        } else {
            let room = KEPT_BYTES - self.spill.len().min(KEPT_BYTES);
            self.spill.extend_from_slice(&piece[..piece.len().min(room)]);
            let child = node.child(&self.spill);
            self.spill.clear();
            child
        };
        self.state = State::Colon(child);
        end + 1
    }

    fn string(&mut self, how: How<S>, escaped: bool, bytes: &[u8], at: usize, sink: &mut impl Sink<S>) -> usize {
        let (end, escaped) = quote(bytes, at, escaped);
        let Some(end) = end else {
            let how = self.part(how, &bytes[at..], sink);
            self.state = State::Text { how, escaped };
            return bytes.len();
        };
        match how {
            How::Skip => {}
            How::Aloud => {
                sink.text(&bytes[at..end]);
                sink.text_end();
            }
            How::Keep(slot) => self.kept(&bytes[at..end], |raw| sink.string(slot, raw)),
        }
        self.after(false, sink);
        end + 1
    }

    fn nested(
        &mut self,
        how: How<S>,
        (mut depth, mut quoted, mut escaped): (usize, bool, bool),
        bytes: &[u8],
        at: usize,
        sink: &mut impl Sink<S>,
    ) -> usize {
        let mut here = at;
        while here < bytes.len() {
            if quoted {
                let (end, more) = quote(bytes, here, escaped);
                escaped = more;
                quoted = end.is_none();
                here = end.map_or(bytes.len(), |end| end + 1);
                continue;
            }
            // `[` and `{`, like `]` and `}`, differ in this one bit.
            let Some(skipped) = bytes[here..].iter().position(|&b| b == b'"' || matches!(b | 0x20, b'{' | b'}')) else { break };
            here += skipped + 1;
            match bytes[here - 1] {
                b'"' => quoted = true,
                b'{' | b'[' => depth = depth.saturating_add(1),
                _ => depth = depth.saturating_sub(1),
            }
            if depth == 0 {
                match how {
                    How::Skip => {}
                    How::Aloud => {
                        sink.text(&bytes[at..here]);
                        sink.text_end();
                    }
                    How::Keep(slot) => self.kept(&bytes[at..here], |raw| sink.value(slot, raw)),
                }
                self.after(true, sink);
                return here;
            }
        }
        let how = self.part(how, &bytes[at..], sink);
        self.state = State::Nested { how, depth, quoted, escaped };
        bytes.len()
    }

    fn bare(&mut self, how: How<S>, bytes: &[u8], at: usize, sink: &mut impl Sink<S>) -> usize {
        let over = |b: &u8| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n');
        let Some(length) = bytes[at..].iter().position(over) else {
            let how = match how {
                // A number is no text: its first byte tells that it is one.
                How::Aloud => {
                    if self.spill.is_empty() {
                        self.spill.push(bytes[at]);
                    }
                    how
                }
                _ => self.part(how, &bytes[at..], sink),
            };
            self.state = State::Bare { how };
            return bytes.len();
        };
        match how {
            How::Skip => {}
            How::Aloud => self.kept(&bytes[at..at + length], |raw| {
                if raw.first().is_some_and(|b| b.is_ascii_digit() || *b == b'-') {
                    sink.number();
                }
            }),
            How::Keep(slot) => self.kept(&bytes[at..at + length], |raw| sink.value(slot, raw)),
        }
        self.after(false, sink);
        at + length
    }

    /// A piece of a value that is not over yet.
    fn part(&mut self, how: How<S>, piece: &[u8], sink: &mut impl Sink<S>) -> How<S> {
        match how {
            How::Skip => {}
            How::Aloud => sink.text(piece),
            How::Keep(_) if self.spill.len() + piece.len() > KEPT_BYTES => {
                self.spill.clear();
                return How::Skip;
            }
            How::Keep(_) => self.spill.extend_from_slice(piece),
        }
        how
    }

    /// The last piece of a kept value.
    fn kept(&mut self, piece: &[u8], tell: impl FnOnce(&[u8])) {
        if self.spill.len() + piece.len() <= KEPT_BYTES {
            if self.spill.is_empty() {
                tell(piece);
            } else {
                self.spill.extend_from_slice(piece);
                tell(&self.spill);
            }
        }
        self.spill.clear();
    }
}

/// Where the string ends that begins at `at` or before; and whether the next piece's first byte is escaped.
fn quote(bytes: &[u8], at: usize, escaped: bool) -> (Option<usize>, bool) {
    let mut here = at + usize::from(escaped);
    while let Some(found) = bytes.get(here..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        here += found;
        if bytes[here] == b'"' {
            return (Some(here), false);
        }
        here += 2;
    }
    (None, here > bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Want {
        A,
        B,
    }

    static ROOT: Node<Want> = Node::object(&[
        ("a", Node::leaf(Take::Keep(Want::A))),
        ("t", Node { take: Take::Text, keys: &[("text", Node::leaf(Take::Text))] }),
        ("l", Node::leaf(Take::Aloud)),
        ("in", Node::object(&[("b", Node::leaf(Take::Keep(Want::B)))])),
    ]);

    #[derive(Default, Debug, PartialEq)]
    struct Seen {
        kept: Vec<(char, Vec<u8>)>,
        text: Vec<u8>,
        numbers: u32,
        whole: u32,
    }

    impl Sink<Want> for Seen {
        fn text(&mut self, piece: &[u8]) {
            self.text.extend_from_slice(piece);
        }
        fn text_end(&mut self) {
            self.text.push(b'|');
        }
        fn number(&mut self) {
            self.numbers += 1;
        }
        fn string(&mut self, slot: Want, raw: &[u8]) {
            self.kept.push((if slot == Want::A { 's' } else { 'S' }, raw.to_vec()));
        }
        fn value(&mut self, slot: Want, raw: &[u8]) {
            self.kept.push((if slot == Want::A { 'v' } else { 'V' }, raw.to_vec()));
        }
        fn whole(&mut self) {
            self.whole += 1;
        }
    }

    fn seen(pieces: &[&[u8]]) -> Seen {
        let (mut skimmer, mut seen) = (Skimmer::new(&ROOT), Seen::default());
        pieces.iter().for_each(|piece| skimmer.push(piece, &mut seen));
        seen
    }

    #[test]
    fn only_what_is_wanted_is_told() {
        let json = br#" {"x":{"a":1,"t":"no"},"a":{"p":[1,"}\""]},"in":[{"b":"q\"r"},{"b":null,"a":3}],"t":["one",{"text":"two","a":4},5,[-6]],"l":{"k":[1,"]"]},"y":"a" , "a" : 12 }"#;
        let all = seen(&[json]);
        let kept: Vec<_> = all.kept.iter().map(|(kind, raw)| (*kind, std::str::from_utf8(raw).unwrap())).collect();
        assert_eq!(kept, [('v', r#"{"p":[1,"}\""]}"#), ('S', r#"q\"r"#), ('V', "null"), ('v', "12")]);
        assert_eq!(std::str::from_utf8(&all.text).unwrap(), r#"one|two|{"k":[1,"]"]}|"#);
        assert_eq!((all.numbers, all.whole), (2, 1));
        for first in 0..=json.len() {
            for second in first..=json.len() {
                assert_eq!(seen(&[&json[..first], &json[first..second], &json[second..]]), all, "{first} {second}");
            }
        }
    }

    #[test]
    fn an_array_of_documents_is_read_like_each_of_them() {
        let all = seen(&[br#"[{"a":1},{"a":2}, {"in":{"b":3}}]"#, b"\n", br#"{"a":4}"#]);
        let kept: Vec<_> = all.kept.iter().map(|(kind, raw)| (*kind, raw.as_slice())).collect();
        assert_eq!(kept, [('v', &b"1"[..]), ('v', b"2"), ('V', b"3"), ('v', b"4")]);
        assert_eq!(all.whole, 2);
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_skipped_and_reading_goes_on() {
        let long = format!(
            r#"{{"a":"{}","a":[{}],"t":"x","{}":1,"a":7}}"#,
            "y".repeat(KEPT_BYTES + 1),
            " ".repeat(KEPT_BYTES),
            "k".repeat(99_999)
        );
        let deep = format!(r#"{{"t":{}"deep"{},"a":8}}"#, "[".repeat(500), "]".repeat(500));
        for (json, text) in [(long, "x|"), (deep, "")] {
            let all = seen(&[json.as_bytes()]);
            assert_eq!((all.kept.len(), all.whole), (1, 1));
            assert_eq!(String::from_utf8_lossy(&all.text), text);
            for size in [1, 7, 4096] {
                let pieces: Vec<_> = json.as_bytes().chunks(size).collect();
                assert_eq!(seen(&pieces), all, "{size}");
            }
            let mut skimmer = Skimmer::new(&ROOT);
            json.as_bytes().chunks(100).for_each(|piece| skimmer.push(piece, &mut Seen::default()));
            assert!(skimmer.spill.capacity() <= 2 * KEPT_BYTES);
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(json in "[\\[\\]{}\",:\\\\ altnbi1\u{e9}x-]{0,80}", cut in proptest::collection::vec(1usize..6, 0..40)) {
            let bytes = json.as_bytes();
            let mut pieces = Vec::new();
            let mut rest = bytes;
            for size in cut {
                let (piece, more) = rest.split_at(size.min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            pieces.push(rest);
            prop_assert_eq!(seen(&pieces), seen(&[bytes]));
        }
    }
}
