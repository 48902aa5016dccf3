//! JSON as Go reads and writes it: what a careful reader of the bridge must survive.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::shape::Shape;

/// A value as Go's encoder writes it: `<`, `>`, `&`, U+2028 and U+2029 escaped.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    // A `Value` always serialises; an empty answer would fail every test that reads it.
    let plain = serde_json::to_vec(value).unwrap_or_default();
    let mut out = Vec::with_capacity(plain.len() + 16);
    let mut rest = &plain[..];
    // Outside of strings none of these occurs, so the structure is untouched.
    while let Some(at) = rest.iter().position(|b| matches!(b, b'<' | b'>' | b'&' | 0xE2)) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + push_html_escape(&mut out, &rest[at..])..];
    }
    out.extend_from_slice(rest);
    out
}

/// Text as the inside of a Go string literal.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b < 0x20 || matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&' | 0xE2)) {
        out.extend_from_slice(&rest[..at]);
        let taken = match rest[at] {
            b'"' => push(out, b"\\\""),
            b'\\' => push(out, b"\\\\"),
            b'\n' => push(out, b"\\n"),
            b'\r' => push(out, b"\\r"),
            b'\t' => push(out, b"\\t"),
            8 => push(out, b"\\b"),
            12 => push(out, b"\\f"),
            control if control < 0x20 => push(out, format!("\\u{control:04x}").as_bytes()),
            _ => push_html_escape(out, &rest[at..]),
        };
        rest = &rest[at + taken..];
    }
    out.extend_from_slice(rest);
}

fn push(out: &mut Vec<u8>, bytes: &[u8]) -> usize {
    out.extend_from_slice(bytes);
    1
}

/// Writes the first character of `rest`, one of `<>&` or one that starts with 0xE2; says how many bytes it took.
fn push_html_escape(out: &mut Vec<u8>, rest: &[u8]) -> usize {
    match rest {
        [b'<', ..] => push(out, b"\\u003c"),
        [b'>', ..] => push(out, b"\\u003e"),
        [b'&', ..] => push(out, b"\\u0026"),
        [0xE2, 0x80, 0xA8, ..] => push(out, b"\\u2028") + 2,
        [0xE2, 0x80, 0xA9, ..] => push(out, b"\\u2029") + 2,
        [first, ..] => push(out, &[*first]),
        [] => 0,
    }
}

/// A whole number, without going through a formatter.
pub(super) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Seconds since 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A time as Go's `RFC3339Nano` in UTC: nanoseconds, with no zeros at the end.
pub(super) fn push_time(out: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, mut nanos) = (since.as_secs(), since.subsec_nanos());
    let (year, month, day) = civil(seconds / 86_400);
    let clock = seconds % 86_400;
    push_number(out, year);
    for (mark, number) in [(b'-', month), (b'-', day), (b'T', clock / 3600), (b':', clock / 60 % 60), (b':', clock % 60)] {
        out.extend_from_slice(&[mark, b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]);
    }
    if nanos > 0 {
        let mut digits = [b'0'; 9];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (nanos % 10) as u8;
            nanos /= 10;
        }
        let used = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        out.push(b'.');
        out.extend_from_slice(&digits[..used]);
    }
    out.push(b'Z');
}

/// That time as text.
pub(super) fn time_text(time: SystemTime) -> String {
    let mut out = Vec::with_capacity(32);
    push_time(&mut out, time);
    String::from_utf8_lossy(&out).into_owned()
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`, for days after 1970 only).
const fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + (month <= 2) as u64, month, day)
}

/// The top level of a request as Go's decoder sees it: names in any case, the last one wins, what follows the first value
/// is not read.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, Value)>);

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadBody {
    Empty,
    Malformed(String),
}

impl Fields {
    /// Reads a body that is to be of that shape; whether its fields are, [`Shape::check`] says.
    pub(super) fn parse(body: &[u8], shape: &Shape) -> Result<Self, BadBody> {
        let Some(first) = body.iter().find(|byte| !byte.is_ascii_whitespace()) else { return Err(BadBody::Empty) };
        let mut json = serde_json::Deserializer::from_slice(body);
        let read = if *first == b'{' {
            Self::deserialize(&mut json)
        } else {
            match Value::deserialize(&mut json) {
                // To Go, `null` is an object without fields.
                Ok(Value::Null) => Ok(Self(Vec::new())),
                Ok(other) => return Err(BadBody::Malformed(shape.no_object(&other))),
                Err(error) => Err(error),
            }
        };
        read.map_err(|error| {
            BadBody::Malformed(if error.is_eof() {
                "unexpected EOF".into()
            } else {
                "invalid character in the request body".into()
            })
        })
    }

    /// All fields by their lower-case names, in the order of the body.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// The field of that (lower-case) name; an explicit `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(key, value)| key == name && !value.is_null()).map(|(_, value)| value)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    pub(super) fn items(&self, name: &str) -> &[Value] {
        self.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some(key) = map.next_key::<String>()? {
                    fields.push((fold(&key), map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// A name as Go compares it: ASCII case aside, and with the two letters outside ASCII that fold into it.
fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}

/// A member of a nested object by Go's rules.
pub(super) fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.iter().rev().find(|(key, value)| !value.is_null() && fold(key) == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::shape::CHAT;
    use super::*;

    #[test]
    fn text_is_escaped_as_go_does() {
        let text = "é<b>&\"q\"\\\n\u{7}\u{8}\u{2028}\u{2019}東🦀";
        let mut out = Vec::new();
        push_text(&mut out, text);
        let expected = "é\\u003cb\\u003e\\u0026\\\"q\\\"\\\\\\n\\u0007\\b\\u2028\u{2019}東🦀";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(String::from_utf8(encode(&text)).unwrap(), format!("\"{expected}\""));
    }

    #[test]
    fn times_are_rfc_3339_with_trimmed_nanoseconds() {
        let at = |seconds, nanos| time_text(UNIX_EPOCH + Duration::new(seconds, nanos));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400, 120_000_000), "2000-02-29T00:00:00.12Z");
        assert_eq!(at(1_767_225_599, 1), "2025-12-31T23:59:59.000000001Z");
    }

    #[test]
    fn fields_are_read_as_go_reads_them() {
        let parse = |body: &[u8]| Fields::parse(body, &CHAT);
        let fields = parse(br#"{"model":"ok","MODEL":"x:cloud","model":null, "me\u017f\u017fages":[1]} trailing"#).unwrap();
        assert_eq!(fields.text("model"), Some("x:cloud"));
        assert_eq!(fields.items("messages"), [1]);
        assert_eq!(parse(b" \n").unwrap_err(), BadBody::Empty);
        assert_eq!(parse(b"{\"a\":").unwrap_err(), BadBody::Malformed("unexpected EOF".into()));
        let text = "json: cannot unmarshal string into Go value of type api.ChatRequest";
        assert_eq!(parse(b" \"x\"").unwrap_err(), BadBody::Malformed(text.into()));
        assert_eq!(parse(b"null").unwrap().text("model"), None);
        assert!(matches!(parse(b"nonsense").unwrap_err(), BadBody::Malformed(_)));
    }

    #[test]
    fn numbers() {
        for number in [0, 7, 10, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
