//! The most prompt tokens that a request can be, from its bytes, before anybody is asked.

use memchr::memmem;

/// The tokens of one picture at most, wherever it lies: what today's models take of a large one at the highest detail.
const IMAGE_TOKENS: u64 = 5_000;

/// The frame of a conversation beyond its JSON, which has more tokens than it stands for.
const FRAME_TOKENS: u64 = 16;
/// What providers say to a model about tools of their own accord; Anthropic's 313 to 346 tokens are the longest known.
const TOOLS_TOKENS: u64 = 500;

/// Names behind which stands something of unknown size that is not in the request: a file, an earlier
/// conversation, a cache.
const ELSEWHERE: [&str; 8] = [
    "\"file_id\"",
    "\"file_url\"",
    "\"fileUri\"",
    "\"file_uri\"",
    "\"previous_response_id\"",
    "\"conversation\"",
    "\"cachedContent\"",
    "\"cached_content\"",
];
/// Names of a picture. OpenAI's parts have the first one twice, as their type and as the member that holds it.
const IMAGES: [(&str, u64); 5] =
    [("\"image_url\"", 2), ("\"input_image\"", 1), ("\"image\"", 1), ("\"inlineData\"", 1), ("\"inline_data\"", 1)];

/// The most prompt tokens that a request with this body can be. `u64::MAX` if part of the prompt lies elsewhere: a model's own
/// limit is the bound then, as it is above every figure from here.
///
/// A third of the bytes would do for prose and is too little for much that is sent every day: a list of one-digit numbers has a
/// token for each byte, base64 two for three. So each kind of byte has its own most, taken from what OpenAI's tokenizers make of
/// such text, with room for others': a word of letters one token and one more for every two letters behind the first, a digit one,
/// a sign one, a character of two bytes one, of three bytes two (three for Ethiopic and its neighbours), of four bytes four. For
/// prose in English that is twice what it will be.
pub(crate) fn most_input(body: &[u8]) -> u64 {
    let has = |name: &str| memmem::find(body, name.as_bytes()).is_some();
    // Anthropic's documents may lie at an address.
    if ELSEWHERE.iter().any(|name| has(name)) || has("\"document\"") && has("\"url\"") {
        return u64::MAX;
    }
    let named = |&(name, each): &(&str, u64)| (memmem::find_iter(body, name.as_bytes()).count() as u64).div_ceil(each);
    let images: u64 = IMAGES.iter().map(named).sum();
    let mut halves: u64 = 0;
    let mut before = Kind::Other;
    for (at, &byte) in body.iter().enumerate() {
        let kind = Kind::of(byte);
        halves += match (before, kind) {
            (Kind::Lower, Kind::Lower) | (Kind::Upper, Kind::Lower | Kind::Upper) => 1,
            (_, Kind::Lower | Kind::Upper) => 2,
            // A blank belongs to the word behind it, and many of them are one token.
            (Kind::Blank, Kind::Blank) => 0,
            (_, Kind::Blank) => match body.get(at + 1).map(|next| Kind::of(*next)) {
                Some(Kind::Lower | Kind::Upper) => 0,
                _ => 2,
            },
            (_, Kind::Other) => 2,
            (_, Kind::Two) => 2,
            (_, Kind::Three) => 4,
            (_, Kind::Rare) => 6,
            (_, Kind::Four) => 8,
            (_, Kind::Later) => 0,
        };
        before = kind;
    }
    let tools = if has("\"tools\"") { TOOLS_TOKENS } else { 0 };
    halves.div_ceil(2).saturating_add(images.saturating_mul(IMAGE_TOKENS)).saturating_add(FRAME_TOKENS + tools)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lower,
    Upper,
    Blank,
    /// A digit or a sign.
    Other,
    Two,
    Three,
    /// U+1000 to U+1FFF, of which no tokenizer knows much.
    Rare,
    Four,
    /// A later byte of a character.
    Later,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            b'a'..=b'z' => Self::Lower,
            b'A'..=b'Z' => Self::Upper,
            b' ' => Self::Blank,
            0..=0x7f => Self::Other,
            0x80..=0xbf => Self::Later,
            0xc0..=0xdf => Self::Two,
            0xe1 => Self::Rare,
            0xe0 | 0xe2..=0xef => Self::Three,
            0xf0..=0xff => Self::Four,
        }
    }
}
