//! The one change that a project may allow to its requests, and its undoing: usage is asked for, and the extra event taken out
//! again.
//!
//! OpenAI's chat streams tell their usage only to those who ask. Where the project's `exact usage` switch is on, [`splice()`] asks
//! on behalf of a caller who did not, by putting in one member and leaving every other byte, and [`Strip`] takes the one event that
//! comes of it out of the answer.

use std::fmt;

use bytes::{Bytes, BytesMut};
use memchr::{memchr2, memmem};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use wire::Content;

/// The body with `"stream_options":{"include_usage":true}` in it. `None` when there is nothing to do: it does not stream, asks by
/// itself, or says a thing twice or strangely, which is between the caller and the provider.
pub(crate) fn splice(body: &Content) -> Option<Content> {
    let body = body.for_routing();
    let [stream, options] = members(body, ["stream", "stream_options"])?;
    if stream?.get() != "true" {
        return None;
    }
    let (at, replaced, put_in) = match options {
        None => (after_brace(body, 0)?, 0, r#""stream_options":{"include_usage":true},"#),
        Some(options) => {
            let text = options.get();
            let start = offset(body, text);
            if text == "null" {
                (start, text.len(), r#"{"include_usage":true}"#)
            } else {
                let [include] = members(text.as_bytes(), ["include_usage"])?;
                match include.map(RawValue::get) {
                    Some(value @ ("false" | "null")) => (offset(body, value), value.len(), "true"),
                    Some(_) => return None,
                    None if IsEmpty::of(text)? => (after_brace(body, start)?, 0, r#""include_usage":true"#),
                    None => (after_brace(body, start)?, 0, r#""include_usage":true,"#),
                }
            }
        }
    };
    let mut spliced = BytesMut::with_capacity(body.len() + put_in.len());
    spliced.extend_from_slice(&body[..at]);
    spliced.extend_from_slice(put_in.as_bytes());
    spliced.extend_from_slice(&body[at + replaced..]);
    Some(spliced.freeze().into())
}

/// Where a part of the body begins in it.
fn offset(body: &[u8], part: &str) -> usize {
    part.as_ptr() as usize - body.as_ptr() as usize
}

/// The place behind the first `{` from there on.
fn after_brace(body: &[u8], from: usize) -> Option<usize> {
    Some(from + memchr::memchr(b'{', &body[from..])? + 1)
}

/// The values of some members of an object, as they are written. `None` when it is none, or has one of them twice.
fn members<'a, const N: usize>(json: &'a [u8], names: [&str; N]) -> Option<[Option<&'a RawValue>; N]> {
    struct Members<'n, const N: usize>([&'n str; N]);

    impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
        type Value = Option<[Option<&'de RawValue>; N]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            let mut twice = false;
            while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                match self.0.iter().position(|name| *name == key) {
                    Some(which) => twice |= found[which].replace(map.next_value::<&RawValue>()?).is_some(),
                    None => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok((!twice).then_some(found))
        }
    }

    let mut json = serde_json::Deserializer::from_slice(json);
    let found = (&mut json).deserialize_map(Members(names)).ok()?;
    json.end().ok()?;
    found
}

/// Whether an object has no member.
struct IsEmpty(bool);

impl IsEmpty {
    fn of(json: &str) -> Option<bool> {
        serde_json::from_str(json).ok().map(|Self(empty)| empty)
    }
}

impl<'de> Deserialize<'de> for IsEmpty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = IsEmpty;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<IsEmpty, A::Error> {
                let mut empty = true;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    empty = false;
                }
                Ok(IsEmpty(empty))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The longest event that can be the one that is taken out; the real one has some 700 bytes.
const EVENT_BYTES: usize = 64 * 1024;

/// Takes the usage event out of a stream, and nothing else: an event whose `usage` is an object and whose `choices` is an empty
/// array.
///
/// Whole events pass as they lie. The beginning of one is held back until it is whole, which costs nobody time: no client can read
/// an event before its blank line.
#[derive(Default)]
pub(crate) struct Strip {
    /// The beginning of an event that is not whole yet, at most [`EVENT_BYTES`].
    held: BytesMut,
    /// This event is longer than that, and passes.
    passing: bool,
    /// So many bytes of the line that is not over yet, up to 1.
    line: usize,
    /// The last byte was a `\r`: a `\n` that follows belongs to it, and shares its fate.
    after_cr: Option<Fate>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The event goes on behind this line.
    Open,
    /// The event was over and passed.
    Passed,
    /// The event was over and was taken out.
    Dropped,
}

impl Strip {
    /// What goes on of these bytes and of those that were held back.
    pub(crate) fn pass(&mut self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let mut out = BytesMut::new();
        // Bytes before `clean` are in `out` or gone; the event that is not over begins at `event`.
        let (mut clean, mut event, mut at) = (0, 0, 0);
        if let Some(fate) = self.after_cr.take().filter(|_| bytes.first() == Some(&b'\n')) {
            at = 1;
            match fate {
                Fate::Open => {}
                Fate::Passed => event = 1,
                Fate::Dropped => (clean, event) = (1, 1),
            }
        }
        while let Some(found) = memchr2(b'\n', b'\r', &bytes[at..]) {
            let blank = self.line == 0 && found == 0;
            let end = at + found;
            at = end + 1;
            let cr = bytes[end] == b'\r';
            if cr && bytes.get(at) == Some(&b'\n') {
                at += 1;
            }
            self.line = 0;
            let fate = if blank { self.event(&bytes, (&mut clean, event, at), &mut out) } else { Fate::Open };
            if blank {
                event = at;
            }
            self.after_cr = (cr && at == bytes.len() && bytes[at - 1] == b'\r').then_some(fate);
        }
        if at < bytes.len() {
            self.line = 1;
        }
        let rest = &bytes[event..];
        if !self.passing && self.held.len() + rest.len() > EVENT_BYTES {
            self.passing = true;
            out.extend_from_slice(&self.held.split());
        }
        let until = if self.passing { bytes.len() } else { event };
        if !self.passing {
            self.held.extend_from_slice(rest);
        }
        let through = bytes.slice(clean.min(until)..until);
        if out.is_empty() {
            return through;
        }
        out.extend_from_slice(&through);
        out.freeze()
    }

    /// The stream is over: what was held back of an event without its blank line.
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        let held = self.held.split().freeze();
        (!held.is_empty() && !is_usage(&held)).then_some(held)
    }

    /// An event is over; gives what becomes of it.
    fn event(&mut self, bytes: &[u8], (clean, start, end): (&mut usize, usize, usize), out: &mut BytesMut) -> Fate {
        if std::mem::take(&mut self.passing) {
            return Fate::Passed;
        }
        let fits = self.held.len() + (end - start) <= EVENT_BYTES;
        let usage = fits
            && if self.held.is_empty() {
                is_usage(&bytes[start..end])
            } else {
                self.held.extend_from_slice(&bytes[start..end]);
                is_usage(&self.held)
            };
        if usage {
            out.extend_from_slice(&bytes[*clean..start]);
            self.held.clear();
            *clean = end;
            return Fate::Dropped;
        }
        if !self.held.is_empty() {
            // The end of what was held is in the bytes at hand too, unless it was too long to be joined.
            out.extend_from_slice(&self.held.split());
            if fits {
                *clean = end;
            }
        }
        Fate::Passed
    }
}

/// Whether an event is the usage event.
fn is_usage(event: &[u8]) -> bool {
    // Every event has a `usage`, which is null in all others.
    let names_it = memmem::find_iter(event, b"\"usage\"").any(|at| {
        let mut rest = event[at + 7..].iter().filter(|byte| !byte.is_ascii_whitespace());
        rest.next() == Some(&b':') && rest.next() == Some(&b'{')
    });
    if !names_it || memmem::find(event, b"\"choices\"").is_none() {
        return false;
    }
    let mut data = Vec::new();
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if let Some(piece) = line.strip_prefix(b"data:") {
            data.extend_from_slice(piece);
            data.push(b'\n');
        }
    }
    let Some([Some(usage), Some(choices)]) = members(&data, ["usage", "choices"]) else { return false };
    let choices = choices.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    usage.get().starts_with('{') && choices.is_some_and(|inner| inner.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spliced(body: &str) -> Option<String> {
        let content = Content::from(Bytes::copy_from_slice(body.as_bytes()));
        splice(&content).map(|content| String::from_utf8(content.for_routing().to_vec()).unwrap())
    }

    #[test]
    fn one_member_is_put_in_and_every_other_byte_stays() {
        for (body, expected) in [
            (r#"{"stream":true}"#, r#"{"stream_options":{"include_usage":true},"stream":true}"#),
            (
                " {\t\"n\":1e400, \"a\":1,\"a\":2,\"x\":\"\\ud800\" ,\"stream\" : true }\r\n",
                " {\"stream_options\":{\"include_usage\":true},\t\"n\":1e400, \"a\":1,\"a\":2,\"x\":\"\\ud800\" ,\"stream\" : true }\r\n",
            ),
            (r#"{"stream":true,"stream_options": null }"#, r#"{"stream":true,"stream_options": {"include_usage":true} }"#),
            (r#"{"stream":true,"stream_options":{ }}"#, r#"{"stream":true,"stream_options":{"include_usage":true }}"#),
            (
                r#"{"stream_options":{"include_obfuscation":false},"stream":true}"#,
                r#"{"stream_options":{"include_usage":true,"include_obfuscation":false},"stream":true}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{"include_usage": false}}"#,
                r#"{"stream":true,"stream_options":{"include_usage": true}}"#,
            ),
            (
                r#"{"stream":true,"stream_options":{"include_usage":null}}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"\u0073tream":true,"x":"{\"stream_options\":1}"}"#,
                r#"{"stream_options":{"include_usage":true},"\u0073tream":true,"x":"{\"stream_options\":1}"}"#,
            ),
        ] {
            assert_eq!(spliced(body).as_deref(), Some(expected), "{body}");
            assert_eq!(spliced(expected), None, "{expected}");
        }
    }

    #[test]
    fn what_asks_by_itself_or_is_strange_is_left_alone() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"stream":false}"#,
            r#"{"stream":null}"#,
            r#"{"stream":1}"#,
            r#"{"stream":true"#,
            r#"{"stream":true} x"#,
            r#"{"x":{"stream":true}}"#,
            r#"{"stream":true,"stream":true}"#,
            r#"{"stream":true,"stream_options":1}"#,
            r#"{"stream":true,"stream_options":[]}"#,
            r#"{"stream":true,"stream_options":null,"stream_options":null}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":"no"}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":false,"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":false,"\u0069nclude_usage":true}}"#,
        ] {
            assert_eq!(spliced(body), None, "{body}");
        }
    }

    fn stripped<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut strip = Strip::default();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&strip.pass(Bytes::copy_from_slice(piece)));
        }
        out.extend_from_slice(&strip.finish().unwrap_or_default());
        out
    }

    const WORD: &str = r#"data: {"choices":[{"delta":{"content":"\"usage\":{"}}],"usage":null}"#;
    const USAGE: &str = r#"data: {"id":"1","choices": [ ],"usage": {"prompt_tokens":1}}"#;
    const BOTH: &str = r#"data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":1}}"#;
    const FILTER: &str = r#"data: {"choices":[],"prompt_filter_results":[{"usage":{}}]}"#;

    #[test]
    fn only_the_usage_event_is_taken_out() {
        for end in ["\n", "\r\n", "\r"] {
            let joined = |events: &[&str]| events.iter().map(|event| format!("{event}{end}{end}")).collect::<String>();
            let done = "data: [DONE]";
            let comment = ": keepalive";
            let parts = format!("event: x{end}data: {{\"choices\":[],{end}data:\"usage\":{{}}}}");
            let input = joined(&[FILTER, WORD, comment, BOTH, USAGE, WORD, &parts, done]);
            let expected = joined(&[FILTER, WORD, comment, BOTH, WORD, done]);
            let bytes = input.as_bytes();
            assert_eq!(String::from_utf8(stripped([bytes])).unwrap(), expected);
            for size in 1..40 {
                assert_eq!(String::from_utf8(stripped(bytes.chunks(size))).unwrap(), expected, "{size}");
            }
            for at in 0..bytes.len() {
                assert_eq!(stripped([&bytes[..at], &bytes[at..]]), expected.as_bytes(), "{at}");
            }
        }
    }

    #[test]
    fn whole_events_pass_as_they_lie() {
        let mut strip = Strip::default();
        let chunk = Bytes::from(format!("{WORD}\n\n{BOTH}\n\n"));
        let passed = strip.pass(chunk.clone());
        assert_eq!((passed.as_ptr(), passed.len()), (chunk.as_ptr(), chunk.len()));
        assert_eq!(strip.finish(), None);
    }

    #[test]
    fn an_event_too_long_to_be_it_passes_before_its_end() {
        let long = format!(r#"data: {{"choices":[],"usage":{{}},"x":"{}"#, "y".repeat(EVENT_BYTES));
        let mut strip = Strip::default();
        assert!(strip.pass(Bytes::from_static(b"data")).is_empty());
        assert_eq!(strip.pass(Bytes::from(long[4..].to_owned())), long);
        assert_eq!(strip.pass(Bytes::from_static(b"\"}\n")), "\"}\n");
        assert_eq!(strip.pass(Bytes::from(format!("\n{USAGE}\n\n"))), "\n");
        assert_eq!(stripped([format!("{long}\"}}\n\n{USAGE}\n\nx").as_bytes()]), format!("{long}\"}}\n\nx").as_bytes());
    }

    #[test]
    fn a_last_event_without_its_blank_line() {
        assert_eq!(stripped([USAGE.as_bytes()]), b"");
        assert_eq!(stripped([WORD.as_bytes()]), WORD.as_bytes());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            events in proptest::collection::vec((0usize..6, 0usize..3), 0..8),
            cuts in proptest::collection::vec(1usize..50, 1..60),
            open in any::<bool>(),
        ) {
            let long = format!("data: {}", "z".repeat(EVENT_BYTES + 5));
            let (mut input, mut expected) = (String::new(), String::new());
            for (index, (kind, end)) in events.iter().enumerate() {
                let end = ["\n", "\r\n", "\r"][*end];
                let event = [WORD, USAGE, BOTH, FILTER, ": c", long.as_str()][*kind];
                let end = if open && index + 1 == events.len() { String::new() } else { end.repeat(2) };
                input += event;
                input += &end;
                if *kind != 1 {
                    expected += event;
                    expected += &end;
                }
            }
            let mut pieces = Vec::new();
            let mut rest = input.as_bytes();
            for size in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, more) = rest.split_at((*size * if rest.len() > 5000 { 99 } else { 1 }).min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            prop_assert_eq!(String::from_utf8(stripped(pieces)).unwrap(), expected);
        }

        #[test]
        fn bytes_that_are_no_usage_event_pass(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in 1usize..20) {
            prop_assert_eq!(stripped(bytes.chunks(size)), bytes);
        }
    }
}
