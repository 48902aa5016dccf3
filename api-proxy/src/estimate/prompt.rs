//! The tokens of a request, by OpenAI's published rules.
//!
//! The request is skimmed, not parsed: whatever its size, one string of it is in memory at a time.

use bpe_openai::Tokenizer;
use serde_json::Value;

use crate::{
    surface::Endpoint,
    tap::{
        skim::{Node, Sink, Skimmer, Take},
        text::unescaped,
    },
};

/// So much text is run through the tokenizer, a second's work; what a request has beyond that is taken to be like it.
const COUNTED_BYTES: u64 = 8 * 1024 * 1024;
/// A longer string is counted in parts.
const STRING_BYTES: usize = 1024 * 1024;

/// OpenAI's figures: <https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken>.
const PER_MESSAGE: u64 = 3;
const PER_NAME: u64 = 1;
const PRIMING: u64 = 3;
const PER_FUNCTION: u64 = 7;
const FUNCTIONS_END: u64 = 12;
const PROPERTIES: u64 = 3;
const PER_PROPERTY: u64 = 3;
const PER_CHOICE: u64 = 3;
/// A list of choices takes one's worth less.
const CHOICES_LESS: u64 = 3;
/// A picture at low detail; and at high, for the usual 1024 by 1024, which is 4 tiles of 170 beside the 85.
const LOW_IMAGE: u64 = 85;
const HIGH_IMAGE: u64 = 85 + 4 * 170;

#[derive(Clone, Copy)]
enum Part {
    /// The role of a message: there is one in each.
    Role,
    /// The name of who speaks.
    Speaker,
    /// What kind of part it is.
    Kind,
    /// How closely a picture is looked at.
    Detail,
    /// A picture's type of data.
    Media,
    FunctionName,
    FunctionText,
    Parameters,
}

const fn keep(part: Part) -> Node<Part> {
    Node::leaf(Take::Keep(part))
}

const TEXT: Node<Part> = Node::leaf(Take::Text);
const ALOUD: Node<Part> = Node::leaf(Take::Aloud);
const CALL: Node<Part> = Node::object(&[("name", TEXT), ("arguments", TEXT)]);
const FUNCTION: Node<Part> = Node::object(&[
    ("name", keep(Part::FunctionName)),
    ("description", keep(Part::FunctionText)),
    ("parameters", keep(Part::Parameters)),
]);
const TOOLS: Node<Part> = Node::object(&[
    ("function", FUNCTION),
    ("name", keep(Part::FunctionName)),
    ("description", keep(Part::FunctionText)),
    ("parameters", keep(Part::Parameters)),
]);
const CONTENT: Node<Part> = Node {
    keys: &[
        ("text", TEXT),
        ("refusal", TEXT),
        ("type", keep(Part::Kind)),
        ("detail", keep(Part::Detail)),
        ("image_url", Node::object(&[("detail", keep(Part::Detail))])),
        // Anthropic's parts.
        ("thinking", TEXT),
        ("input", ALOUD),
        ("content", Node { keys: &[("text", TEXT), ("type", keep(Part::Kind))], take: Take::Text }),
    ],
    take: Take::Text,
};

static OPENAI: Node<Part> = Node::object(&[
    (
        "messages",
        Node::object(&[
            ("role", keep(Part::Role)),
            ("name", keep(Part::Speaker)),
            ("content", CONTENT),
            ("refusal", TEXT),
            ("tool_calls", Node::object(&[("function", CALL)])),
            ("function_call", CALL),
        ]),
    ),
    ("tools", TOOLS),
    ("functions", FUNCTION),
    ("response_format", Node::object(&[("json_schema", Node::object(&[("schema", ALOUD)]))])),
    ("prompt", TEXT),
]);
static RESPONSES: Node<Part> = Node::object(&[
    ("instructions", TEXT),
    (
        "input",
        Node {
            keys: &[
                ("role", keep(Part::Role)),
                ("content", CONTENT),
                ("summary", CONTENT),
                ("name", TEXT),
                ("arguments", TEXT),
                ("output", CONTENT),
            ],
            take: Take::Text,
        },
    ),
    ("tools", TOOLS),
    ("text", Node::object(&[("format", Node::object(&[("schema", ALOUD)]))])),
]);
static INPUT: Node<Part> = Node::object(&[("input", TEXT), ("prompt", TEXT)]);
static ANTHROPIC: Node<Part> = Node::object(&[
    ("system", CONTENT),
    ("messages", Node::object(&[("role", keep(Part::Role)), ("content", CONTENT)])),
    ("tools", ALOUD),
]);
const GEMINI_CONTENT: Node<Part> = Node::object(&[(
    "parts",
    Node::object(&[
        ("text", TEXT),
        ("functionCall", ALOUD),
        ("functionResponse", ALOUD),
        ("inlineData", Node::object(&[("mimeType", keep(Part::Media)), ("mime_type", keep(Part::Media))])),
        ("inline_data", Node::object(&[("mimeType", keep(Part::Media)), ("mime_type", keep(Part::Media))])),
    ]),
)]);
static GEMINI: Node<Part> = Node::object(&[
    ("contents", GEMINI_CONTENT),
    ("content", GEMINI_CONTENT),
    ("requests", Node::object(&[("content", GEMINI_CONTENT)])),
    ("systemInstruction", GEMINI_CONTENT),
    ("system_instruction", GEMINI_CONTENT),
    ("tools", ALOUD),
]);

/// The tokens of a request.
pub(super) fn tokens(tokenizer: &'static Tokenizer, endpoint: Endpoint, request: &[u8]) -> u64 {
    let (root, primed) = match endpoint {
        Endpoint::OpenaiChat => (&OPENAI, PRIMING),
        Endpoint::OpenaiCompletions => (&OPENAI, 0),
        Endpoint::OpenaiResponses => (&RESPONSES, PRIMING),
        Endpoint::OpenaiEmbeddings | Endpoint::OpenaiImages => (&INPUT, 0),
        Endpoint::AnthropicMessages | Endpoint::AnthropicCountTokens => (&ANTHROPIC, PRIMING),
        Endpoint::GeminiGenerate
        | Endpoint::GeminiStreamGenerate
        | Endpoint::GeminiCountTokens
        | Endpoint::GeminiEmbed
        | Endpoint::GeminiBatchEmbed => (&GEMINI, 0),
        Endpoint::OllamaChat | Endpoint::OllamaGenerate | Endpoint::OllamaEmbed | Endpoint::OllamaShow => return 0,
    };
    let mut prompt = Prompt { tokenizer, tokens: primed, text: 0, string: Vec::new(), counted: 0, beyond: 0, functions: false };
    Skimmer::new(root).push(request, &mut prompt);
    let end = if prompt.functions { FUNCTIONS_END } else { 0 };
    prompt.tokens.saturating_add(prompt.text_tokens()).saturating_add(end)
}

struct Prompt {
    tokenizer: &'static Tokenizer,
    /// All but those of text.
    tokens: u64,
    /// Those of the text that was counted.
    text: u64,
    /// The string that is being read.
    string: Vec<u8>,
    /// Bytes of text that went through the tokenizer, and those that did not.
    counted: u64,
    beyond: u64,
    functions: bool,
}

impl Prompt {
    fn text_tokens(&self) -> u64 {
        let all = u128::from(self.counted) + u128::from(self.beyond);
        u64::try_from(u128::from(self.text) * all / u128::from(self.counted.max(1))).unwrap_or(u64::MAX)
    }

    fn of(&self, raw: &[u8]) -> u64 {
        self.tokenizer.count(unescaped(raw).as_str()) as u64
    }

    fn count_string(&mut self) {
        let string = std::mem::take(&mut self.string);
        if self.counted < COUNTED_BYTES {
            self.text += self.of(&string);
            self.counted += string.len() as u64;
        } else {
            self.beyond += string.len() as u64;
        }
        self.string = string;
        self.string.clear();
    }

    /// The properties of a function's parameters, one line each, as they are shown to the model.
    fn properties(&self, schema: &Value) -> u64 {
        let mut tokens = 0;
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return tokens };
        for (name, property) in properties {
            let text = |name: &str| property.get(name).and_then(Value::as_str).unwrap_or_default();
            let line = format!("{name}:{}:{}", text("type"), text("description").trim_end_matches('.'));
            tokens += PER_PROPERTY + self.tokenizer.count(line.as_str()) as u64;
            if let Some(choices) = property.get("enum").and_then(Value::as_array) {
                let each = choices.iter().map(|choice| match choice {
                    Value::String(text) => PER_CHOICE + self.tokenizer.count(text.as_str()) as u64,
                    other => PER_CHOICE + self.tokenizer.count(other.to_string().as_str()) as u64,
                });
                tokens = (tokens + each.sum::<u64>()).saturating_sub(CHOICES_LESS);
            }
            tokens += self.properties(property) + property.get("items").map_or(0, |items| self.properties(items));
        }
        tokens
    }
}

impl Sink<Part> for Prompt {
    fn text(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let room = STRING_BYTES - self.string.len();
            let (now, later) = piece.split_at(piece.len().min(room));
            self.string.extend_from_slice(now);
            piece = later;
            if self.string.len() == STRING_BYTES {
                self.count_string();
            }
        }
    }

    fn text_end(&mut self) {
        self.count_string();
    }

    /// A prompt may be given in tokens.
    fn number(&mut self) {
        self.tokens += 1;
    }

    fn string(&mut self, part: Part, raw: &[u8]) {
        self.tokens += match part {
            Part::Role => PER_MESSAGE + self.of(raw),
            Part::Speaker => PER_NAME + self.of(raw),
            Part::Kind if matches!(raw, b"image_url" | b"input_image" | b"image") => HIGH_IMAGE,
            Part::Media if raw.starts_with(b"image/") => HIGH_IMAGE,
            Part::FunctionName => {
                self.functions = true;
                PER_FUNCTION + self.of(raw)
            }
            Part::FunctionText => {
                let text = unescaped(raw);
                self.tokenizer.count(format!(":{}", text.trim_end_matches('.')).as_str()) as u64
            }
            Part::Detail if raw == b"low" => {
                self.tokens = self.tokens.saturating_sub(HIGH_IMAGE - LOW_IMAGE);
                0
            }
            Part::Kind | Part::Media | Part::Detail | Part::Parameters => 0,
        };
    }

    fn value(&mut self, part: Part, raw: &[u8]) {
        if let (Part::Parameters, Ok(schema)) = (part, serde_json::from_slice::<Value>(raw)) {
            let properties = self.properties(&schema);
            self.tokens += if properties > 0 { PROPERTIES + properties } else { 0 };
        }
    }
}
