//! Where each shape has what is wanted: one tree of names for each, streamed and not.

use super::{
    Shape,
    skim::{Node, Take},
};

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// The usage.
    Usage,
    /// Anthropic's first usage, whose count of the answer is a placeholder.
    Opening,
    /// The class of service.
    Tier,
    /// What kind of event it is.
    Kind,
    /// What kind of thing was put out.
    Item,
    /// Gemini's reason to stop.
    Finish,
    /// An error.
    Error,
}

const fn keep(slot: Slot) -> Node<Slot> {
    Node::leaf(Take::Keep(slot))
}

const TEXT: Node<Slot> = Node::leaf(Take::Text);
const ALOUD: Node<Slot> = Node::leaf(Take::Aloud);
/// A string, or parts that have a text.
const PARTS: Node<Slot> = Node { keys: &[("text", TEXT), ("refusal", TEXT)], take: Take::Text };
const CALL: Node<Slot> = Node::object(&[("name", TEXT), ("arguments", TEXT)]);
/// A message of chat, or a piece of one.
const MESSAGE: Node<Slot> = Node::object(&[
    ("content", PARTS),
    ("reasoning_content", TEXT),
    ("reasoning", TEXT),
    ("refusal", TEXT),
    ("tool_calls", Node::object(&[("function", CALL), ("custom", Node::object(&[("name", TEXT), ("input", TEXT)]))])),
    ("function_call", CALL),
]);

static CHAT: Node<Slot> = Node::object(&[
    ("usage", keep(Slot::Usage)),
    ("service_tier", keep(Slot::Tier)),
    ("error", keep(Slot::Error)),
    ("choices", Node::object(&[("message", MESSAGE), ("text", TEXT)])),
]);
/// Some send the whole message beside each piece of it: only the piece is counted.
static CHAT_EVENT: Node<Slot> = Node::object(&[
    ("usage", keep(Slot::Usage)),
    ("service_tier", keep(Slot::Tier)),
    ("error", keep(Slot::Error)),
    ("choices", Node::object(&[("delta", MESSAGE), ("text", TEXT)])),
]);

static RESPONSE: Node<Slot> = Node::object(&[
    ("usage", keep(Slot::Usage)),
    ("service_tier", keep(Slot::Tier)),
    ("error", keep(Slot::Error)),
    (
        "output",
        Node::object(&[
            ("type", keep(Slot::Item)),
            ("content", PARTS),
            ("summary", PARTS),
            ("name", TEXT),
            ("arguments", TEXT),
            ("input", TEXT),
        ]),
    ),
]);
/// The last event repeats every word, so none is taken from there.
static RESPONSE_EVENT: Node<Slot> = Node::object(&[
    ("type", keep(Slot::Kind)),
    ("delta", TEXT),
    ("error", keep(Slot::Error)),
    ("item", Node::object(&[("type", keep(Slot::Item))])),
    (
        "response",
        Node::object(&[
            ("usage", keep(Slot::Usage)),
            ("service_tier", keep(Slot::Tier)),
            ("output", Node::object(&[("type", keep(Slot::Item))])),
        ]),
    ),
]);

static USAGE_ALONE: Node<Slot> =
    Node::object(&[("type", keep(Slot::Kind)), ("usage", keep(Slot::Usage)), ("error", keep(Slot::Error))]);

static ANTHROPIC: Node<Slot> = Node::object(&[
    ("type", keep(Slot::Kind)),
    ("usage", keep(Slot::Usage)),
    ("error", keep(Slot::Error)),
    ("content", Node::object(&[("text", TEXT), ("thinking", TEXT), ("name", TEXT), ("input", ALOUD)])),
]);
static ANTHROPIC_EVENT: Node<Slot> = Node::object(&[
    ("type", keep(Slot::Kind)),
    ("usage", keep(Slot::Usage)),
    ("error", keep(Slot::Error)),
    ("message", Node::object(&[("usage", keep(Slot::Opening))])),
    ("delta", Node::object(&[("text", TEXT), ("thinking", TEXT), ("partial_json", TEXT)])),
    ("content_block", Node::object(&[("text", TEXT), ("thinking", TEXT), ("name", TEXT)])),
]);

static GEMINI: Node<Slot> = Node::object(&[
    ("usageMetadata", keep(Slot::Usage)),
    ("error", keep(Slot::Error)),
    ("promptFeedback", Node::object(&[("blockReason", keep(Slot::Finish))])),
    (
        "candidates",
        Node::object(&[
            ("finishReason", keep(Slot::Finish)),
            (
                "content",
                Node::object(&[(
                    "parts",
                    Node::object(&[
                        ("text", TEXT),
                        ("functionCall", Node::object(&[("name", TEXT), ("args", ALOUD)])),
                        ("executableCode", Node::object(&[("code", TEXT)])),
                    ]),
                )]),
            ),
        ]),
    ),
]);

static SILENT: Node<Slot> = Node::object(&[]);

/// What is wanted of an answer.
pub(super) fn root(shape: Shape, streamed: bool) -> &'static Node<Slot> {
    match (shape, streamed) {
        (Shape::OpenaiChat, false) => &CHAT,
        (Shape::OpenaiChat, true) => &CHAT_EVENT,
        (Shape::OpenaiResponses, false) => &RESPONSE,
        (Shape::OpenaiResponses, true) => &RESPONSE_EVENT,
        (Shape::OpenaiEmbeddings | Shape::OpenaiImages, _) => &USAGE_ALONE,
        (Shape::Anthropic, false) => &ANTHROPIC,
        (Shape::Anthropic, true) => &ANTHROPIC_EVENT,
        (Shape::Gemini, _) => &GEMINI,
        (Shape::Silent, _) => &SILENT,
    }
}
