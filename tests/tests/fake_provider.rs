//! The fake providers against what is documented of the real ones: literal shapes, and the faults that a test can ask for.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::time::{Duration, Instant};

use journeys::fake_provider::{Behaviour, Certificate, FakeProvider, Kind, Outcome};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Twelve bytes of UTF-8, and so three tokens.
const QUESTION: &str = "où ? déjà";

fn client() -> Client {
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// A request with the provider's key, where it wants it.
fn request(fake: &FakeProvider, kind: Kind, method: Method, path: &str) -> RequestBuilder {
    let request = client().request(method, fake.url(kind) + path);
    let key = fake.key(kind);
    match kind {
        Kind::Anthropic => request.header("x-api-key", key).header("anthropic-version", "2023-06-01"),
        Kind::Gemini if !path.starts_with("/v1beta/openai") => request.header("x-goog-api-key", key),
        Kind::Azure => request.header("api-key", key),
        _ => request.header("authorization", format!("Bearer {key}")),
    }
}

async fn post(fake: &FakeProvider, kind: Kind, path: &str, body: &Value) -> Response {
    request(fake, kind, Method::POST, path).body(body.to_string()).send().await.unwrap()
}

async fn json_of(fake: &FakeProvider, kind: Kind, path: &str, body: &Value) -> Value {
    let response = post(fake, kind, path, body).await;
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

async fn text_of(fake: &FakeProvider, kind: Kind, path: &str, body: &Value) -> String {
    let response = post(fake, kind, path, body).await;
    assert_eq!(response.status(), 200, "{path}");
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    response.text().await.unwrap()
}

/// The data of an SSE stream, `[DONE]` as a string; a name must be the data's own type.
fn events(body: &str) -> Vec<Value> {
    let body = body.replace("\r\n", "\n");
    assert!(body.ends_with("\n\n"), "the last event has its end");
    let parse = |data: &str| serde_json::from_str(data).unwrap_or_else(|_| data.into());
    body.split_terminator("\n\n")
        .map(|event| match event.split_once('\n') {
            Some((name, data)) => {
                let data: Value = parse(data.strip_prefix("data: ").unwrap());
                assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
                data
            }
            None => parse(event.strip_prefix("data: ").unwrap()),
        })
        .collect()
}

fn with(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn chat(model: &str, more: Value) -> Value {
    with(json!({"model": model, "messages": [{"role": "user", "content": QUESTION}]}), more)
}

fn message(model: &str, more: Value) -> Value {
    with(json!({"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": QUESTION}]}), more)
}

fn contents(more: Value) -> Value {
    with(json!({"contents": [{"role": "user", "parts": [{"text": QUESTION}]}]}), more)
}

fn weather() -> Value {
    json!({"type": "object", "properties": {"town": {"enum": ["Tōkyō"]}}})
}

#[tokio::test]
async fn openai_chat_whole() {
    let fake = FakeProvider::start(Kind::Openai);
    let response = post(&fake, Kind::Openai, "/v1/chat/completions", &chat("gpt-fake-n2-c2", json!({}))).await;
    assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
    assert_eq!(response.headers()["openai-organization"], "fake-organization");
    assert_eq!(response.headers()["x-ratelimit-remaining-requests"], "9999");
    let body = response.text().await.unwrap();
    assert!(body.starts_with("{\n  \"id\": \"chatcmpl-"), "as OpenAI lays it out: {body}");
    let mut answer: Value = serde_json::from_str(&body).unwrap();
    let text = answer["choices"][0]["message"]["content"].take();
    assert!(text.as_str().unwrap().starts_with("« où ? déjà » :"));
    answer["id"].take();
    assert_eq!(
        answer,
        json!({
            "id": null, "object": "chat.completion", "created": 1_767_323_045, "model": "gpt-fake-n2-c2",
            "choices": [{"index": 0,
                "message": {"role": "assistant", "content": null, "refusal": null, "annotations": []},
                "finish_reason": "stop", "logprobs": null}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0}},
            "service_tier": "default", "system_fingerprint": "fp_fake000000",
        })
    );
}

#[tokio::test]
async fn openai_chat_streamed_is_what_it_is_whole() {
    let fake = FakeProvider::start(Kind::Openai);
    let path = "/v1/chat/completions";
    let whole = json_of(&fake, Kind::Openai, path, &chat("gpt-fake", json!({"n": 2}))).await;
    let ask = |options: Value| chat("gpt-fake", json!({"n": 2, "stream": true, "stream_options": options}));
    let with_usage = events(&text_of(&fake, Kind::Openai, path, &ask(json!({"include_usage": true}))).await);
    let (done, chunks) = with_usage.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let (last, rest) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
    assert!(rest.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)), "null on every other chunk");
    assert!(rest.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == whole["id"]));
    for choice in [0, 1] {
        let deltas = rest.iter().filter(|chunk| chunk["choices"][0]["index"] == choice);
        let text: String = deltas.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(whole["choices"][choice]["message"]["content"], text);
    }
    assert_ne!(whole["choices"][0]["message"], whole["choices"][1]["message"]);
    assert_eq!(whole["usage"]["completion_tokens"], 32);
    for options in [Value::Null, json!({"include_usage": false})] {
        let without = events(&text_of(&fake, Kind::Openai, path, &ask(options)).await);
        assert_eq!(without.len(), with_usage.len() - 1);
        assert!(without.iter().all(|chunk| chunk.get("usage").is_none()));
    }
}

#[tokio::test]
async fn openai_reasons_calls_and_is_cut_short() {
    let fake = FakeProvider::start(Kind::Openai);
    let ask = async |more: Value| json_of(&fake, Kind::Openai, "/v1/chat/completions", &chat("gpt-fake", more)).await;
    let thought = ask(json!({"reasoning_effort": "low", "service_tier": "fast"})).await;
    assert_eq!(thought["usage"]["completion_tokens"], 22);
    assert_eq!(thought["usage"]["completion_tokens_details"]["reasoning_tokens"], 6);
    assert_eq!(thought["service_tier"], "priority");
    let short = ask(json!({"max_completion_tokens": 7, "reasoning_effort": "low"})).await;
    assert_eq!((&short["choices"][0]["finish_reason"], &short["usage"]["completion_tokens"]), (&json!("length"), &json!(7)));
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": weather()}}]);
    let called = ask(json!({"tools": tools})).await;
    assert_eq!(called["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(called["choices"][0]["message"]["content"], Value::Null);
    let call = &called["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["function"], json!({"name": "weather", "arguments": "{\"town\":\"Tōkyō\"}"}));
    // Three tokens of text, eight for the tool; eight for the call.
    assert_eq!((&called["usage"]["prompt_tokens"], &called["usage"]["completion_tokens"]), (&json!(11), &json!(8)));
    let body = chat("gpt-fake", json!({"tools": tools, "stream": true}));
    let chunks = events(&text_of(&fake, Kind::Openai, "/v1/chat/completions", &body).await);
    let deltas = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str());
    assert_eq!(deltas.collect::<String>(), "{\"town\":\"Tōkyō\"}");
}

#[tokio::test]
async fn responses_count_their_events() {
    let fake = FakeProvider::start(Kind::Openai);
    let ask = |more: Value| with(json!({"model": "gpt-fake-n2-k1", "input": QUESTION}), more);
    let reasoning = json!({"reasoning": {"effort": "low", "summary": "auto"}});
    let whole = json_of(&fake, Kind::Openai, "/v1/responses", &ask(reasoning.clone())).await;
    assert_eq!(
        whole["usage"],
        json!({"input_tokens": 3, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 1,
                "cache_write_tokens_details": {"ttl_30m_tokens": 1, "ttl_12h_tokens": 0}},
            "output_tokens": 8, "output_tokens_details": {"reasoning_tokens": 6}, "total_tokens": 11})
    );
    let kinds: Vec<&Value> = whole["output"].as_array().unwrap().iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["reasoning", "message"]);
    let body = with(ask(reasoning), json!({"stream": true}));
    let events = events(&text_of(&fake, Kind::Openai, "/v1/responses", &body).await);
    assert!(events.iter().enumerate().all(|(number, event)| event["sequence_number"] == number));
    assert_eq!((&events[0]["type"], &events[1]["type"]), (&json!("response.created"), &json!("response.in_progress")));
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"], whole);
    let deltas = |kind: &str| {
        events.iter().filter(|event| event["type"] == kind).filter_map(|event| event["delta"].as_str()).collect::<String>()
    };
    assert_eq!(whole["output"][1]["content"][0]["text"], deltas("response.output_text.delta"));
    assert_eq!(whole["output"][0]["summary"][0]["text"], deltas("response.reasoning_summary_text.delta"));
    let short = json_of(&fake, Kind::Openai, "/v1/responses", &ask(json!({"max_output_tokens": 1}))).await;
    assert_eq!((&short["status"], &short["incomplete_details"]["reason"]), (&json!("incomplete"), &json!("max_output_tokens")));
    let searched = json_of(&fake, Kind::Openai, "/v1/responses", &ask(json!({"tools": [{"type": "web_search"}]}))).await;
    assert_eq!(searched["output"][0]["type"], "web_search_call");
}

#[tokio::test]
async fn openai_embeds_and_paints() {
    let fake = FakeProvider::start(Kind::Openai);
    let ask = |more: Value| with(json!({"model": "gpt-fake-embedding", "input": [QUESTION, "b"], "dimensions": 3}), more);
    let floats = json_of(&fake, Kind::Openai, "/v1/embeddings", &ask(json!({}))).await;
    // Thirteen bytes.
    assert_eq!(floats["usage"], json!({"prompt_tokens": 4, "total_tokens": 4}));
    let packed = json_of(&fake, Kind::Openai, "/v1/embeddings", &ask(json!({"encoding_format": "base64"}))).await;
    let bytes = data_encoding::BASE64.decode(packed["data"][1]["embedding"].as_str().unwrap().as_bytes()).unwrap();
    let numbers: Vec<f32> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(floats["data"][1]["embedding"], json!(numbers));
    assert_eq!(numbers.len(), 3);
    let painted =
        json_of(&fake, Kind::Openai, "/v1/images/generations", &json!({"model": "gpt-fake-image", "prompt": QUESTION})).await;
    assert!(painted["data"][0]["b64_json"].as_str().unwrap().starts_with("iVBORw0KGgo"));
    assert_eq!(
        painted["usage"],
        json!({"input_tokens": 3, "input_tokens_details": {"image_tokens": 0, "text_tokens": 3}, "output_tokens": 272,
            "output_tokens_details": {"image_tokens": 272, "text_tokens": 0}, "total_tokens": 275})
    );
}

#[tokio::test]
async fn xai_leaves_reasoning_out_of_the_completion() {
    let fake = FakeProvider::start(Kind::Xai);
    let body = chat("grok-fake-n10-c1", json!({"reasoning_effort": "high"}));
    let answer = json_of(&fake, Kind::Xai, "/v1/chat/completions", &body).await;
    let usage = &answer["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"], &usage["total_tokens"]), (&json!(3), &json!(10), &json!(19)));
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 6);
    assert_eq!(usage["cost_in_usd_ticks"], 2 * 20_000 + 5_000 + 16 * 60_000);
    assert!(answer["choices"][0]["message"]["reasoning_content"].is_string());
}

#[tokio::test]
async fn azure_filters_before_and_after() {
    let fake = FakeProvider::start(Kind::Azure);
    let body = chat("ignored", json!({"stream": true, "stream_options": {"include_usage": true}}));
    let path = "/openai/deployments/my-gpt-n2/chat/completions?api-version=2024-10-21";
    let chunks = events(&text_of(&fake, Kind::Azure, path, &body).await);
    assert_eq!((&chunks[0]["choices"], &chunks[0]["id"], &chunks[0]["model"]), (&json!([]), &json!(""), &json!("")));
    assert!(chunks[0]["prompt_filter_results"].is_array() && chunks[0].get("usage").is_none());
    assert_eq!(chunks[1]["model"], "my-gpt-n2");
    let tail = &chunks[chunks.len() - 3]["choices"][0];
    assert!(tail["content_filter_offsets"].is_object() && tail.get("delta").is_none());
    assert_eq!(chunks[chunks.len() - 2]["usage"]["completion_tokens"], 2);
    let unversioned = post(&fake, Kind::Azure, "/openai/deployments/my-gpt/chat/completions", &body).await;
    assert_eq!(unversioned.status(), 404);
    assert_eq!(unversioned.json::<Value>().await.unwrap(), json!({"error": {"code": "404", "message": "Resource not found"}}));
    let v1 = json_of(&fake, Kind::Azure, "/openai/v1/chat/completions", &chat("my-gpt-n3", json!({}))).await;
    assert_eq!((&v1["model"], &v1["usage"]["completion_tokens"]), (&json!("my-gpt-n3"), &json!(3)));
    assert!(v1["prompt_filter_results"].is_array());
}

#[tokio::test]
async fn anthropic_messages() {
    let fake = FakeProvider::start(Kind::Anthropic);
    let marked = json!({"system": [{"type": "text", "text": "twelve bytes", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]});
    let response = post(&fake, Kind::Anthropic, "/v1/messages", &message("claude-fake-n2-c1", marked.clone())).await;
    assert!(response.headers()["request-id"].to_str().unwrap().starts_with("req_"));
    assert!(response.headers().contains_key("anthropic-ratelimit-requests-remaining"));
    let whole: Value = response.json().await.unwrap();
    assert_eq!((&whole["stop_reason"], &whole["stop_sequence"]), (&json!("end_turn"), &Value::Null));
    let usage = json!({
        "input_tokens": 2, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 1,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 3}, "output_tokens": 2,
        "service_tier": "standard", "inference_geo": "not_available"});
    assert_eq!(whole["usage"], usage);
    let body = message("claude-fake-n2-c1", with(marked, json!({"stream": true})));
    let events = events(&text_of(&fake, Kind::Anthropic, "/v1/messages", &body).await);
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    assert_eq!(events[0]["message"]["usage"], with(usage, json!({"output_tokens": 1})));
    assert_eq!(
        events[6]["usage"],
        json!({"input_tokens": 2, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 1, "output_tokens": 2})
    );
    let text: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(whole["content"][0]["text"], text);
    let counted = json_of(&fake, Kind::Anthropic, "/v1/messages/count_tokens", &message("claude-fake", json!({}))).await;
    assert_eq!(counted, json!({"input_tokens": 3}));
}

#[tokio::test]
async fn anthropic_thinks_calls_and_searches() {
    let fake = FakeProvider::start(Kind::Anthropic);
    let more = json!({
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "speed": "fast", "stream": true,
        "tools": [{"name": "weather", "input_schema": weather()}, {"type": "web_search_20250305", "name": "web_search"}]});
    let events = events(&text_of(&fake, Kind::Anthropic, "/v1/messages", &message("claude-fake", more)).await);
    let blocks: Vec<&Value> =
        events.iter().filter(|event| event["type"] == "content_block_start").map(|event| &event["content_block"]).collect();
    let kinds: Vec<&Value> = blocks.iter().map(|block| &block["type"]).collect();
    assert_eq!(kinds, ["thinking", "server_tool_use", "web_search_tool_result", "tool_use"]);
    assert_eq!(blocks[3]["input"], json!({}));
    let of = |kind: &str, name: &str| {
        let deltas = events.iter().filter(|event| event["delta"]["type"] == kind && event["index"] != 1);
        deltas.filter_map(|event| event["delta"][name].as_str()).collect::<String>()
    };
    assert_eq!(of("input_json_delta", "partial_json"), "{\"town\":\"Tōkyō\"}");
    assert!(!of("thinking_delta", "thinking").is_empty() && !of("signature_delta", "signature").is_empty());
    assert_eq!(events[0]["message"]["usage"]["speed"], "fast");
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "tool_use");
    // Six of thought, eight of the call.
    assert_eq!((&end["usage"]["output_tokens"], &end["usage"]["server_tool_use"]["web_search_requests"]), (&json!(14), &json!(1)));
}

#[tokio::test]
async fn gemini_leaves_out_what_is_none() {
    let fake = FakeProvider::start(Kind::Gemini);
    let at = |verb: &str| format!("/v1beta/models/gemini-fake-n2-c1:{verb}");
    let thinking = json!({"generationConfig": {"thinkingConfig": {"includeThoughts": true}}});
    let whole = json_of(&fake, Kind::Gemini, &at("generateContent"), &contents(thinking.clone())).await;
    assert_eq!(
        whole["usageMetadata"],
        json!({"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 11, "cachedContentTokenCount": 1,
            "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 1}],
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}], "thoughtsTokenCount": 6})
    );
    assert_eq!(whole["candidates"][0]["content"]["parts"][0]["thought"], true);
    let body =
        post(&fake, Kind::Gemini, &at("streamGenerateContent?alt=sse"), &contents(thinking.clone())).await.text().await.unwrap();
    assert!(body.ends_with("\r\n\r\n"));
    let streamed = events(&body);
    assert_eq!(streamed.len(), 8);
    assert_eq!(streamed[0]["usageMetadata"].get("candidatesTokenCount"), None);
    assert_eq!(streamed[7]["usageMetadata"], whole["usageMetadata"]);
    assert_eq!(
        (&streamed[6]["candidates"][0].get("finishReason"), &streamed[7]["candidates"][0]["finishReason"]),
        (&None, &json!("STOP"))
    );
    let array: Value = post(&fake, Kind::Gemini, &at("streamGenerateContent"), &contents(thinking)).await.json().await.unwrap();
    assert_eq!(array.as_array().unwrap(), &streamed);
    assert_eq!(json_of(&fake, Kind::Gemini, &at("countTokens"), &contents(json!({}))).await["totalTokens"], 3);
    let batch = json!({"requests": [{"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 2}]});
    let batch = json_of(&fake, Kind::Gemini, &at("batchEmbedContents"), &batch).await;
    let single = json!({"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 2});
    let single = json_of(&fake, Kind::Gemini, &at("embedContent"), &single).await;
    assert_eq!(batch["embeddings"][0], single["embedding"]);
    assert_eq!(single["embedding"]["values"].as_array().unwrap().len(), 2);
    let compatible = json_of(&fake, Kind::Gemini, "/v1beta/openai/chat/completions", &chat("gemini-fake-n2-o5", json!({}))).await;
    assert_eq!((&compatible["usage"]["completion_tokens"], &compatible["usage"]["total_tokens"]), (&json!(2), &json!(10)));
}

#[tokio::test]
async fn each_lists_its_models_in_its_own_way() {
    let fake = FakeProvider::start_all();
    let get = async |kind, path: &str| request(&fake, kind, Method::GET, path).send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(
        get(Kind::Openai, "/v1/models/gpt-fake").await,
        json!({"id": "gpt-fake", "object": "model", "created": 1_767_323_045, "owned_by": "openai.com"})
    );
    assert_eq!(get(Kind::Openai, "/v1/models").await["data"][0]["id"], "gpt-fake");
    let claude = get(Kind::Anthropic, "/v1/models").await;
    assert_eq!((&claude["has_more"], &claude["first_id"]), (&json!(false), &json!("claude-fake")));
    assert_eq!(get(Kind::Gemini, "/v1beta/models").await["models"][0]["name"], "models/gemini-fake");
    assert_eq!(get(Kind::Gemini, "/v1beta/openai/models").await["data"][0]["id"], "gemini-fake");
}

#[tokio::test]
async fn a_wrong_key_is_refused_in_the_providers_words() {
    let fake = FakeProvider::start_all();
    for kind in Kind::ALL {
        fake.set_key(kind, "another-key-000000");
    }
    let refused = async |kind: Kind, path: &str, header: &str, value: &str| {
        let request = client().post(fake.url(kind) + path).header(header, value).header("anthropic-version", "2023-06-01");
        let response = request.body("{}").send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    let (status, body) = refused(Kind::Openai, "/v1/chat/completions", "authorization", "Bearer sk-wrong-key-1234").await;
    assert_eq!(status, 401);
    assert_eq!(
        body,
        json!({"error": {
            "message": "Incorrect API key provided: sk-wrong*****1234. You can find your API key at \
                        https://platform.openai.com/account/api-keys.",
            "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}})
    );
    let (status, mut body) = refused(Kind::Anthropic, "/v1/messages", "x-api-key", "nonsense").await;
    body["request_id"].take();
    let expected =
        json!({"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}, "request_id": null});
    assert_eq!((status, body), (401, expected));
    let gemini = "/v1beta/models/gemini-fake:generateContent";
    let (status, body) = refused(Kind::Gemini, gemini, "x-goog-api-key", "nonsense").await;
    assert_eq!((status, &body["error"]["details"][0]["reason"]), (400, &json!("API_KEY_INVALID")));
    let (status, body) = refused(Kind::Gemini, gemini, "authorization", "Bearer nonsense").await;
    assert_eq!((status, &body["error"]["status"]), (403, &json!("PERMISSION_DENIED")));
    let (status, body) = refused(Kind::Azure, "/openai/v1/chat/completions", "api-key", "nonsense").await;
    assert_eq!((status, &body["error"]["code"]), (401, &json!("401")));
    let (status, body) = refused(Kind::Xai, "/v1/chat/completions", "authorization", "Bearer nonsense").await;
    assert_eq!((status, &body["code"]), (400, &json!("Client specified an invalid argument")));
    // Not the right provider's key, but no key at all is what this one asks for.
    let (status, _) = refused(Kind::Compatible, "/v1/chat/completions", "x-other", "").await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn wrong_requests_are_refused() {
    let fake = FakeProvider::start_all();
    let refused = async |kind: Kind, path: &str, body: &str| {
        let response = request(&fake, kind, Method::POST, path).body(body.to_owned()).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["error"].take())
    };
    let options = chat("gpt-fake", json!({"stream_options": {"include_usage": true}})).to_string();
    let (status, error) = refused(Kind::Openai, "/v1/chat/completions", &options).await;
    assert_eq!((status, &error["param"]), (400, &json!("stream_options")));
    let (status, error) = refused(Kind::Openai, "/v1/chat/completions", "{\"model\": \"gpt-fake\"}").await;
    assert_eq!((status, &error["code"]), (400, &json!("missing_required_parameter")));
    let unknown = chat("no-such", json!({})).to_string();
    let (status, error) = refused(Kind::Openai, "/v1/chat/completions", &unknown).await;
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
    let (status, error) = refused(Kind::Openai, "/v1/nothing", "{}").await;
    assert_eq!((status, &error["message"]), (404, &json!("Invalid URL (POST /v1/nothing)")));
    let (status, error) = refused(Kind::Anthropic, "/v1/messages", "{\"model\": \"claude-fake\", \"messages\": []}").await;
    let expected = json!({"type": "invalid_request_error", "message": "max_tokens: Field required"});
    assert_eq!((status, error), (400, expected));
    let (status, error) = refused(Kind::Gemini, "/v1beta/models/gemini-fake:generateContent", "{").await;
    assert_eq!((status, &error["status"]), (400, &json!("INVALID_ARGUMENT")));
    let from_a_page = request(&fake, Kind::Anthropic, Method::POST, "/v1/messages").header("origin", "https://example.com");
    assert_eq!(from_a_page.body("{}").send().await.unwrap().status(), 401);
    let unversioned = client().post(fake.url(Kind::Anthropic) + "/v1/messages").header("x-api-key", fake.key(Kind::Anthropic));
    let text = unversioned.body("{}").send().await.unwrap().text().await.unwrap();
    assert!(text.contains("anthropic-version: header is required"), "{text}");
}

#[tokio::test]
async fn a_status_comes_with_the_providers_body() {
    let fake = FakeProvider::start_all();
    for (kind, path, status, at, word) in [
        (Kind::Openai, "/v1/chat/completions", 429, "/error/code", "rate_limit_exceeded"),
        (Kind::Openai, "/v1/chat/completions", 500, "/error/type", "server_error"),
        (Kind::Anthropic, "/v1/messages", 529, "/error/type", "overloaded_error"),
        (Kind::Anthropic, "/v1/messages", 402, "/error/type", "billing_error"),
        (Kind::Gemini, "/v1beta/models/gemini-fake:generateContent", 503, "/error/status", "UNAVAILABLE"),
        (Kind::Gemini, "/v1beta/models/gemini-fake:generateContent", 429, "/error/status", "RESOURCE_EXHAUSTED"),
    ] {
        fake.next(kind, Behaviour::of(&format!("h{status}-a7")));
        let body = with(message("any-fake", json!({})), contents(json!({})));
        let refused = post(&fake, kind, path, &body).await;
        assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (status, &"7".parse().unwrap()));
        assert_eq!(refused.json::<Value>().await.unwrap().pointer(at).unwrap(), word);
        assert_eq!(post(&fake, kind, path, &body).await.status(), 200, "the next one only");
    }
}

#[tokio::test]
async fn streams_break_as_asked() {
    let fake = FakeProvider::start(Kind::Openai);
    let ask = async |model: &str| {
        let response = post(&fake, Kind::Openai, "/v1/chat/completions", &chat(model, json!({"stream": true}))).await;
        assert_eq!(response.status(), 200);
        let mut response = response;
        let mut text = String::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => text.push_str(&String::from_utf8_lossy(&chunk)),
                Ok(None) => return (text, true),
                Err(_) => return (text, false),
            }
        }
    };
    let tokens = |text: &str| text.matches("\"content\":").count() - 1;
    let (text, clean) = ask("gpt-fake-e5").await;
    assert_eq!((tokens(&text), clean, text.contains("[DONE]")), (5, false, false));
    let (text, clean) = ask("gpt-fake-f5").await;
    assert_eq!((tokens(&text), clean, text.contains("[DONE]")), (5, true, false));
    let (text, clean) = ask("gpt-fake-x5").await;
    assert_eq!((tokens(&text), clean, text.contains("[DONE]")), (5, true, false));
    assert_eq!(events(&text).last().unwrap()["error"]["type"], "server_error");
    let (text, clean) = ask("gpt-fake-i").await;
    assert!(clean && text.contains('\u{fffd}') && text.contains("[DONE]"));
    let (text, _) = ask("gpt-fake-g").await;
    assert!(text.contains("no json") && !text.ends_with('\n'));
    let (text, _) = ask("gpt-fake-q").await;
    let last = events(&text).into_iter().rev().nth(1).unwrap();
    assert_eq!((&last["choices"][0]["finish_reason"], &last["usage"]["prompt_tokens"]), (&json!("stop"), &json!(3)));
    let silent = json_of(&fake, Kind::Openai, "/v1/chat/completions", &chat("gpt-fake-u", json!({}))).await;
    assert_eq!(silent.get("usage"), None);
    let half = post(&fake, Kind::Openai, "/v1/chat/completions", &chat("gpt-fake-e1", json!({}))).await;
    assert!(half.headers().contains_key("content-length") && half.bytes().await.is_err());
    let nothing =
        request(&fake, Kind::Openai, Method::POST, "/v1/chat/completions").body(chat("gpt-fake-e0", json!({})).to_string());
    assert!(nothing.send().await.is_err());
}

#[tokio::test]
async fn every_shape_fails_in_its_own_words() {
    let fake = FakeProvider::start_all();
    let gemini = "/v1beta/models/gemini-fake-x2:streamGenerateContent";
    let claude = text_of(&fake, Kind::Anthropic, "/v1/messages", &message("claude-fake-x2", json!({"stream": true}))).await;
    let expected = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    assert_eq!(events(&claude).last(), Some(&expected));
    let google = text_of(&fake, Kind::Gemini, &format!("{gemini}?alt=sse"), &contents(json!({}))).await;
    assert_eq!(events(&google).last().unwrap()["error"]["status"], "INTERNAL");
    let array: Value = post(&fake, Kind::Gemini, gemini, &contents(json!({}))).await.json().await.unwrap();
    assert_eq!(array[2]["error"]["code"], 500);
    let body = json!({"model": "gpt-fake-x2", "input": QUESTION, "stream": true});
    let events = events(&text_of(&fake, Kind::Openai, "/v1/responses", &body).await);
    assert_eq!(events.last().unwrap()["type"], "error");
    assert!(events.iter().enumerate().all(|(number, event)| event["sequence_number"] == number));
}

#[tokio::test]
async fn what_arrived_is_kept_and_who_left_is_told() {
    let fake = FakeProvider::start(Kind::Openai);
    let path = "/v1/chat/completions";
    let odd = "{ \"model\" : \"gpt-fake-z3\",\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800 é\"}], \"stream\":true,\"stream\":true,\"x\":1e400}";
    let mut response = request(&fake, Kind::Openai, Method::POST, path).body(odd).send().await.unwrap();
    // Neither a lone surrogate nor a number that no float holds is JSON to this server; the bytes are what they were.
    assert_eq!(response.status(), 400);
    let seen = &fake.log()[0];
    assert_eq!((seen.body.as_ref(), seen.body_len), (odd.as_bytes(), odd.len()));
    assert_eq!(seen.body_sha256, data_encoding::HEXLOWER.encode(&Sha256::digest(odd)));
    assert_eq!(
        (seen.method.as_str(), seen.path.as_str(), seen.outcome),
        ("POST", "/openai.com/v1/chat/completions", Outcome::Finished)
    );
    assert_eq!(seen.headers["authorization"], format!("Bearer {}", fake.key(Kind::Openai)));
    fake.hold_at_token("gpt-fake", 3);
    response = post(&fake, Kind::Openai, path, &chat("gpt-fake", json!({"stream": true}))).await;
    fake.wait_for(|seen| seen.last().is_some_and(|seen| seen.held)).await;
    let left = Instant::now();
    drop(response);
    fake.wait_for(|seen| matches!(seen.last().unwrap().outcome, Outcome::ClientGone { .. })).await;
    let Outcome::ClientGone { at, tokens_sent } = fake.log()[1].outcome else { unreachable!() };
    assert_eq!(tokens_sent, 3);
    assert!(at >= left && at - left < Duration::from_secs(5));
    fake.release();
    let totals = fake.totals();
    assert_eq!((totals.started, totals.finished, totals.abandoned), (2, 1, 1));
}

#[tokio::test]
async fn a_hostile_upstream() {
    let fake = FakeProvider::start(Kind::Openai);
    let ask = async |letters: &str| {
        fake.next(Kind::Openai, Behaviour::of(letters));
        post(&fake, Kind::Openai, "/v1/chat/completions", &chat("gpt-fake", json!({"stream": true}))).await
    };
    let bomb = ask("b").await;
    assert_eq!(bomb.headers()["content-encoding"], "gzip");
    let bytes = bomb.bytes().await.unwrap();
    assert_eq!((&bytes[..2], bytes.len() < 6 << 20), (&[0x1f, 0x8b][..], true));
    let mut line = ask("m").await;
    let mut read = 0;
    while read < 8 << 20 {
        let chunk = line.chunk().await.unwrap().unwrap();
        assert!(!chunk.contains(&b'\n'));
        read += chunk.len();
    }
    drop(line);
    let redirect = ask("r").await;
    assert_eq!(redirect.status(), 307);
    assert_eq!(redirect.headers()["location"], fake.url(Kind::Openai) + "/redirected");
    // A head without an end, read by hand: no client library would.
    fake.next(Kind::Openai, Behaviour::of("l"));
    let mut stream = TcpStream::connect(fake.addr()).await.unwrap();
    let body = chat("gpt-fake", json!({})).to_string();
    let key = fake.key(Kind::Openai);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut bytes = vec![0; 4 << 20];
    stream.read_exact(&mut bytes).await.unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n") && !bytes.windows(4).any(|four| four == b"\r\n\r\n"));
    drop(stream);
    fake.wait_for(|seen| matches!(seen.last().unwrap().outcome, Outcome::ClientGone { .. })).await;
    // And nothing at all.
    fake.next(Kind::Openai, Behaviour::of("w"));
    let silent = request(&fake, Kind::Openai, Method::POST, "/v1/chat/completions").body(chat("gpt-fake", json!({})).to_string());
    assert!(silent.timeout(Duration::from_millis(300)).send().await.unwrap_err().is_timeout());
}

#[tokio::test]
async fn tls_speaks_h2_where_it_is_asked_to() {
    use std::sync::Arc;

    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs::default_provider};

    let certificate = Certificate::self_signed();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.chain_pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    for (offered, expected) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"][..], "http/1.1")] {
        let fake = FakeProvider::start_tls(&certificate, offered);
        let tcp = TcpStream::connect(fake.addr()).await.unwrap();
        let tls = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(expected.as_bytes()));
        if expected == "http/1.1" {
            continue;
        }
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let ask = |model: &str| {
            hyper::Request::post(fake.url(Kind::Openai) + "/v1/chat/completions")
                .header("authorization", format!("Bearer {}", fake.key(Kind::Openai)))
                .body(Full::<bytes::Bytes>::from(chat(model, json!({"stream": true})).to_string()))
                .unwrap()
        };
        let answer = sender.send_request(ask("gpt-fake")).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(body.ends_with(b"data: [DONE]\n\n"));
        // Two streams of one connection; one is reset, the other goes on.
        let held = sender.send_request(ask("gpt-fake-z2")).await.unwrap();
        drop(held);
        fake.wait_for(|seen| matches!(seen.last().unwrap().outcome, Outcome::ClientGone { tokens_sent: 2, .. })).await;
        let log = fake.log();
        assert_eq!((log[0].version, log[0].connection, log[1].connection), (hyper::Version::HTTP_2, 0, 0));
        assert_eq!(sender.send_request(ask("gpt-fake-n1")).await.unwrap().status(), 200);
    }
}
