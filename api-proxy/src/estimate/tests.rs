use bytes::Bytes;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::{
    Usage,
    tap::{Framing, Shape, Tap, Words},
};

/// Texts of many kinds with their tokens, as another implementation (`tiktoken-rs` 0.12.1) counts them.
#[derive(Deserialize)]
struct Text {
    name: String,
    o200k: u64,
    cl100k: u64,
    text: String,
}

fn texts() -> Vec<Text> {
    serde_json::from_str(include_str!("texts.json")).unwrap()
}

fn content(json: &serde_json::Value) -> Content {
    Bytes::from(json.to_string()).into()
}

fn input(endpoint: Endpoint, model: &str, request: &serde_json::Value) -> u64 {
    counted(endpoint, model, &content(request), &Reading::default()).input.unwrap()
}

#[test]
fn texts_have_the_tokens_that_another_tokenizer_counts() {
    for text in texts() {
        for (model, expected) in [("gpt-6-sol", text.o200k), ("gpt-4o", text.o200k), ("openai/gpt-4.1", text.o200k)] {
            assert_eq!(tokenizer(model).count(text.text.as_str()) as u64, expected, "{}", text.name);
        }
        for model in ["gpt-3.5-turbo", "gpt-4-turbo", "gpt-4", "text-embedding-3-small"] {
            assert_eq!(tokenizer(model).count(text.text.as_str()) as u64, text.cl100k, "{}", text.name);
        }
    }
}

#[test]
fn a_streamed_answer_without_usage_is_counted_as_if_it_had_come_whole() {
    let request = content(&json!({"messages": [{"role": "user", "content": "Hello!"}]}));
    for text in texts() {
        for escaped in [false, true] {
            let mut tap = Tap::new(Shape::OpenaiChat, Framing::Events, Words::Gather);
            let characters: Vec<char> = text.text.chars().collect();
            for piece in characters.chunks(3) {
                let mut piece = serde_json::to_string(&piece.iter().collect::<String>()).unwrap();
                if escaped {
                    let units =
                        |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
                    piece = piece.chars().map(|c| if c.is_ascii() { c.to_string() } else { units(c) }).collect();
                }
                tap.read(format!("data: {{\"choices\":[{{\"delta\":{{\"content\":{piece}}}}}]}}\n\n").as_bytes());
            }
            tap.read(b"data: [DONE]\n\n");
            let usage = counted(Endpoint::OpenaiChat, "gpt-5.5", &request, &tap.reading());
            assert_eq!((usage.input, usage.output), (Some(9), Some(text.o200k)), "{}", text.name);
        }
    }
}

#[test]
fn prompts_have_the_tokens_that_openai_says() {
    // The example of OpenAI's API reference, which has 19 there.
    let hello =
        json!({"messages": [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "Hello!"}]});
    assert_eq!(input(Endpoint::OpenaiChat, "gpt-4o", &hello), 19);
    // The example of OpenAI's cookbook on counting tokens, which has 101 there for gpt-4o.
    let weather = json!({
        "messages": [
            {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
            {"role": "user", "content": "What's the weather like in San Francisco?"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": {"type": "object", "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {"type": "string", "description": "The unit of temperature to return", "enum": ["celsius", "fahrenheit"]},
            }, "required": ["location"]},
        }}],
    });
    assert_eq!(input(Endpoint::OpenaiChat, "gpt-4o", &weather), 101);
}

#[test]
fn every_kind_of_request_has_its_words_counted() {
    use Endpoint as E;
    let parts = json!([{"type": "text", "text": "Hello!"}]);
    let image = |detail: &str| json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": detail}});
    for (endpoint, request, expected) in [
        (E::OpenaiChat, json!({"messages": [{"role": "user", "content": parts}]}), 9),
        (E::OpenaiChat, json!({"messages": [{"role": "user", "name": "Bob", "content": "Hello!"}]}), 11),
        (E::OpenaiChat, json!({"messages": [{"role": "user", "content": [image("low"), image("high")]}]}), 7 + 85 + 765),
        (
            E::OpenaiChat,
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "call_xyz", "type": "function", "function": {"name": "Hello", "arguments": "{}"}}]}]}),
            3 + 1 + 1 + 1 + 3,
        ),
        (E::OpenaiCompletions, json!({"prompt": ["Hello!", "Hello!"]}), 4),
        (E::OpenaiCompletions, json!({"prompt": [[1, 2, 3], [4]]}), 4),
        (E::OpenaiEmbeddings, json!({"input": "Hello!"}), 2),
        (E::OpenaiEmbeddings, json!({"input": ["Hello!", "Hello!"], "user": "somebody"}), 4),
        (E::OpenaiEmbeddings, json!({"input": [[15339, 0, 12], [7]]}), 4),
        (E::OpenaiResponses, json!({"input": "Hello!", "instructions": "Hello!"}), 7),
        (E::OpenaiResponses, json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hello!"}]}]}), 9),
        (E::OpenaiImages, json!({"prompt": "Hello!", "n": 1}), 2),
        (E::AnthropicMessages, json!({"system": "Hello!", "messages": [{"role": "user", "content": parts}]}), 11),
        (
            E::GeminiGenerate,
            json!({"contents": [{"role": "user", "parts": [{"text": "Hello!"}]}], "systemInstruction": {"parts": [{"text": "Hello!"}]}}),
            4,
        ),
        (E::GeminiEmbed, json!({"content": {"parts": [{"text": "Hello!"}]}}), 2),
        (
            E::GeminiBatchEmbed,
            json!({"requests": [{"content": {"parts": [{"text": "Hello!"}]}}, {"content": {"parts": [{"text": "Hello!"}]}}]}),
            4,
        ),
        (E::OllamaChat, json!({"messages": [{"role": "user", "content": "Hello!"}]}), 0),
    ] {
        assert_eq!(input(endpoint, "gpt-4o", &request), expected, "{request}");
    }
    let claude = json!({"messages": [{"role": "user", "content": "Hello!"}]});
    assert_eq!(input(E::AnthropicMessages, "claude-opus-5-5", &claude), 9 * 6 / 5);
}

#[test]
fn a_body_of_megabytes_is_counted_in_parts() {
    let text = "The quick brown fox. ".repeat(500_000);
    let one = tokenizer("gpt-5.5").count(" The quick brown fox.") as u64;
    let tokens = input(Endpoint::OpenaiChat, "gpt-5.5", &json!({"messages": [{"role": "user", "content": text}]}));
    let expected = one * 500_000;
    assert!(tokens.abs_diff(expected) * 1000 < expected, "{tokens} {expected}");
}

#[test]
fn no_body_makes_it_fail() {
    for body in [
        "",
        "null",
        "{",
        "[[[[",
        r#"{"messages":1}"#,
        r#"{"messages":[{"role":"\ud800","content":"\u"}],"tools":[{"function":{"parameters":{"properties":3}}}]}"#,
    ] {
        for endpoint in Endpoint::ALL {
            counted(endpoint, "", &Bytes::from(body).into(), &Reading::default());
        }
    }
}

#[test]
fn a_guess_is_on_the_callers_side_and_keeps_what_was_told() {
    for text in texts() {
        let mut tap = Tap::new(Shape::OpenaiChat, Framing::Events, Words::Leave);
        tap.read(format!("data: {}\n\n", json!({"choices": [{"delta": {"content": text.text}}]})).as_bytes());
        let usage = guessed(1004, &tap.reading());
        assert_eq!(usage.input, Some(200));
        let (guess, real) = (usage.output.unwrap(), text.o200k);
        assert!(guess <= real && guess * 9 > real, "{}: {guess} of {real}", text.name);
    }
    let told = |whole| Reading { usage: Some(Usage { whole, iterations: Vec::new() }), ..Reading::default() };
    let zero = TokenUsage { input: Some(0), output: Some(0), ..TokenUsage::default() };
    assert_eq!(guessed(1000, &told(zero)), zero);
    let cached = TokenUsage { cached: Some(7), ..TokenUsage::default() };
    assert_eq!(guessed(1000, &told(cached)), TokenUsage { output: Some(0), ..cached });
    assert_eq!(counted(Endpoint::OpenaiChat, "gpt-4o", &Content::default(), &told(zero)), zero);
}

#[test]
fn no_text_has_more_tokens_than_its_bound() {
    for text in texts() {
        let repeated = text.text.repeat(200_000 / text.text.len());
        for request in [
            json!({"messages": [{"role": "user", "content": repeated}]}).to_string(),
            json!({"input": text.text, "tools": []}).to_string(),
        ] {
            let most = most_input(request.as_bytes());
            for tokenizer in [bpe_openai::o200k_base(), bpe_openai::cl100k_base()] {
                let tokens =
                    tokenizer.count(serde_json::from_str::<serde_json::Value>(&request).unwrap().to_string().as_str()) as u64;
                assert!(most >= tokens, "{}: {most} < {tokens}", text.name);
            }
        }
    }
}

#[test]
fn what_lies_elsewhere_has_no_bound_and_a_picture_has_its_own() {
    for request in [
        r#"{"previous_response_id":"resp_1","input":"a"}"#,
        r#"{"cachedContent":"cachedContents/1"}"#,
        r#"{"parts":[{"fileData":{"fileUri":"files/1"}}]}"#,
        r#"{"content":[{"type":"document","source":{"type":"url","url":"https://example.com/a.pdf"}}]}"#,
    ] {
        assert_eq!(most_input(request.as_bytes()), u64::MAX, "{request}");
    }
    // Words about them are no more than words.
    assert!(most_input(json!({"prompt": r#"what is "previous_response_id"?"#}).to_string().as_bytes()) < 100);
    assert_eq!(most_input(br#"{"tools":[]}"#) - most_input(br#"{"toolx":[]}"#), 500);
    for (with, without) in [
        (
            r#"[{"type":"image_url","image_url":{"url":"https://a/"}}]"#,
            r#"[{"type":"image_urx","image_urx":{"url":"https://a/"}}]"#,
        ),
        (
            r#"[{"type":"image","source":{"type":"url","url":"https://a/"}}]"#,
            r#"[{"type":"imagx","source":{"type":"url","url":"https://a/"}}]"#,
        ),
    ] {
        assert_eq!(most_input(with.as_bytes()) - most_input(without.as_bytes()), 5_000);
    }
}

proptest! {
    #[test]
    fn no_mixture_has_more_tokens_than_its_bound(
        picks in prop::collection::vec((0usize..18, 0usize..400, 0usize..60), 1..30),
        joint in prop::sample::select(vec!["", " ", "\n", "\t", "  ", ", "]),
    ) {
        let texts = texts();
        let pieces = picks.iter().map(|(which, from, length)| {
            texts[which % texts.len()].text.chars().skip(*from).take(*length).collect::<String>()
        });
        let text = pieces.collect::<Vec<_>>().join(joint);
        let request = json!({"messages": [{"role": "user", "content": text}]});
        let most = most_input(request.to_string().as_bytes());
        for model in ["gpt-5.5", "gpt-4", "claude-opus-5-5"] {
            let tokens = input(Endpoint::OpenaiChat, model, &request);
            prop_assert!(most >= tokens, "{} < {}", most, tokens);
        }
    }
}
