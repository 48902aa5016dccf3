#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the transcripts are files, and a measurement is printed"
)]

use std::{collections::BTreeSet, fs, path::Path};

use proptest::prelude::*;
use serde::Deserialize;
use wire::Content;

use super::*;
use crate::{Iteration, Tier, TokenUsage};

/// What a transcript's sibling says is to be read out of it. A field that it does not name is `None`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// Whose answer it was, for people: the same is read whoever said it.
    #[serde(rename = "kind")]
    _kind: String,
    endpoint: String,
    framing: String,
    ended: bool,
    failed: bool,
    words: String,
    usage: Option<Counts>,
    #[serde(default)]
    iterations: Vec<Counts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Counts {
    model: Option<String>,
    input: Option<u64>,
    cached: Option<u64>,
    cache_write_short: Option<u64>,
    cache_write_long: Option<u64>,
    input_audio: Option<u64>,
    input_image: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
    output_audio: Option<u64>,
    output_image: Option<u64>,
    searches: Option<u64>,
    upstream_cost_pico: Option<u64>,
    tier: Option<String>,
    fast: bool,
    us_only: bool,
}

impl Counts {
    fn tokens(&self) -> TokenUsage {
        TokenUsage {
            input: self.input,
            cached: self.cached,
            cache_write_short: self.cache_write_short,
            cache_write_long: self.cache_write_long,
            input_audio: self.input_audio,
            input_image: self.input_image,
            output: self.output,
            reasoning: self.reasoning,
            output_audio: self.output_audio,
            output_image: self.output_image,
            searches: self.searches,
            upstream_cost_pico: self.upstream_cost_pico,
            tier: self.tier.as_deref().map(|tier| match tier {
                "standard" => Tier::Standard,
                "flex" => Tier::Flex,
                "priority" => Tier::Priority,
                other => panic!("no tier {other}"),
            }),
            fast: self.fast,
            us_only: self.us_only,
        }
    }
}

fn endpoint(name: &str) -> Endpoint {
    match name {
        "chat" => Endpoint::OpenaiChat,
        "completions" => Endpoint::OpenaiCompletions,
        "embeddings" => Endpoint::OpenaiEmbeddings,
        "images" => Endpoint::OpenaiImages,
        "responses" => Endpoint::OpenaiResponses,
        "messages" => Endpoint::AnthropicMessages,
        "gemini-generate" => Endpoint::GeminiGenerate,
        "gemini-stream" => Endpoint::GeminiStreamGenerate,
        "gemini-embed" => Endpoint::GeminiEmbed,
        other => panic!("no endpoint {other}"),
    }
}

/// A reading that can be compared.
#[derive(Debug, PartialEq)]
struct Read {
    usage: Option<Usage>,
    ended: bool,
    failed: bool,
    characters: Characters,
    words: String,
}

fn read<'a>((shape, framing): (Shape, Framing), pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut tap = Tap::new(shape, framing, Words::Gather);
    pieces.into_iter().for_each(|piece| tap.read(piece));
    let reading = tap.reading();
    let words = reading.words.as_ref().map(Content::for_routing).unwrap_or_default();
    let words = String::from_utf8_lossy(words).into_owned();
    Read { usage: reading.usage, ended: reading.ended, failed: reading.failed, characters: reading.text, words }
}

#[test]
fn every_transcript_is_read_as_it_was_written_by_hand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let mut names = BTreeSet::new();
    for provider in fs::read_dir(&root).unwrap() {
        for file in fs::read_dir(provider.unwrap().path()).unwrap() {
            names.insert(file.unwrap().path());
        }
    }
    let bodies: Vec<_> = names.iter().filter(|path| path.extension().unwrap() == "txt").collect();
    assert!(bodies.len() > 60, "{}", bodies.len());
    assert_eq!(names.len(), 2 * bodies.len(), "a file of transcripts/ is nobody's sibling");
    for path in bodies {
        let case = path.strip_prefix(&root).unwrap().display();
        let body = fs::read(path).unwrap();
        let expected: Expected = serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
        let framing = match expected.framing.as_str() {
            "events" => Framing::Events,
            "json" => Framing::Json,
            other => panic!("no framing {other}"),
        };
        let form = (Shape::of(endpoint(&expected.endpoint)), framing);
        let whole = read(form, [body.as_slice()]);
        let usage = expected.usage.map(|whole| Usage {
            whole: whole.tokens(),
            iterations: expected
                .iterations
                .iter()
                .map(|turn| Iteration { model: turn.model.clone(), tokens: turn.tokens() })
                .collect(),
        });
        assert_eq!(whole.usage, usage, "{case}");
        assert_eq!((whole.ended, whole.failed), (expected.ended, expected.failed), "{case}");
        assert_eq!(whole.words, expected.words, "{case}");
        for at in 0..=body.len() {
            assert_eq!(read(form, [&body[..at], &body[at..]]), whole, "{case} cut at {at}");
        }
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(read(form, body.chunks(size)), whole, "{case} in pieces of {size}");
        }
    }
}

#[test]
fn a_document_of_megabytes_is_read_in_a_bounded_memory() {
    let mut tap = Tap::new(Shape::OpenaiImages, Framing::Json, Words::Leave);
    tap.read(br#"{"data":[{"b64_json":""#);
    let piece = vec![b'A'; 64 * 1024];
    (0..400).for_each(|_| tap.read(&piece));
    tap.read(br#""}],"usage":{"input_tokens":1,"output_tokens":2}}"#);
    let reading = tap.reading();
    let tokens = reading.usage.map(|usage| (usage.whole.input, usage.whole.output));
    assert_eq!((tokens, reading.ended), (Some((Some(1), Some(2))), true));
}

#[test]
fn words_beyond_the_bound_are_only_counted() {
    let mut tap = Tap::new(Shape::OpenaiChat, Framing::Events, Words::Gather);
    let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "a".repeat(100_000));
    (0..50).for_each(|_| tap.read(event.as_bytes()));
    let reading = tap.reading();
    assert_eq!(reading.text, Characters { ascii: 5_000_000, ..Characters::default() });
    assert_eq!(reading.words.map(|words| words.len()), Some(WORDS_BYTES));
}

#[test]
fn what_is_not_to_be_read_is_not() {
    let event = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n";
    for form in [(Shape::Silent, Framing::Events), (Shape::Silent, Framing::Json), (Shape::OpenaiChat, Framing::Opaque)] {
        let nothing = Read { usage: None, ended: false, failed: false, characters: Characters::default(), words: String::new() };
        assert_eq!(read(form, [&event[..]]), nothing);
    }
    let mut tap = Tap::new(Shape::OpenaiChat, Framing::Events, Words::Leave);
    tap.read(event);
    let reading = tap.reading();
    assert!(reading.words.is_none() && reading.ended && reading.text.ascii == 1);
    // Whoever asks again is told of what came since.
    assert!(tap.reading().usage.is_none());
}

#[test]
fn more_turns_than_are_priced_one_by_one() {
    let turns = vec![r#"{"input_tokens":1,"output_tokens":1}"#; 300].join(",");
    let body = format!(r#"{{"usage":{{"input_tokens":300,"output_tokens":300,"iterations":[{turns}]}}}}"#);
    let usage = read((Shape::Anthropic, Framing::Json), [body.as_bytes()]).usage.unwrap();
    assert_eq!((usage.whole.input, usage.iterations.len()), (Some(300), 0));
}

#[test]
fn a_reading_prints_no_words() {
    // A `Reading` with a `Debug` would not compile here: two impls would fit.
    trait Silent<A> {
        fn check() {}
    }
    impl<T> Silent<()> for T {}
    struct Printed;
    impl<T: std::fmt::Debug> Silent<Printed> for T {}
    <Reading as Silent<_>>::check();
    <Tap as Silent<_>>::check();
}

fn any_form() -> impl Strategy<Value = (Shape, Framing)> {
    let shape = prop::sample::select(vec![
        Shape::OpenaiChat,
        Shape::OpenaiResponses,
        Shape::OpenaiEmbeddings,
        Shape::OpenaiImages,
        Shape::Anthropic,
        Shape::Gemini,
        Shape::Silent,
    ]);
    (shape, prop::sample::select(vec![Framing::Events, Framing::Json, Framing::Opaque]))
}

fn cut<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    for size in sizes {
        let (piece, more) = rest.split_at((*size).min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    pieces.push(rest);
    pieces
}

proptest! {
    #[test]
    fn any_bytes_are_read_the_same_however_they_are_cut(
        form in any_form(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        sizes in prop::collection::vec(0usize..40, 0..20),
    ) {
        prop_assert_eq!(read(form, cut(&bytes, &sizes)), read(form, [bytes.as_slice()]));
    }

    #[test]
    fn broken_streams_are_read_the_same_however_they_are_cut(
        form in any_form(),
        parts in prop::collection::vec(prop::sample::select(vec![
            "data: ", "data:", "\n\n", "\n", "\r\n\r\n", "\r", ": c", "[DONE]", "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u00", "null", "-1",
            "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}", "\"usage\":", "\"usageMetadata\":{\"promptTokenCount\":2}",
            "\"choices\":[{\"delta\":{\"content\":\"", "\"type\":\"message_stop\"", "\"type\":\"error\"", "\"message\":{\"usage\":{\"input_tokens\":4}}",
            "\"error\":{}", "\"response\":{\"output\":[{\"type\":\"web_search_call\"}]}", "é", "中", "\u{feff}", "x",
        ]), 0..60),
        sizes in prop::collection::vec(0usize..12, 0..80),
    ) {
        let bytes = parts.concat();
        prop_assert_eq!(read(form, cut(bytes.as_bytes(), &sizes)), read(form, [bytes.as_bytes()]));
    }
}

/// Prints what the reader costs: `cargo test --release -p api-proxy -- --ignored --nocapture costs`.
#[test]
#[ignore = "measures"]
fn what_reading_costs() {
    let chat = r#"data: {"id":"chatcmpl-9aBcDeFgHiJkLmNoPqRsTuVwXyZ12","object":"chat.completion.chunk","created":1795000000,"model":"gpt-5.5-2026-03-01","service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"a1b2c3"}"#;
    let anthropic = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" token\"}}";
    let gemini = r#"data: {"candidates":[{"content":{"parts":[{"text":" token and some more of them"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":8,"candidatesTokenCount":5,"totalTokenCount":13,"promptTokensDetails":[{"modality":"TEXT","tokenCount":8}]},"modelVersion":"gemini-3.8-flash","responseId":"r"}"#;
    for (name, shape, event) in
        [("chat", Shape::OpenaiChat, chat), ("anthropic", Shape::Anthropic, anthropic), ("gemini", Shape::Gemini, gemini)]
    {
        let chunk = format!("{event}\n\n");
        for words in [Words::Leave, Words::Gather] {
            let mut tap = Tap::new(shape, Framing::Events, words);
            let mut best = f64::MAX;
            for _ in 0..10 {
                let start = std::time::Instant::now();
                (0..20_000).for_each(|_| tap.read(std::hint::black_box(chunk.as_bytes())));
                best = best.min(start.elapsed().as_nanos() as f64 / 20_000.0);
            }
            println!("{name} {words:?}: {best:.0} ns for an event of {} bytes", chunk.len());
        }
    }
    let image = format!(r#"{{"data":[{{"b64_json":"{}"}}],"usage":{{"input_tokens":1}}}}"#, "A".repeat(8 << 20));
    let numbers = format!(r#"{{"data":[{{"embedding":[{}0]}}],"usage":{{"prompt_tokens":1}}}}"#, "-0.012345,".repeat(800_000));
    for (name, shape, document) in [("image", Shape::OpenaiImages, &image), ("embeddings", Shape::OpenaiEmbeddings, &numbers)] {
        let start = std::time::Instant::now();
        let read = read((shape, Framing::Json), document.as_bytes().chunks(16 * 1024));
        assert!(read.usage.is_some());
        println!("{name}: {:.1} ms for {} bytes", start.elapsed().as_secs_f64() * 1e3, document.len());
    }
    let mut strip = crate::exact::Strip::default();
    let chunk = Bytes::from(format!("{chat}\n\n"));
    let start = std::time::Instant::now();
    (0..100_000).for_each(|_| drop(std::hint::black_box(strip.pass(chunk.clone()))));
    println!("strip: {} ns an event", start.elapsed().as_nanos() / 100_000);
}
