//! What the fake says: text that is a function of the model, the question and how it was asked, and that breaks in as many
//! places as text can (accents, CJK, emoji of several code points, `<>&`, quotes, control characters).

use serde_json::{Map, Value};

/// A place to split text that goes wrong when bytes are taken for characters.
const PIECES: [&str; 24] = [
    " déjà",
    " vu",
    " 東京",
    "タワー",
    " 🦀",
    " <b>gras</b>",
    " R&D",
    " \"dit-elle\"",
    "\n",
    " naïveté",
    "你好，世界",
    " 👩‍👩‍👧",
    " C:\\temp",
    "\t—",
    " Straße",
    " e\u{301}",
    " 🇪🇺",
    " 1 < 2 && 3 > 2",
    "\u{2028}",
    " مرحبا",
    " `let x = '&';`",
    " œuvre",
    " ½",
    " {\"a\":[1]}",
];

/// Where the tokens of an answer come from.
#[derive(Debug, Clone)]
pub(crate) enum Voice {
    /// The benchmark's: a space, the token's number, then `x` up to the size. Needs no escaping.
    Plain { size: usize },
    /// Many scripts, from a seed; the first token quotes the start of the question.
    Babel { seed: u64, quote: String, size: usize },
    /// Exactly these.
    Fixed(Vec<String>),
}

impl Voice {
    /// Appends token `index`.
    pub(crate) fn push(&self, index: u32, out: &mut String) {
        let start = out.len();
        match self {
            Self::Plain { size } => {
                let mut digits = Vec::with_capacity(10);
                super::json::push_number(&mut digits, u64::from(index));
                out.push(' ');
                out.extend(digits.iter().map(|digit| char::from(*digit)));
                pad(out, start, *size, 'x');
            }
            Self::Babel { seed, quote, size } => {
                if index == 0 && !quote.is_empty() {
                    out.push_str("« ");
                    out.push_str(quote);
                    out.push_str(" » :");
                } else {
                    out.push_str(PIECES[(mix(*seed, u64::from(index)) % PIECES.len() as u64) as usize]);
                }
                pad(out, start, *size, 'é');
            }
            Self::Fixed(tokens) => out.push_str(tokens.get(index as usize).map_or("", String::as_str)),
        }
    }

    /// The first tokens together.
    pub(crate) fn text(&self, tokens: u32) -> String {
        let mut out = String::new();
        for index in 0..tokens {
            self.push(index, &mut out);
        }
        out
    }
}

fn pad(out: &mut String, start: usize, size: usize, with: char) {
    while out.len() - start < size {
        out.push(with);
    }
}

/// The start of a question, as an answer quotes it.
pub(crate) fn quote(question: &str) -> String {
    question.chars().take(32).collect()
}

/// Text in tokens of a few characters.
pub(crate) fn tokens_of(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(5).map(|chunk| chunk.iter().collect()).collect()
}

/// A number that depends on all of the parts.
pub(crate) fn seed(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// Number `index` of the sequence that starts at `seed` (splitmix64).
pub(crate) const fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A value that satisfies a JSON schema, as far as types, enums, constants, `anyOf`, `$ref` into `$defs`, required and
/// listed properties, and smallest lengths go.
pub(crate) fn satisfying(schema: &Value, seed: u64) -> Value {
    walk(schema, schema, seed, 0)
}

fn walk(schema: &Value, root: &Value, seed: u64, depth: u64) -> Value {
    // A recursive schema must end; every level below is then the simplest value there is.
    if depth > 16 {
        return Value::Null;
    }
    let below = |schema: &Value, index: u64| walk(schema, root, mix(seed, index), depth + 1);
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array).filter(|choices| !choices.is_empty()) {
        return choices[(seed % choices.len() as u64) as usize].clone();
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|path| root.pointer(path.strip_prefix('#')?)) {
        return below(target, 0);
    }
    for word in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(word).and_then(Value::as_array).and_then(|choices| choices.first()) {
            return below(first, 0);
        }
    }
    let size = |word: &str, default: u64| schema.get(word).and_then(Value::as_u64).unwrap_or(default);
    match kind(schema) {
        "object" => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let members = properties.into_iter().flatten().enumerate();
            Value::Object(members.map(|(index, (name, schema))| (name.clone(), below(schema, index as u64))).collect::<Map<_, _>>())
        }
        "array" => {
            let items = schema.get("items").cloned().unwrap_or_default();
            let count = size("minItems", 2).max(1).min(size("maxItems", u64::MAX)).min(64);
            (0..count).map(|index| below(&items, index)).collect()
        }
        "integer" => schema.get("minimum").cloned().unwrap_or_else(|| (seed % 100).into()),
        "number" => schema.get("minimum").cloned().unwrap_or_else(|| ((seed % 100) as f64 + 0.5).into()),
        "boolean" => (seed.is_multiple_of(2)).into(),
        "null" => Value::Null,
        _ => {
            let mut text = PIECES[(seed % PIECES.len() as u64) as usize].trim().to_owned();
            while (text.chars().count() as u64) < size("minLength", 1) {
                text.push('é');
            }
            text.chars().take(usize::try_from(size("maxLength", u64::MAX)).unwrap_or(usize::MAX)).collect::<String>().into()
        }
    }
}

/// The type that a schema asks for; of several, the first that is not null.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(kind)) => kind,
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null"),
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() => "array",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_plain_voice_is_the_benchmarks() {
        assert_eq!(Voice::Plain { size: 4 }.text(3), " 0xx 1xx 2xx");
        assert_eq!(Voice::Plain { size: 2 }.text(12), " 0 1 2 3 4 5 6 7 8 9 10 11");
    }

    #[test]
    fn the_babel_voice_depends_on_its_seed_only() {
        let voice = |seed, question: &str| Voice::Babel { seed, quote: quote(question), size: 0 }.text(40);
        assert_eq!(voice(1, "où ?"), voice(1, "où ?"));
        assert_ne!(voice(1, "où ?"), voice(2, "où ?"));
        assert!(voice(1, "où ?").starts_with("« où ? » :"));
    }

    #[test]
    fn an_answer_satisfies_its_schema() {
        let schema = json!({
            "type": "object",
            "$defs": {"size": {"type": "integer", "minimum": 3}},
            "properties": {
                "name": {"type": "string", "maxLength": 3},
                "colour": {"enum": ["rouge"]},
                "sizes": {"type": "array", "items": {"$ref": "#/$defs/size"}, "maxItems": 1},
                "maybe": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
                "price": {"type": ["null", "number"]},
                "inner": {"properties": {"none": {"const": null}}},
            },
        });
        let answer = satisfying(&schema, 7);
        assert_eq!(answer["colour"], "rouge");
        assert_eq!(answer["sizes"], json!([3]));
        assert_eq!(answer["inner"], json!({"none": null}));
        assert!(answer["maybe"].is_boolean() && answer["price"].is_f64());
        assert!((1..=3).contains(&answer["name"].as_str().unwrap().chars().count()));
        assert_eq!(answer.as_object().unwrap().len(), 6);
    }

    #[test]
    fn tokens_lose_nothing() {
        let text = "déjà {\"a\":\"東京タワー\"} 🦀";
        assert_eq!(tokens_of(text).concat(), text);
        assert!(tokens_of("").is_empty());
    }
}
