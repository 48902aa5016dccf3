//! What a test asks of an answer beyond its being one: how long it is, how fast, and how it goes wrong.
//!
//! Asked for by a model's name, such as `gpt-fake-n100-d10000`, or by a test, in the same letters.

use std::time::Duration;

/// How an answer is given.
///
/// A name is cut at `/` (what stands before is dropped), then at `-` and `:`. The first piece is the name itself; each other piece
/// `<letter><digits>` sets one field, and the letters of [`Trouble`] and [`UsageHabit`] need no digits. Other pieces are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behaviour {
    /// n: tokens of the answer; 16 otherwise.
    pub tokens: u32,
    /// d: µs between tokens (the timer rounds up to 1 ms).
    pub delay: Duration,
    /// t: µs before the first token, and so before the headers.
    pub first: Duration,
    /// s: bytes of text in one token, at least.
    pub size: Option<usize>,
    /// e: cut the connection after that many tokens; at 0, before the head. An answer that is not streamed is cut in its middle.
    pub cut_at: Option<u32>,
    /// x: say in-band, in the provider's shape, that it failed, after that many tokens; an answer that is not streamed is a 500.
    pub fail_at: Option<u32>,
    /// f: end the stream properly after that many tokens, without what every stream ends with.
    pub end_at: Option<u32>,
    /// z: after that many tokens keep the connection open and send nothing more.
    pub hang_at: Option<u32>,
    /// h: answer with that HTTP status at once, and the provider's body for it.
    pub status: Option<u16>,
    /// a: `Retry-After` on that answer, in seconds.
    pub retry_after: Option<u32>,
    /// y: 1 = one write per token even with no delay; 0 = let the server put several tokens into one write.
    pub write_each: bool,
    /// v: dimensions of an embedding; 8 otherwise.
    pub dimensions: u32,
    /// c: tokens of the prompt that come out of the cache.
    pub cached: u64,
    /// k: tokens of the prompt that are written into the cache.
    pub cache_write: u64,
    /// o: tokens of reasoning; 6 where the request asks for reasoning, otherwise none.
    pub reasoning: Option<u32>,
    /// u, q: what becomes of the usage.
    pub usage: UsageHabit,
    /// g, b, l, m, r, i, w: what else goes wrong.
    pub trouble: Option<Trouble>,
}

/// What a provider does about usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UsageHabit {
    /// What its documentation says.
    #[default]
    Documented,
    /// u: it never says any.
    Silent,
    /// q: a stream says it together with the last choice, as some compatible providers do, whoever asked for it.
    WithLastChoice,
}

/// How an upstream can be hostile or broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// g: frames that are none, and a document that is no JSON.
    Garbage,
    /// b: a body of 1 GiB, packed by gzip into 1 MiB.
    Bomb,
    /// l: a head that has no end. (Over h2, one of 4 MiB.)
    EndlessHead,
    /// m: a line of 1 GiB.
    LongLine,
    /// r: a redirect to an address of its own that nobody may call.
    Redirect,
    /// i: text that is not UTF-8.
    InvalidUtf8,
    /// w: nothing at all, for ever.
    Silence,
}

/// A name that asks for more tokens than this is not a test but an accident.
const MOST_TOKENS: u32 = 100_000;
const MOST_BYTES: u64 = 65_536;

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            tokens: 16,
            delay: Duration::ZERO,
            first: Duration::ZERO,
            size: None,
            cut_at: None,
            fail_at: None,
            end_at: None,
            hang_at: None,
            status: None,
            retry_after: None,
            write_each: true,
            dimensions: 8,
            cached: 0,
            cache_write: 0,
            reasoning: None,
            usage: UsageHabit::Documented,
            trouble: None,
        }
    }
}

impl Behaviour {
    /// What these letters ask for: `Behaviour::of("h503-a1")`.
    #[must_use]
    pub fn of(letters: &str) -> Self {
        let mut behaviour = Self::default();
        for piece in letters.split(['-', ':']) {
            behaviour.set(piece);
        }
        behaviour
    }

    /// What a model's name asks for.
    pub(super) fn of_model(model: &str) -> Self {
        let tail = model.rsplit('/').next().unwrap_or(model);
        tail.split_once(['-', ':']).map_or_else(Self::default, |(_, letters)| Self::of(letters))
    }

    fn set(&mut self, piece: &str) {
        let mut letters = piece.chars();
        let Some(letter) = letters.next() else { return };
        match (piece, letter) {
            ("u", _) => return self.usage = UsageHabit::Silent,
            ("q", _) => return self.usage = UsageHabit::WithLastChoice,
            ("g", _) => return self.trouble = Some(Trouble::Garbage),
            ("b", _) => return self.trouble = Some(Trouble::Bomb),
            ("l", _) => return self.trouble = Some(Trouble::EndlessHead),
            ("m", _) => return self.trouble = Some(Trouble::LongLine),
            ("r", _) => return self.trouble = Some(Trouble::Redirect),
            ("i", _) => return self.trouble = Some(Trouble::InvalidUtf8),
            ("w", _) => return self.trouble = Some(Trouble::Silence),
            _ => {}
        }
        let Ok(number) = letters.as_str().parse::<u64>() else { return };
        let count = u32::try_from(number).unwrap_or(u32::MAX);
        match letter {
            'n' => self.tokens = count.min(MOST_TOKENS),
            'd' => self.delay = Duration::from_micros(number),
            't' => self.first = Duration::from_micros(number),
            's' => self.size = Some(number.min(MOST_BYTES) as usize),
            'e' => self.cut_at = Some(count),
            'x' => self.fail_at = Some(count),
            'f' => self.end_at = Some(count),
            'z' => self.hang_at = Some(count),
            'h' => self.status = u16::try_from(number).ok().filter(|status| (200..600).contains(status)),
            'a' => self.retry_after = Some(count),
            'y' => self.write_each = number != 0,
            'v' => self.dimensions = count.clamp(1, 8192),
            'c' => self.cached = number,
            'k' => self.cache_write = number,
            'o' => self.reasoning = Some(count.min(MOST_TOKENS)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters() {
        let expected = Behaviour {
            tokens: 100,
            delay: Duration::from_millis(10),
            cut_at: Some(7),
            cached: 32,
            write_each: false,
            usage: UsageHabit::Silent,
            trouble: Some(Trouble::InvalidUtf8),
            ..Behaviour::default()
        };
        assert_eq!(Behaviour::of_model("some/gpt-fake-n100-d10000-e7-c32-u-i-y0"), expected);
        assert_eq!(Behaviour::of("n100-d10000-e7-c32-u-i-y0"), expected);
    }

    #[test]
    fn what_models_are_called_asks_for_nothing() {
        for model in [
            "gpt-6.1-sol",
            "o4-mini",
            "claude-opus-5-5",
            "claude-haiku-4-5-20251001",
            "gemini-3.1-pro-preview",
            "grok-4.7",
            "text-embedding-3-small",
            "dall-e-3",
            "gpt-image-1",
        ] {
            assert_eq!(Behaviour::of_model(model), Behaviour::default(), "{model}");
        }
    }
}
