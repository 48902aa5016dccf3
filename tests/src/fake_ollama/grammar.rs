//! Behaviour asked for by a model's name, such as `fake-n100-d10000-t50000`.

use std::time::Duration;

/// What a model named by the grammar does.
///
/// The name is cut at `/` (what stands before is dropped), then at `-` and `:`. Each piece `<letter><digits>` sets one
/// field; other pieces are ignored, so `babel-n20:latest` and `some/fake-n20` work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    /// n: tokens of the answer.
    pub(crate) tokens: u32,
    /// d: µs between tokens (the timer rounds up to 1 ms).
    pub(crate) delay: Duration,
    /// t: µs before the first token, and so before the headers.
    pub(crate) first: Duration,
    /// l: ms of loading before that.
    pub(crate) load: Duration,
    /// s: bytes of text in one token, at least.
    pub(crate) size: Option<usize>,
    /// e: cut the TCP connection after that many tokens.
    pub(crate) cut_at: Option<u32>,
    /// x: fail mid-stream after that many tokens.
    pub(crate) fail_at: Option<u32>,
    /// f: end the body without a final chunk after that many tokens.
    pub(crate) end_at: Option<u32>,
    /// z: after that many tokens keep the connection open and send nothing more.
    pub(crate) hang_at: Option<u32>,
    /// h: answer with that HTTP status at once.
    pub(crate) status: Option<u16>,
    /// y: 1 = one write per token even with no delay; 0 = let the server put several tokens into one write.
    pub(crate) write_each: bool,
    /// u: 1 = two writes per token, cut inside a UTF-8 character where there is one.
    pub(crate) split: bool,
    /// g: the last native line is at least that many KiB long, by its `context`.
    pub(crate) padding_kib: usize,
    /// v: embedding dimensions.
    pub(crate) dimensions: usize,
}

/// A name that asks for more tokens than this is not a test but an accident.
const MOST_BYTES: u64 = 64 << 20;

impl Default for Spec {
    fn default() -> Self {
        Self {
            tokens: 16,
            delay: Duration::ZERO,
            first: Duration::ZERO,
            load: Duration::ZERO,
            size: None,
            cut_at: None,
            fail_at: None,
            end_at: None,
            hang_at: None,
            status: None,
            write_each: true,
            split: false,
            padding_kib: 0,
            dimensions: 8,
        }
    }
}

impl Spec {
    pub(crate) fn parse(model: &str) -> Self {
        let mut spec = Self::default();
        let tail = model.rsplit('/').next().unwrap_or(model);
        for piece in tail.split(['-', ':']) {
            let mut letters = piece.chars();
            let Some(letter) = letters.next() else { continue };
            let Ok(number) = letters.as_str().parse::<u64>() else { continue };
            let count = u32::try_from(number).unwrap_or(u32::MAX);
            let bytes = number.min(MOST_BYTES) as usize;
            match letter {
                'n' => spec.tokens = count,
                'd' => spec.delay = Duration::from_micros(number),
                't' => spec.first = Duration::from_micros(number),
                'l' => spec.load = Duration::from_millis(number),
                's' => spec.size = Some(bytes.min(65_536)),
                'e' => spec.cut_at = Some(count),
                'x' => spec.fail_at = Some(count),
                'f' => spec.end_at = Some(count),
                'z' => spec.hang_at = Some(count),
                'h' => spec.status = u16::try_from(number).ok().filter(|status| (200..600).contains(status)),
                'y' => spec.write_each = number != 0,
                'u' => spec.split = number != 0,
                'g' => spec.padding_kib = bytes.min(65_536),
                'v' => spec.dimensions = bytes.clamp(1, 65_536),
                _ => {}
            }
        }
        spec
    }
}

/// Whether a name asks to be understood by this grammar without having been added.
pub(crate) fn is_spoken(model: &str) -> bool {
    let tail = model.rsplit('/').next().unwrap_or(model);
    tail.starts_with("fake") || tail.starts_with("babel")
}

/// Whether the answer is the benchmark's plain text: its load generator compares every byte with the name.
pub(crate) fn is_plain(model: &str, spec: &Spec) -> bool {
    model.rsplit('/').next().unwrap_or(model).starts_with("fake") && !spec.split
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters() {
        let spec = Spec::parse("some/fake-n100-d10000-t5-e7-l3-u1-g64-f2-y0:latest");
        let expected = Spec {
            tokens: 100,
            delay: Duration::from_millis(10),
            first: Duration::from_micros(5),
            load: Duration::from_millis(3),
            cut_at: Some(7),
            end_at: Some(2),
            write_each: false,
            split: true,
            padding_kib: 64,
            ..Spec::default()
        };
        assert_eq!(spec, expected);
        assert_eq!(Spec::parse("tiny:latest"), Spec::default());
        assert_eq!(Spec::parse("llama3.2:1b"), Spec::default());
    }

    #[test]
    fn names() {
        assert!(is_spoken("fake-n3") && is_spoken("x/babel-n3:latest") && !is_spoken("tiny-n3"));
        let plain = |name| is_plain(name, &Spec::parse(name));
        assert!(plain("fake-n3") && !plain("fake-n3-u1") && !plain("babel-n3"));
    }
}
