//! What is asked: a mixed list of requests, each a function of its number, with what it must cost where that can be known before.
//!
//! The fake's rule is written down here a second time, and so is the arithmetic of money: a test that asked the product for either
//! would find it right whatever it did.

use std::fmt::Write as _;

use journeys::fake_provider::{FakeProvider, Kind};
use serde_json::{Value, json};

/// What a token costs, in pico-USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Price {
    input: u64,
    cached: u64,
    written: u64,
    output: u64,
}

/// A model of the test's own. Its other names ask the fake for this or that.
struct Priced {
    id: &'static str,
    provider: &'static str,
    names: &'static [&'static str],
    price: Price,
}

const GPT: Price = Price { input: 2_500_000, cached: 250_000, written: 2_500_000, output: 15_000_001 };
const EMBED: Price = Price { input: 130_003, cached: 130_003, written: 130_003, output: 0 };
const CLAUDE: Price = Price { input: 3_000_000, cached: 300_007, written: 3_750_000, output: 15_000_000 };
const GEMINI: Price = Price { input: 300_000, cached: 30_000, written: 300_000, output: 2_500_000 };
/// Dearer than what xAI says that it charges: a price that the operator names goes before xAI's word.
const GROK: Price = Price { input: 2_500_000, cached: 700_000, written: 2_500_000, output: 7_000_000 };
const AZURE: Price = Price { input: 1_100_000, cached: 275_000, written: 1_100_000, output: 4_400_000 };
const ODD: Price = Price { input: 500_000, cached: 500_000, written: 500_000, output: 1_500_000 };

const MODELS: [Priced; 7] = [
    Priced {
        id: "gpt-storm",
        provider: "openai",
        names: &["gpt-storm-n3", "gpt-storm-n12-c8", "gpt-storm-o5-n9", "gpt-storm-n25-d4000", "gpt-storm-n2-t60000"],
        price: GPT,
    },
    Priced { id: "embed-storm", provider: "openai", names: &[], price: EMBED },
    Priced {
        id: "claude-storm",
        provider: "anthropic",
        names: &["claude-storm-n7", "claude-storm-n5-c6-k4", "claude-storm-n20-d4000"],
        price: CLAUDE,
    },
    Priced {
        id: "gemini-storm",
        provider: "google",
        names: &["gemini-storm-n6", "gemini-storm-o4-n8-c5", "gemini-storm-n20-d4000"],
        price: GEMINI,
    },
    Priced { id: "grok-storm", provider: "xai", names: &["grok-storm-n5", "grok-storm-o3-n4-c7"], price: GROK },
    Priced { id: "azure-storm", provider: "azure", names: &[], price: AZURE },
    Priced {
        id: "odd-storm",
        provider: "odd",
        names: &[
            "odd-storm-h400",
            "odd-storm-h429-a1",
            "odd-storm-h500",
            "odd-storm-e0",
            "odd-storm-e2",
            "odd-storm-x3",
            "odd-storm-f2",
            "odd-storm-g",
            "odd-storm-u-n6",
        ],
        price: ODD,
    },
];

/// The Lab's configuration: every model of the test, each provider the fake's.
pub(super) fn configuration(fake: &FakeProvider) -> String {
    let mut text = "[admin]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    let providers = [
        ("openai", "openai", Kind::Openai),
        ("anthropic", "anthropic", Kind::Anthropic),
        ("google", "gemini", Kind::Gemini),
        ("xai", "xai", Kind::Xai),
        ("azure", "azure-deployments", Kind::Azure),
        ("odd", "openai-compatible", Kind::Compatible),
    ];
    for (name, kind, of) in providers {
        let deployments = if of == Kind::Azure { "deployments = { \"azure-storm\" = \"azure-storm-n4\" }\n" } else { "" };
        write!(
            text,
            "[[providers]]\nname = \"{name}\"\n[[providers.channels]]\nname = \"{name}-1\"\nkind = \"{kind}\"\nbase_url = \"{}\"\n\
             secret = {{ file = \"{name}.secret\" }}\n{deployments}",
            fake.url(of)
        )
        .unwrap();
    }
    let usd = |pico: u64| format!("\"{}.{:06}\"", pico / 1_000_000, pico % 1_000_000);
    for Priced { id, provider, names, price } in MODELS {
        let output = if price.output == 0 { String::new() } else { format!(", output = {}", usd(price.output)) };
        write!(
            text,
            "[[models]]\nid = \"{id}\"\nprovider = \"{provider}\"\naliases = {names:?}\nmax_input = 100000\nmax_output = {}\n\
             usd_per_mtok = {{ input = {}, cached = {}, cache_write_short = {}{output} }}\n",
            if price.output == 0 { 0 } else { 4096 },
            usd(price.input),
            usd(price.cached),
            usd(price.written),
        )
        .unwrap();
    }
    text
}

/// The files in which the secrets lie.
pub(super) const SECRETS: [(&str, Kind); 6] = [
    ("openai", Kind::Openai),
    ("anthropic", Kind::Anthropic),
    ("google", Kind::Gemini),
    ("xai", Kind::Xai),
    ("azure", Kind::Azure),
    ("odd", Kind::Compatible),
];

/// Tokens, each counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tokens {
    plain: u64,
    cached: u64,
    written: u64,
    output: u64,
}

impl Tokens {
    pub(super) fn input(&self) -> i64 {
        (self.plain + self.cached + self.written).cast_signed()
    }

    pub(super) fn output(&self) -> i64 {
        self.output.cast_signed()
    }
}

impl Price {
    /// Nano-USD, half up.
    fn of(&self, tokens: &Tokens) -> i64 {
        let pico =
            tokens.plain * self.input + tokens.cached * self.cached + tokens.written * self.written + tokens.output * self.output;
        ((pico + 500) / 1000).cast_signed()
    }

    /// What counts of which nothing more is known cost: plain ones.
    pub(super) fn of_counts(&self, input: i64, output: i64) -> i64 {
        self.of(&Tokens { plain: input.cast_unsigned(), output: output.cast_unsigned(), ..Tokens::default() })
    }
}

/// Under whose key it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Guest {
    /// The funded person's first project.
    Plain,
    /// Their second, in which streams are asked for their usage.
    Exact,
    /// May spend a little in a day.
    Daily,
    /// May spend a little altogether.
    Limited,
    /// May ask for Claude only.
    Narrow,
    /// Another person, who never paid.
    Trial,
    /// May read usage and nothing else.
    Reader,
    /// A key that was revoked.
    Revoked,
    /// No key.
    Nobody,
}

/// What is to be said about a request that was answered whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// The provider's count, to the token, and this price of it.
    Exact(Tokens, i64),
    /// The Lab's own count; the price is made from it.
    Estimated(Price),
    /// It costs nothing.
    Free,
    /// It comes to nothing, with a record and this code.
    Refused(&'static str),
    /// It is not let in, and has no record.
    Outside,
    /// Its provider is broken: a record, whatever it says.
    Odd,
}

/// For how long the client waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// To the end.
    Whole,
    /// So many milliseconds, whatever has come by then.
    Millis(u64),
    /// Until so many pieces have come.
    Pieces(u32),
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Course {
    pub(super) guest: Guest,
    pub(super) path: String,
    /// None for what is only looked at.
    pub(super) body: Option<String>,
    pub(super) expected: Expected,
    pub(super) patience: Patience,
}

/// Numbers that look like chance and are the same each time.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Less than `below`.
    pub(super) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// The request of that number.
pub(super) fn course(number: u64) -> Course {
    let mut dice = Dice::new(number.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let words = format!("{number} {}", "word ".repeat(dice.roll(40) as usize));
    let mut course = match dice.roll(100) {
        0..6 => refused(&mut dice, &words),
        6..10 => outside(&mut dice, &words),
        10..16 => looked_at(&mut dice, &words),
        16..22 => odd(&mut dice, &words),
        22..26 => slow(&mut dice, &words),
        _ => usual(&mut dice, &words),
    };
    if course.guest == Guest::Plain && matches!(course.expected, Expected::Exact(..) | Expected::Estimated(_)) {
        course.guest = match dice.roll(20) {
            0 => Guest::Daily,
            1 => Guest::Limited,
            2 if course.path == "/v1/messages" => Guest::Narrow,
            3 => Guest::Trial,
            // Where its streams are asked for their usage, the Lab's own count is not what comes out.
            4..10 if matches!(course.expected, Expected::Exact(..)) => Guest::Exact,
            _ => Guest::Plain,
        };
    }
    course
}

fn post(path: &str, body: &Value, expected: Expected) -> Course {
    Course { guest: Guest::Plain, path: path.to_owned(), body: Some(body.to_string()), expected, patience: Patience::Whole }
}

/// Four bytes of text are a token, begun ones count.
fn prompt(words: &str) -> u64 {
    (words.len() as u64).div_ceil(4)
}

/// What the fake's letters say that an answer to these words uses.
fn tokens(words: &str, cached: u64, written: u64, output: u64) -> Tokens {
    let all = prompt(words);
    let cached = cached.min(all);
    let written = written.min(all - cached);
    Tokens { plain: all - cached - written, cached, written, output }
}

fn exact(price: Price, tokens: Tokens) -> Expected {
    Expected::Exact(tokens, price.of(&tokens))
}

fn user(words: &str) -> Value {
    json!([{"role": "user", "content": words}])
}

fn usual(dice: &mut Dice, words: &str) -> Course {
    let stream = dice.roll(2) == 0;
    let streamed = |body: &mut Value| {
        if stream {
            body["stream"] = true.into();
            body["stream_options"] = json!({"include_usage": true});
        }
    };
    match dice.roll(12) {
        0..3 => {
            let (name, counts) = [
                ("gpt-storm-n3", tokens(words, 0, 0, 3)),
                ("gpt-storm-n12-c8", tokens(words, 8, 0, 12)),
                ("gpt-storm-o5-n9", tokens(words, 0, 0, 14)),
            ][dice.roll(3) as usize];
            let mut body = json!({"model": name, "messages": user(words), "max_completion_tokens": 50});
            streamed(&mut body);
            post("/v1/chat/completions", &body, exact(GPT, counts))
        }
        3 => {
            // A stream that nobody asks for its usage.
            let mut body = json!({"model": "gpt-storm-n12-c8", "messages": user(words), "max_completion_tokens": 500});
            body["stream"] = true.into();
            let course = post("/v1/chat/completions", &body, Expected::Estimated(GPT));
            if dice.roll(2) == 0 {
                return course;
            }
            Course { guest: Guest::Exact, expected: exact(GPT, tokens(words, 8, 0, 12)), ..course }
        }
        4 => {
            let mut body = json!({"model": "gpt-storm-n3", "input": words, "max_output_tokens": 40});
            body["stream"] = stream.into();
            post("/v1/responses", &body, exact(GPT, tokens(words, 0, 0, 3)))
        }
        5 => {
            let body = json!({"model": "embed-storm", "input": words});
            post("/v1/embeddings", &body, exact(EMBED, tokens(words, 0, 0, 0)))
        }
        6..8 => {
            let (name, counts) = [("claude-storm-n7", tokens(words, 0, 0, 7)), ("claude-storm-n5-c6-k4", tokens(words, 6, 4, 5))]
                [dice.roll(2) as usize];
            let body = json!({"model": name, "messages": user(words), "max_tokens": 50, "stream": stream});
            post("/v1/messages", &body, exact(CLAUDE, counts))
        }
        8..10 => {
            let (name, counts) = [("gemini-storm-n6", tokens(words, 0, 0, 6)), ("gemini-storm-o4-n8-c5", tokens(words, 5, 0, 12))]
                [dice.roll(2) as usize];
            let verb = ["generateContent", "streamGenerateContent?alt=sse", "streamGenerateContent"][dice.roll(3) as usize];
            let mut config = json!({"maxOutputTokens": 50});
            if name.contains("-o4") {
                // Thoughts are told of to those only who want some.
                config["thinkingConfig"] = json!({"includeThoughts": false});
            }
            let body = json!({"contents": [{"role": "user", "parts": [{"text": words}]}], "generationConfig": config});
            post(&format!("/v1beta/models/{name}:{verb}"), &body, exact(GEMINI, counts))
        }
        10 => {
            let (name, counts) =
                [("grok-storm-n5", tokens(words, 0, 0, 5)), ("grok-storm-o3-n4-c7", tokens(words, 7, 0, 7))][dice.roll(2) as usize];
            let mut body = json!({"model": name, "messages": user(words), "max_tokens": 50});
            streamed(&mut body);
            post("/v1/chat/completions", &body, exact(GROK, counts))
        }
        _ => {
            let mut body = json!({"messages": user(words), "max_tokens": 50});
            streamed(&mut body);
            let path = "/openai/deployments/azure-storm/chat/completions?api-version=2024-10-21";
            post(path, &body, exact(AZURE, tokens(words, 0, 0, 4)))
        }
    }
}

/// What takes its time, and is often given up before its end.
fn slow(dice: &mut Dice, words: &str) -> Course {
    let mut course = match dice.roll(4) {
        0 => {
            let body = json!({"model": "gpt-storm-n25-d4000", "messages": user(words), "stream": true, "max_tokens": 60,
                "stream_options": {"include_usage": true}});
            post("/v1/chat/completions", &body, exact(GPT, tokens(words, 0, 0, 25)))
        }
        1 => {
            let body = json!({"model": "gpt-storm-n2-t60000", "messages": user(words), "max_tokens": 60});
            post("/v1/chat/completions", &body, exact(GPT, tokens(words, 0, 0, 2)))
        }
        2 => {
            let body = json!({"model": "claude-storm-n20-d4000", "messages": user(words), "max_tokens": 50, "stream": true});
            post("/v1/messages", &body, exact(CLAUDE, tokens(words, 0, 0, 20)))
        }
        _ => {
            let body = json!({"contents": [{"role": "user", "parts": [{"text": words}]}]});
            let path = "/v1beta/models/gemini-storm-n20-d4000:streamGenerateContent?alt=sse";
            post(path, &body, exact(GEMINI, tokens(words, 0, 0, 20)))
        }
    };
    course.patience = match dice.roll(4) {
        0 => Patience::Millis(dice.roll(50)),
        1 => Patience::Pieces(1 + dice.roll(5) as u32),
        _ => Patience::Whole,
    };
    course
}

/// From a provider that is never well. It has a channel of its own, so that its failures are nobody else's.
fn odd(dice: &mut Dice, words: &str) -> Course {
    let names = MODELS[6].names;
    let name = names[dice.roll(names.len() as u64) as usize];
    let body = json!({"model": name, "messages": user(words), "max_tokens": 50, "stream": dice.roll(2) == 0});
    post("/v1/chat/completions", &body, Expected::Odd)
}

/// What is free: lists and counts.
fn looked_at(dice: &mut Dice, words: &str) -> Course {
    if dice.roll(2) == 0 {
        let body = json!({"model": "claude-storm-n7", "messages": user(words)});
        return post("/v1/messages/count_tokens", &body, Expected::Free);
    }
    let path = ["/v1/models", "/v1beta/models", "/api/tags", "/v1/models/gpt-storm"][dice.roll(4) as usize];
    Course { body: None, ..post(path, &Value::Null, Expected::Free) }
}

/// Let in, and refused for what is asked.
fn refused(dice: &mut Dice, words: &str) -> Course {
    let chat = |model: &str| json!({"model": model, "messages": user(words)});
    match dice.roll(5) {
        0 => post("/v1/chat/completions", &chat("there-is-none"), Expected::Refused("model_not_found")),
        1 => post("/v1/chat/completions", &chat("local/llama"), Expected::Refused("bridge_offline")),
        2 => Course {
            body: Some(format!("{{\"model\": \"gpt-storm\", \"messages\": \"{words}")),
            ..post("/v1/chat/completions", &Value::Null, Expected::Refused("invalid_body"))
        },
        3 => Course {
            guest: Guest::Narrow,
            ..post("/v1/chat/completions", &chat("gpt-storm-n3"), Expected::Refused("model_not_allowed"))
        },
        _ => post("/api/chat", &chat("llama"), Expected::Refused("bridge_offline")),
    }
}

/// Not let in at all.
fn outside(dice: &mut Dice, words: &str) -> Course {
    let guest = [Guest::Reader, Guest::Revoked, Guest::Nobody][dice.roll(3) as usize];
    let body = json!({"model": "gpt-storm-n3", "messages": user(words)});
    Course { guest, ..post("/v1/chat/completions", &body, Expected::Outside) }
}
