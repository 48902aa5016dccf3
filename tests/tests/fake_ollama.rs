//! The fake Ollama against what is known of the real one: literal shapes, and the faults that its models' names ask for.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::time::{Duration, Instant};

use journeys::fake_ollama::{Capability, FakeOllama, Model, Outcome, Seen, ViolationKind};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

fn client() -> Client {
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

async fn post(fake: &FakeOllama, path: &str, body: &Value) -> Response {
    client().post(fake.url() + path).body(body.to_string()).send().await.unwrap()
}

async fn json_of(fake: &FakeOllama, path: &str, body: &Value) -> Value {
    let response = post(fake, path, body).await;
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

async fn get(fake: &FakeOllama, path: &str) -> Value {
    client().get(fake.url() + path).send().await.unwrap().json().await.unwrap()
}

/// The lines of a native stream.
fn lines(body: &str) -> Vec<Value> {
    assert!(body.is_empty() || body.ends_with('\n'), "the last line has its end");
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The events of an SSE stream: the name, if it has one, and the data, `[DONE]` as a string.
fn events(body: &str) -> Vec<(String, Value)> {
    assert!(body.ends_with("\n\n"));
    let parse = |data: &str| serde_json::from_str(data).unwrap_or_else(|_| data.into());
    body.split_terminator("\n\n")
        .map(|event| match event.split_once('\n') {
            Some((name, data)) => (name.strip_prefix("event: ").unwrap().to_owned(), parse(data.strip_prefix("data: ").unwrap())),
            None => (String::new(), parse(event.strip_prefix("data: ").unwrap())),
        })
        .collect()
}

/// The value without what may differ from one call to the next.
fn stable(mut value: Value) -> Value {
    let object = value.as_object_mut().unwrap();
    for name in
        ["id", "created", "created_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration", "request_id"]
    {
        if object.get(name).is_some_and(|value| value != 0) {
            object.insert(name.to_owned(), "*".into());
        }
    }
    value
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "où ?"}]})
}

fn chat_with(model: &str, more: Value) -> Value {
    let mut body = chat(model);
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "weather", "description": "", "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Paris <3"]}}, "required": ["city"]}}}])
}

#[tokio::test]
async fn what_needs_no_model() {
    let fake = FakeOllama::start();
    let root = client().get(fake.url()).send().await.unwrap();
    assert_eq!(root.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(root.text().await.unwrap(), "Ollama is running");
    assert_eq!(client().head(fake.url() + "/api/tags").send().await.unwrap().status(), 200);
    assert_eq!(get(&fake, "/api/version").await, json!({"version": "0.32.15"}));
    fake.set_version("0.17.0");
    assert_eq!(get(&fake, "/api/version").await, json!({"version": "0.17.0"}));
    assert_eq!(get(&fake, "/api/status").await, json!({"cloud": {"disabled": false, "source": "none"}}));
    assert_eq!(get(&fake, "/api/ps").await, json!({"models": []}));
    fake.set_models([Model::new("one").with(&[Capability::Completion, Capability::Tools]).remote("https://ollama.com:443", "big")]);
    let digest = get(&fake, "/api/tags").await["models"][0]["digest"].clone();
    assert_eq!(digest.as_str().unwrap().len(), 64);
    let expected = json!({"models": [{
        "name": "one:latest", "model": "one:latest", "remote_model": "big", "remote_host": "https://ollama.com:443",
        "modified_at": "2026-01-02T03:04:05.678901234Z", "size": 2_019_393_189_u64, "digest": digest,
        "details": {"parent_model": "", "format": "gguf", "family": "fake", "families": ["fake"], "parameter_size": "3.2B",
            "quantization_level": "Q4_K_M", "context_length": 32_768, "embedding_length": 8},
        "capabilities": ["completion", "tools"]}]});
    assert_eq!(get(&fake, "/api/tags").await, expected);
    let listed = json!({"id": "one:latest", "object": "model", "created": 1_767_323_045, "owned_by": "library"});
    assert_eq!(get(&fake, "/v1/models").await, json!({"object": "list", "data": [listed]}));
    assert_eq!(get(&fake, "/v1/models/one").await["id"], "one");
    fake.set_models([]);
    assert_eq!(get(&fake, "/v1/models").await, json!({"object": "list", "data": null}));
    assert_eq!(get(&fake, "/api/tags").await, json!({"models": []}));
}

#[tokio::test]
async fn show_tells_what_the_owner_would_not() {
    let fake = FakeOllama::start();
    let shown = json_of(&fake, "/api/show", &json!({"name": "thinker"})).await;
    assert_eq!(shown["system"], "private system prompt");
    assert!(shown["modelfile"].as_str().unwrap().contains("/blobs/sha256-"));
    assert_eq!(shown["capabilities"], json!(["completion", "tools", "thinking"]));
    assert_eq!(shown["model_info"]["fake.context_length"], 32_768);
}

#[tokio::test]
async fn a_native_chat_is_the_same_streamed_and_whole() {
    let fake = FakeOllama::start();
    let response = post(&fake, "/api/chat", &chat("tiny")).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let body = response.text().await.unwrap();
    assert!(!body.contains(['<', '>', '&']), "Go escapes these: {body}");
    let lines = lines(&body);
    assert_eq!(lines.len(), 17);
    assert_eq!(
        stable(lines[0].clone()),
        json!({"model": "tiny", "created_at": "*", "message": {"role": "assistant", "content": "« où ? » :"}, "done": false})
    );
    assert_eq!(
        stable(lines[16].clone()),
        json!({"model": "tiny", "created_at": "*", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop",
            "total_duration": "*", "load_duration": "*", "prompt_eval_count": 2, "prompt_eval_duration": "*", "eval_count": 16,
            "eval_duration": "*"})
    );
    let text: String = lines.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
    let response = post(&fake, "/api/chat", &chat_with("tiny", json!({"stream": false}))).await;
    assert_eq!(response.headers()["content-type"], "application/json; charset=utf-8");
    let whole: Value = response.json().await.unwrap();
    assert_eq!(whole["message"], json!({"role": "assistant", "content": text}));
    assert_eq!(whole["eval_count"], 16);
    // Another question, another answer.
    let mut other = chat_with("tiny", json!({"stream": false}));
    other["messages"][0]["content"] = "où donc ?".into();
    assert_ne!(json_of(&fake, "/api/chat", &other).await["message"]["content"], whole["message"]["content"]);
}

#[tokio::test]
async fn a_generation_ends_with_its_context() {
    let fake = FakeOllama::start();
    let lines = lines(&post(&fake, "/api/generate", &json!({"model": "babel-n2", "prompt": "salut"})).await.text().await.unwrap());
    assert_eq!(lines[0]["response"], "« salut » :");
    assert_eq!(
        stable(lines[2].clone()),
        json!({"model": "babel-n2", "created_at": "*", "response": "", "done": true, "done_reason": "stop",
            "context": [1000, 1001, 1002, 1003], "total_duration": "*", "load_duration": "*", "prompt_eval_count": 2,
            "prompt_eval_duration": "*", "eval_count": 2, "eval_duration": "*"})
    );
}

#[tokio::test]
async fn the_benchmarks_text_is_plain() {
    let fake = FakeOllama::start();
    let whole = json_of(&fake, "/api/generate", &json!({"model": "fake-n3-s4", "prompt": "x", "stream": false})).await;
    assert_eq!(whole["response"], " 0xx 1xx 2xx");
    assert_eq!(whole["done_reason"], "stop");
    let cut = json!({"model": "fake-n3-s4", "prompt": "x", "stream": false, "options": {"num_predict": 2}});
    let cut = json_of(&fake, "/api/generate", &cut).await;
    assert_eq!((cut["response"].as_str(), cut["done_reason"].as_str()), (Some(" 0xx 1xx"), Some("length")));
}

#[tokio::test]
async fn loading_and_unloading_say_so() {
    let fake = FakeOllama::start();
    for (path, part) in
        [("/api/chat", json!({"message": {"role": "assistant", "content": ""}})), ("/api/generate", json!({"response": ""}))]
    {
        for (body, reason, loaded) in
            [(json!({"model": "tiny"}), "load", 1), (json!({"model": "tiny", "keep_alive": 0}), "unload", 0)]
        {
            let mut expected = json!({"model": "tiny", "created_at": "*"});
            expected.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            expected["done"] = true.into();
            expected["done_reason"] = reason.into();
            assert_eq!(stable(json_of(&fake, path, &body).await), expected);
            assert_eq!(get(&fake, "/api/ps").await["models"].as_array().unwrap().len(), loaded);
        }
    }
    json_of(&fake, "/api/chat", &chat_with("tiny", json!({"stream": false}))).await;
    let ps = get(&fake, "/api/ps").await;
    assert_eq!(ps["models"][0]["name"], "tiny:latest");
    assert!(ps["models"][0]["expires_at"].as_str().unwrap().ends_with('Z'));
    json_of(&fake, "/api/chat", &chat_with("tiny", json!({"stream": false, "keep_alive": 0}))).await;
    assert_eq!(get(&fake, "/api/ps").await, json!({"models": []}));
}

#[tokio::test]
async fn an_openai_chat_streams_as_ollama_renders_it() {
    let fake = FakeOllama::start();
    let body = chat_with("fake-n2", json!({"stream": true, "stream_options": {"include_usage": true}}));
    let response = post(&fake, "/v1/chat/completions", &body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let events = events(&response.text().await.unwrap());
    let id = events[0].1["id"].clone();
    assert!(id.as_str().unwrap().strip_prefix("chatcmpl-").unwrap().parse::<u32>().unwrap() < 999);
    assert!(events[..4].iter().all(|(_, event)| event["id"] == id && event["created"] == events[0].1["created"]));
    let chunk = |choices: Value| {
        json!({"id": "*", "object": "chat.completion.chunk", "created": "*", "model": "fake-n2", "system_fingerprint": "fp_ollama",
            "choices": choices})
    };
    let got: Vec<Value> = events[..4].iter().map(|(_, event)| stable(event.clone())).collect();
    let mut usage = chunk(json!([]));
    usage["usage"] = json!({"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4});
    assert_eq!(
        got,
        [
            chunk(json!([{"index": 0, "delta": {"role": "assistant", "content": " 0xxxx"}, "finish_reason": null}])),
            chunk(json!([{"index": 0, "delta": {"content": " 1xxxx"}, "finish_reason": null}])),
            chunk(json!([{"index": 0, "delta": {}, "finish_reason": "stop"}])),
            usage,
        ]
    );
    assert_eq!(events[4].1, "[DONE]");
    assert_eq!(events.len(), 5);
    let whole = json_of(&fake, "/v1/chat/completions", &chat("fake-n2")).await;
    assert_eq!(
        stable(whole),
        json!({"id": "*", "object": "chat.completion", "created": "*", "model": "fake-n2", "system_fingerprint": "fp_ollama",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": " 0xxxx 1xxxx"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}})
    );
}

#[tokio::test]
async fn a_completion_carries_a_zero_usage_until_its_end() {
    let fake = FakeOllama::start();
    let body = json!({"model": "fake-n1", "prompt": "salut", "stream": true, "stream_options": {"include_usage": true}});
    let events = events(&post(&fake, "/v1/completions", &body).await.text().await.unwrap());
    let chunk = |choices: Value, usage: [u64; 3]| {
        json!({"id": "*", "object": "text_completion", "created": "*", "choices": choices, "model": "fake-n1",
            "system_fingerprint": "fp_ollama",
            "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": usage[2]}})
    };
    let got: Vec<Value> = events[..3].iter().map(|(_, event)| stable(event.clone())).collect();
    assert_eq!(
        got,
        [
            chunk(json!([{"text": " 0xxxx", "index": 0, "finish_reason": null}]), [0, 0, 0]),
            chunk(json!([{"text": "", "index": 0, "finish_reason": "stop"}]), [0, 0, 0]),
            chunk(json!([]), [2, 1, 3]),
        ]
    );
    assert_eq!(events[3].1, "[DONE]");
}

#[tokio::test]
async fn thoughts_come_first_on_every_surface() {
    let fake = FakeOllama::start();
    assert_eq!(post(&fake, "/api/chat", &chat("thinker-n2")).await.status(), 404);
    fake.add_model(Model::new("thinker-n2").with(&[Capability::Completion, Capability::Thinking, Capability::Tools]));
    let lines = lines(&post(&fake, "/api/chat", &chat("thinker-n2")).await.text().await.unwrap());
    assert_eq!(lines.len(), 6 + 2 + 1);
    let thoughts: String = lines[..6].iter().map(|line| line["message"]["thinking"].as_str().unwrap()).collect();
    assert!(lines[..6].iter().all(|line| line["message"]["content"] == ""));
    let whole = json_of(&fake, "/api/chat", &chat_with("thinker-n2", json!({"stream": false}))).await;
    assert_eq!(whole["message"]["thinking"].as_str(), Some(&*thoughts));
    let generated = json!({"model": "thinker-n2", "prompt": "où ?"});
    let generated = self::lines(&post(&fake, "/api/generate", &generated).await.text().await.unwrap());
    let has: Vec<(bool, bool)> = generated.iter().map(|line| (line.get("thinking").is_some(), line["response"] != "")).collect();
    let mut expected = vec![(false, false)];
    expected.extend([(true, false); 6]);
    expected.extend([(false, false), (false, true), (false, true), (false, false)]);
    assert_eq!(has, expected, "the tags around thoughts leave a blank line each");
    let silent = json_of(&fake, "/api/chat", &chat_with("thinker-n2", json!({"stream": false, "think": false}))).await;
    assert_eq!(silent["message"].get("thinking"), None);

    let openai =
        events(&post(&fake, "/v1/chat/completions", &chat_with("thinker-n2", json!({"stream": true}))).await.text().await.unwrap());
    assert_eq!(openai[0].1["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(openai[0].1["choices"][0]["delta"]["content"], "");
    assert!(openai[0].1["choices"][0]["delta"]["reasoning"].is_string());
    let openai = json_of(&fake, "/v1/chat/completions", &chat("thinker-n2")).await;
    assert_eq!(openai["choices"][0]["message"]["reasoning"].as_str(), Some(&*thoughts));
    let none = json_of(&fake, "/v1/chat/completions", &chat_with("thinker-n2", json!({"reasoning_effort": "none"}))).await;
    assert_eq!(none["choices"][0]["message"].get("reasoning"), None);

    let asked = json!({"model": "thinker-n2", "input": "où ?", "reasoning": {"effort": "high"}, "stream": true});
    let streamed = events(&post(&fake, "/v1/responses", &asked).await.text().await.unwrap());
    assert_eq!(streamed[0].1["response"]["reasoning"], json!({"effort": "high", "summary": null}));
    let responses =
        json_of(&fake, "/v1/responses", &json!({"model": "thinker-n2", "input": "où ?", "reasoning": {"effort": "high"}})).await;
    assert_eq!(responses["reasoning"], json!({"effort": "high"}));
    assert_eq!(responses["output"][0]["summary"][0]["text"].as_str(), Some(&*thoughts));
    let messages = json_of(&fake, "/v1/messages", &chat_with("thinker-n2", json!({"max_tokens": 100}))).await;
    assert_eq!(messages["content"][0], json!({"type": "thinking", "thinking": thoughts}));

    let refused = post(&fake, "/api/chat", &chat_with("tiny", json!({"think": true}))).await;
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<Value>().await.unwrap(), json!({"error": "\"tiny\" does not support thinking"}));
}

#[tokio::test]
async fn a_tool_call_is_whole() {
    let fake = FakeOllama::start();
    let body = chat_with("tiny", json!({"tools": tools()}));
    let lines = lines(&post(&fake, "/api/chat", &body).await.text().await.unwrap());
    assert_eq!(lines.len(), 2);
    let mut message = lines[0]["message"].clone();
    assert!(message["tool_calls"][0]["id"].as_str().unwrap().starts_with("call_"));
    message["tool_calls"][0]["id"] = "*".into();
    assert_eq!(
        message,
        json!({"role": "assistant", "content": "",
            "tool_calls": [{"id": "*", "function": {"index": 0, "name": "weather", "arguments": {"city": "Paris <3"}}}]})
    );
    assert_eq!(lines[1]["done_reason"], "stop");

    let body = chat_with("tiny", json!({"tools": tools(), "stream": true}));
    let events = events(&post(&fake, "/v1/chat/completions", &body).await.text().await.unwrap());
    let mut delta = events[0].1["choices"][0]["delta"].clone();
    delta["tool_calls"][0]["id"] = "*".into();
    // Go escapes the arguments, and then the string that holds them.
    assert_eq!(
        delta,
        json!({"role": "assistant", "content": "", "tool_calls": [{"id": "*", "index": 0, "type": "function",
            "function": {"name": "weather", "arguments": "{\"city\":\"Paris \\u003c3\"}"}}]})
    );
    assert_eq!(events[1].1["choices"][0]["finish_reason"], "tool_calls");
    let whole = json_of(&fake, "/v1/chat/completions", &chat_with("tiny", json!({"tools": tools()}))).await;
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");

    let mut answered = chat_with("tiny", json!({"tools": tools(), "stream": false}));
    answered["messages"].as_array_mut().unwrap().push(json!({"role": "tool", "content": "soleil", "tool_name": "weather"}));
    let answer = json_of(&fake, "/api/chat", &answered).await;
    assert!(answer["message"]["content"].as_str().unwrap().starts_with("« soleil » :"));
    assert_eq!(answer["message"].get("tool_calls"), None);

    let refused = post(&fake, "/api/chat", &chat_with("seer", json!({"tools": tools()}))).await;
    assert_eq!(refused.status(), 400);
    let text = refused.text().await.unwrap();
    assert_eq!(text, r#"{"error":"registry.ollama.ai/library/seer:latest does not support tools"}"#);
}

#[tokio::test]
async fn a_format_is_kept_to() {
    let fake = FakeOllama::start();
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}, "word": {"type": "string"}}, "required": ["n"]});
    let native = json_of(&fake, "/api/chat", &chat_with("tiny", json!({"stream": false, "format": schema}))).await;
    let answer: Value = serde_json::from_str(native["message"]["content"].as_str().unwrap()).unwrap();
    assert!(answer["n"].is_i64() && answer["word"].is_string());
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let openai = json_of(&fake, "/v1/chat/completions", &chat_with("tiny", json!({"response_format": format}))).await;
    assert_eq!(openai["choices"][0]["message"]["content"], native["message"]["content"]);
    let any = json_of(&fake, "/api/chat", &chat_with("tiny", json!({"stream": false, "format": "json"}))).await;
    assert_eq!(serde_json::from_str::<Value>(any["message"]["content"].as_str().unwrap()).unwrap()["answer"], "où ?");
}

#[tokio::test]
async fn responses_come_as_numbered_events() {
    let fake = FakeOllama::start();
    let response = post(&fake, "/v1/responses", &json!({"model": "fake-n2", "input": "où ?", "stream": true})).await;
    assert_eq!(response.headers()["cache-control"], "no-cache");
    let events = events(&response.text().await.unwrap());
    let names: Vec<&str> = events.iter().map(|(name, _)| &**name).collect();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (number, (name, event)) in events.iter().enumerate() {
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!(name), &json!(number)));
    }
    let item = events[4].1["item_id"].clone();
    let expected = json!({"content_index": 0, "delta": " 0xxxx", "item_id": item, "logprobs": [], "output_index": 0,
        "sequence_number": 4, "type": "response.output_text.delta"});
    // Go writes maps in the order of their keys.
    assert_eq!(events[4].1.to_string(), expected.to_string());
    let done = &events[9].1["response"];
    assert_eq!(done["status"], "completed");
    assert_eq!(
        done["output"][0]["content"],
        json!([{"annotations": [], "logprobs": [], "text": " 0xxxx 1xxxx", "type": "output_text"}])
    );
    assert_eq!(done["usage"]["total_tokens"], 4);

    let tool = json!({"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {"n": {"const": 1}}}});
    let body = json!({"model": "fake-n2", "input": "où ?", "stream": true, "tools": [tool]});
    let events = self::events(&post(&fake, "/v1/responses", &body).await.text().await.unwrap());
    assert_eq!(events[5].0, "response.output_item.done");
    assert_eq!(events[4].0, "response.function_call_arguments.done");
    assert_eq!(events[4].1["arguments"], "{\"n\":1}");
    let whole = json_of(&fake, "/v1/responses", &json!({"model": "fake-n2", "input": "où ?", "instructions": "bref"})).await;
    assert_eq!(whole["output"][0]["content"][0]["text"], " 0xxxx 1xxxx");
    assert_eq!((whole["instructions"].as_str(), whole["store"].as_bool()), (Some("bref"), Some(false)));
}

#[tokio::test]
async fn messages_come_as_blocks() {
    let fake = FakeOllama::start();
    let body = chat_with("fake-n2", json!({"max_tokens": 1, "stream": true}));
    let events = events(&post(&fake, "/v1/messages", &body).await.text().await.unwrap());
    let id = events[0].1["message"]["id"].clone();
    let expected = [
        (
            "message_start",
            json!({"type": "message_start", "message": {"id": id, "type": "message", "role": "assistant",
            "model": "fake-n2", "content": [], "usage": {"input_tokens": 2, "output_tokens": 0}}}),
        ),
        ("content_block_start", json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})),
        (
            "content_block_delta",
            json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " 0xxxx"}}),
        ),
        ("content_block_stop", json!({"type": "content_block_stop", "index": 0})),
        (
            "message_delta",
            json!({"type": "message_delta", "delta": {"stop_reason": "max_tokens"},
            "usage": {"input_tokens": 2, "output_tokens": 1}}),
        ),
        ("message_stop", json!({"type": "message_stop"})),
    ];
    assert_eq!(events, expected.map(|(name, event)| (name.to_owned(), event)));
    let tool = json!([{"name": "weather", "input_schema": {"type": "object", "properties": {"n": {"const": 1}}}}]);
    let mut called = json_of(&fake, "/v1/messages", &chat_with("fake-n2", json!({"max_tokens": 9, "tools": tool}))).await;
    called["content"][0]["id"] = "*".into();
    assert_eq!(
        stable(called),
        json!({"id": "*", "type": "message", "role": "assistant", "model": "fake-n2",
            "content": [{"type": "tool_use", "id": "*", "name": "weather", "input": {"n": 1}}],
            "stop_reason": "tool_use", "usage": {"input_tokens": 2, "output_tokens": 8}})
    );
}

#[tokio::test]
async fn vectors_are_of_length_one_and_the_same_everywhere() {
    let fake = FakeOllama::start();
    let native = json_of(&fake, "/api/embed", &json!({"model": "embed", "input": ["où ?", "là"]})).await;
    assert_eq!((native["model"].as_str(), native["prompt_eval_count"].as_u64()), (Some("embed"), Some(3)));
    let vector: Vec<f64> = native["embeddings"][0].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(vector.len(), 8);
    assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-6);
    assert_ne!(native["embeddings"][0], native["embeddings"][1]);
    let openai = json_of(&fake, "/v1/embeddings", &json!({"model": "embed", "input": "où ?"})).await;
    assert_eq!(
        openai,
        json!({"object": "list", "data": [{"object": "embedding", "embedding": native["embeddings"][0], "index": 0}], "model": "embed",
            "usage": {"prompt_tokens": 2, "total_tokens": 2}})
    );
    let coded = json_of(&fake, "/v1/embeddings", &json!({"model": "embed", "input": "où ?", "encoding_format": "base64"})).await;
    let bytes = data_encoding::BASE64.decode(coded["data"][0]["embedding"].as_str().unwrap().as_bytes()).unwrap();
    let decoded: Vec<f32> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    let single: Vec<f32> = vector.iter().map(|x| *x as f32).collect();
    assert_eq!(decoded, single);
    let old = json_of(&fake, "/api/embeddings", &json!({"model": "embed", "prompt": "où ?"})).await;
    assert_eq!(old["embedding"].as_array().unwrap().len(), 8);
    let wide = json_of(&fake, "/api/embed", &json!({"model": "fake-v16", "input": "x", "dimensions": 12})).await;
    assert_eq!(wide["embeddings"][0].as_array().unwrap().len(), 12);
}

#[tokio::test]
async fn errors_have_the_manners_of_their_surface() {
    let fake = FakeOllama::start();
    let long = "x".repeat(4 * 2049);
    let busy = "server busy, please try again.  maximum pending requests exceeded";
    let openai = |text: &str, kind: &str| json!({"error": {"message": text, "type": kind, "param": null, "code": null}});
    let cases = [
        ("/api/chat", json!({"model": "no", "messages": [{}]}), 404, json!({"error": "model 'no' not found"})),
        ("/api/generate", json!({"prompt": "x"}), 404, json!({"error": "model '' not found"})),
        ("/api/chat", json!({"messages": []}), 400, json!({"error": "model is required"})),
        ("/api/show", json!({"model": "no"}), 404, json!({"error": "model 'no:latest' not found"})),
        ("/api/embed", json!({"model": "no", "input": "x"}), 404, json!({"error": "model \"no\" not found, try pulling it first"})),
        ("/api/embed", json!({"model": "", "input": 3}), 404, json!({"error": "model '' not found"})),
        ("/api/embed", json!({"model": "no", "input": 3}), 400, json!({"error": "invalid input type"})),
        ("/api/chat", chat("a b"), 400, json!({"error": "invalid model name"})),
        ("/api/embed", json!({"model": "a:b:c", "input": "x"}), 400, json!({"error": "invalid model name"})),
        ("/v1/chat/completions", chat("x/y/z/w"), 400, openai("invalid model name", "invalid_request_error")),
        (
            "/api/chat",
            chat_with("tiny", json!({"stream": "no"})),
            400,
            json!({"error": "json: cannot unmarshal string into Go struct field ChatRequest.stream of type bool"}),
        ),
        ("/api/chat", json!([]), 400, json!({"error": "json: cannot unmarshal array into Go value of type api.ChatRequest"})),
        (
            "/api/chat",
            chat_with("tiny", json!({"options": {"num_ctx": "x"}})),
            500,
            json!({"error": "option \"num_ctx\" must be of type integer"}),
        ),
        (
            "/api/chat",
            chat_with("tiny", json!({"format": "xml"})),
            500,
            json!({"error": "invalid format: \"\\\"xml\\\"\"; expected \"json\" or a valid JSON Schema object"}),
        ),
        ("/api/chat", chat("embed"), 400, json!({"error": "\"embed\" does not support chat"})),
        ("/api/generate", json!({"model": "embed", "prompt": "x"}), 400, json!({"error": "\"embed\" does not support generate"})),
        (
            "/api/chat",
            chat("tiny:local:cloud"),
            400,
            json!({"error": "use either :local or :cloud, not both: \"tiny:local:cloud\""}),
        ),
        (
            "/api/embed",
            json!({"model": "embed", "input": long, "truncate": false}),
            400,
            json!({"error": "the input length exceeds the context length"}),
        ),
        ("/api/chat", chat("fake-h503"), 503, json!({"error": busy})),
        ("/v1/chat/completions", chat("fake-h503"), 503, openai(busy, "api_error")),
        ("/v1/chat/completions", chat("no"), 404, openai("model 'no' not found", "not_found_error")),
        ("/v1/chat/completions", json!({"model": "tiny"}), 400, openai("[] is too short - 'messages'", "invalid_request_error")),
        ("/v1/embeddings", json!({"model": "embed"}), 400, openai("invalid input", "invalid_request_error")),
        (
            "/v1/messages",
            chat_with("fake-h503", json!({"max_tokens": 5})),
            503,
            json!({"type": "error", "error": {"type": "overloaded_error", "message": busy}, "request_id": "*"}),
        ),
        (
            "/v1/messages",
            chat("tiny"),
            400,
            json!({"type": "error", "error": {"type": "invalid_request_error",
                "message": "max_tokens is required and must be positive"}, "request_id": "*"}),
        ),
    ];
    for (path, body, status, expected) in cases {
        let response = post(&fake, path, &body).await;
        assert_eq!(response.status(), status, "{path} {body}");
        let mut error: Value = response.json().await.unwrap();
        if let Some(id) = error.get_mut("request_id") {
            *id = "*".into();
        }
        assert_eq!(error, expected, "{path} {body}");
    }
    let empty = client().post(fake.url() + "/api/chat").send().await.unwrap();
    assert_eq!((empty.status().as_u16(), empty.text().await.unwrap()), (400, r#"{"error":"missing request body"}"#.into()));
}

#[tokio::test]
async fn wrong_doors_are_shut_as_gin_shuts_them() {
    let fake = FakeOllama::start();
    let call = async |method: Method, path: &str, header: (&'static str, &str)| {
        let response = client().request(method, fake.url() + path).header(header.0, header.1).send().await.unwrap();
        let location = response.headers().get("location").map(|location| location.to_str().unwrap().to_owned());
        (response.status().as_u16(), location, response.text().await.unwrap())
    };
    let moved = "<a href=\"/api/tags\">Moved Permanently</a>.\n\n";
    let none = ("x-none", "");
    assert_eq!(call(Method::GET, "/nothing", none).await, (404, None, "404 page not found".into()));
    assert_eq!(call(Method::GET, "/v1/models/a/b", none).await.0, 404);
    assert_eq!(call(Method::DELETE, "/api/chat", none).await, (405, None, "405 method not allowed".into()));
    assert_eq!(call(Method::GET, "/api/tags/", none).await, (301, Some("/api/tags".into()), moved.into()));
    assert_eq!(call(Method::POST, "/api/chat/", none).await.0, 307);
    for (method, path, allowed) in
        [(Method::DELETE, "/api/chat", "POST"), (Method::POST, "/api/tags", "HEAD, GET"), (Method::POST, "/v1/models/tiny", "GET")]
    {
        let response = client().request(method, fake.url() + path).send().await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &allowed.parse().unwrap()), "{path}");
    }
    for (header, value, status) in [
        ("host", "evil.example", 403),
        ("host", "127.0.0.1.evil.example:11434", 403),
        ("host", "192.168.1.5", 200),
        ("host", "mine.local:11434", 200),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://localhost:3000", 200),
        ("origin", "tauri://localhost", 200),
    ] {
        let (got, _, body) = call(Method::GET, "/api/version", (header, value)).await;
        assert_eq!(got, status, "{header}: {value}");
        assert_eq!(body.is_empty(), status == 403, "{header}: {value}");
    }
}

#[tokio::test]
async fn failures_in_mid_stream_are_told_natively_and_lost_elsewhere() {
    let fake = FakeOllama::start();
    let native = lines(&post(&fake, "/api/chat", &chat("fake-n9-x2")).await.text().await.unwrap());
    assert_eq!(native.len(), 3);
    let error = native[2]["error"].as_str().unwrap();
    assert_eq!(error, "an error was encountered while running the model: unexpected EOF");

    let text = post(&fake, "/v1/chat/completions", &chat_with("fake-n9-x2", json!({"stream": true}))).await.text().await.unwrap();
    assert!(!text.contains("encountered") && !text.contains("[DONE]"));
    let last = &events(&text)[2].1;
    assert_eq!((last["model"].as_str(), &last["choices"][0]["delta"]), (Some(""), &json!({"content": ""})));
    let body = chat_with("fake-n9-x2", json!({"stream": true, "max_tokens": 99}));
    let text = post(&fake, "/v1/messages", &body).await.text().await.unwrap();
    assert!(text.contains(" 1xxxx") && !text.contains("message_stop") && !text.contains("encountered"));

    let whole = post(&fake, "/v1/chat/completions", &chat("fake-n9-x2")).await;
    assert_eq!(whole.status(), 500);
    assert_eq!(whole.json::<Value>().await.unwrap()["error"]["message"], error);
    // Before the first token there is a status still, in the head of what would have been a stream.
    for (path, body) in
        [("/api/chat", chat("fake-n9-x0")), ("/v1/messages", chat_with("fake-n9-x0", json!({"stream": true, "max_tokens": 99})))]
    {
        let failed = post(&fake, path, &body).await;
        assert_eq!((failed.status().as_u16(), &failed.headers()["content-type"]), (500, &"application/json".parse().unwrap()));
        assert_eq!((failed.content_length(), failed.headers().get("cache-control").is_some()), (None, path != "/api/chat"));
    }
}

#[tokio::test]
async fn a_long_answer_says_no_length() {
    let fake = FakeOllama::start();
    for (tokens, length) in [(16, true), (2000, false)] {
        let body = json!({"model": format!("fake-n{tokens}"), "prompt": "x", "stream": false});
        let answer = post(&fake, "/v1/completions", &body).await;
        assert_eq!(answer.headers().contains_key("content-length"), length);
        let text = answer.text().await.unwrap();
        assert_eq!((text.len() <= 2048, text.ends_with("}\n")), (length, true));
    }
    let loaded = post(&fake, "/v1/completions", &json!({"model": "tiny", "prompt": "", "stream": true})).await;
    assert_eq!(
        (&loaded.headers()["content-type"], loaded.content_length().is_some()),
        (&"text/event-stream".parse().unwrap(), true)
    );
}

#[tokio::test]
async fn an_answer_may_stop_without_being_done_or_be_cut() {
    let fake = FakeOllama::start();
    let native = lines(&post(&fake, "/api/chat", &chat("fake-n9-f2")).await.text().await.unwrap());
    assert_eq!(native.len(), 2);
    assert!(native.iter().all(|line| line["done"] == false));
    let whole = json_of(&fake, "/api/chat", &chat_with("fake-n9-f2", json!({"stream": false}))).await;
    assert_eq!((whole["done"].as_bool(), whole.get("done_reason")), (Some(false), None));

    let mut cut = post(&fake, "/api/chat", &chat("fake-n9-e2")).await;
    let mut got = Vec::new();
    let error = loop {
        match cut.chunk().await {
            Ok(Some(bytes)) => got.extend_from_slice(&bytes),
            Ok(None) => panic!("a cut is not an end"),
            Err(error) => break error,
        }
    };
    assert!(error.is_body() || error.is_decode(), "{error:?}");
    assert_eq!(lines(&String::from_utf8(got).unwrap()).len(), 2);
}

#[tokio::test]
async fn the_last_line_may_be_very_long() {
    let fake = FakeOllama::start();
    for path in ["/api/chat", "/api/generate"] {
        let body = chat_with("fake-n1-g1100", json!({"prompt": "x"}));
        let text = post(&fake, path, &body).await.text().await.unwrap();
        let last = text.lines().last().unwrap();
        assert!(last.len() > 1100 << 10 && last.len() < 1200 << 10, "{}", last.len());
        assert_eq!(serde_json::from_str::<Value>(last).unwrap()["done"], true);
    }
}

#[tokio::test]
async fn writes_may_be_split_inside_a_character() {
    let fake = FakeOllama::start();
    fake.hold_at_token("babel-n4-u1", 4);
    let mut response = post(&fake, "/api/chat", &chat("babel-n4-u1")).await;
    let (mut chunks, mut got) = (Vec::new(), Vec::new());
    while got.iter().filter(|byte| **byte == b'\n').count() < 4 {
        let chunk = response.chunk().await.unwrap().unwrap();
        got.extend_from_slice(&chunk);
        chunks.push(chunk);
    }
    assert!(chunks.iter().any(|chunk| std::str::from_utf8(chunk).is_err()), "{chunks:?}");
    fake.release();
    got.extend_from_slice(&response.bytes().await.unwrap());
    assert_eq!(lines(&String::from_utf8(got).unwrap()).len(), 5);
}

#[tokio::test]
async fn no_header_leaves_before_the_first_token() {
    let fake = FakeOllama::start();
    fake.hold_before_headers("tiny");
    let url = fake.url() + "/api/chat";
    let call =
        tokio::spawn(async move { client().post(url).body(chat("tiny").to_string()).send().await.unwrap().text().await.unwrap() });
    fake.wait_for(|log| log.iter().any(|seen| seen.held)).await;
    assert_eq!(get(&fake, "/api/ps").await["models"][0]["name"], "tiny:latest");
    assert!(!call.is_finished());
    fake.release();
    assert_eq!(lines(&call.await.unwrap()).len(), 17);
    fake.wait_for(|log| log[0].outcome == Outcome::Finished && !log[0].held).await;
    let started = Instant::now();
    json_of(&fake, "/api/chat", &chat_with("fake-n2-l20-t30000-d10000", json!({"stream": false}))).await;
    assert!(started.elapsed() >= Duration::from_millis(60));
}

fn gone(seen: &Seen) -> Option<(Instant, u32)> {
    match seen.outcome {
        Outcome::ClientGone { at, tokens_sent } => Some((at, tokens_sent)),
        _ => None,
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_at_once() {
    let fake = FakeOllama::start();
    fake.set_parallel(Some(1));
    let start = |body: Value| {
        let url = fake.url() + "/api/chat";
        tokio::spawn(async move { client().post(url).body(body.to_string()).send().await.unwrap().text().await })
    };
    // Generating, streamed.
    fake.hold_at_token("tiny", 3);
    let call = start(chat("tiny"));
    fake.wait_for(|log| log.first().is_some_and(|seen| seen.held)).await;
    // Waiting for the slot that the first one has.
    let queued = start(chat("seer"));
    fake.wait_for(|log| log.len() == 2).await;
    queued.abort();
    let left = Instant::now();
    fake.wait_for(|log| gone(&log[1]).is_some()).await;
    let (at, tokens) = gone(&fake.log()[1]).unwrap();
    assert!(at - left < Duration::from_millis(100) && tokens == 0);
    call.abort();
    let left = Instant::now();
    fake.wait_for(|log| gone(&log[0]).is_some()).await;
    let (at, tokens) = gone(&fake.log()[0]).unwrap();
    assert!(at - left < Duration::from_millis(100), "{:?}", at - left);
    assert_eq!(tokens, 3);
    // Generating, not streamed: its slot was freed.
    let call = start(chat_with("tiny", json!({"stream": false})));
    fake.wait_for(|log| log.len() == 3 && log[2].held).await;
    call.abort();
    fake.wait_for(|log| gone(&log[2]).is_some()).await;
    // Before the headers of one that never comes.
    let call = start(chat("fake-z0"));
    fake.wait_for(|log| log.len() == 4).await;
    call.abort();
    fake.wait_for(|log| gone(&log[3]).is_some()).await;
    fake.wait_for_connections(|open| open == 0).await;
}

#[tokio::test]
async fn it_stops_and_comes_back_where_it_was() {
    let fake = FakeOllama::start();
    fake.hold_at_token("tiny", 2);
    let mut response = post(&fake, "/api/chat", &chat("tiny")).await;
    response.chunk().await.unwrap().unwrap();
    assert_eq!(fake.open_connections(), 1);
    fake.stop();
    assert_eq!(fake.open_connections(), 0);
    assert_eq!(fake.log()[0].outcome, Outcome::Stopped);
    let broken = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "a stop is not an end");
    assert!(client().get(fake.url()).send().await.unwrap_err().is_connect());
    fake.restart().unwrap();
    assert_eq!(get(&fake, "/api/ps").await, json!({"models": []}));
    assert_eq!(fake.log().len(), 2);
}

#[tokio::test]
async fn the_log_has_what_came() {
    let fake = FakeOllama::start();
    let body = chat("fake-n1").to_string();
    client().post(fake.url() + "/api/chat?x=1").header("x-secret", "s").body(body.clone()).send().await.unwrap();
    fake.wait_for(|log| log[0].outcome == Outcome::Finished).await;
    let seen = fake.log().remove(0);
    assert_eq!((seen.method, &*seen.path, seen.headers["x-secret"].to_str().unwrap()), (Method::POST, "/api/chat?x=1", "s"));
    assert_eq!(seen.body, body);
    use sha2::Digest;
    assert_eq!(seen.body_sha256, data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(body)));
}

#[tokio::test]
async fn a_pull_reports_and_ends_with_the_model() {
    let fake = FakeOllama::start();
    let lines = lines(&post(&fake, "/api/pull", &json!({"model": "new"})).await.text().await.unwrap());
    assert_eq!(lines[0], json!({"status": "pulling manifest"}));
    let digest = lines[1]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    assert_eq!(
        lines[1],
        json!({"status": format!("pulling {}", &digest[..12]), "digest": format!("sha256:{digest}"), "total": 2_019_377_376_u64})
    );
    assert_eq!(lines[5]["completed"], lines[5]["total"]);
    let last: Vec<&str> = lines[lines.len() - 3..].iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(last, ["verifying sha256 digest", "writing manifest", "success"]);
    assert_eq!(json_of(&fake, "/api/show", &json!({"model": "new"})).await["capabilities"], json!(["completion"]));

    let failed = self::lines(&post(&fake, "/api/pull", &json!({"name": "fails"})).await.text().await.unwrap());
    assert_eq!(failed.last().unwrap(), &json!({"error": "max retries exceeded: EOF"}));
    assert_eq!(post(&fake, "/api/pull", &json!({"model": "fails", "stream": false})).await.status(), 500);
    assert_eq!(json_of(&fake, "/api/pull", &json!({"model": "tiny", "stream": false})).await, json!({"status": "success"}));
    assert_eq!(post(&fake, "/api/show", &json!({"model": "fails"})).await.status(), 404);

    let delete = async |name: &str| {
        let body = json!({"model": name}).to_string();
        let response = client().delete(fake.url() + "/api/delete").body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(delete("new").await, (200, String::new()));
    assert_eq!(delete("new").await, (404, r#"{"error":"model 'new' not found"}"#.into()));
    assert_eq!(fake.violations(), []);
}

#[tokio::test]
async fn what_must_never_be_reached_is_noted() {
    let fake = FakeOllama::start();
    fake.add_model(Model::new("stub").remote("https://ollama.com:443", "big"));
    for (path, body) in [
        ("/api/create", json!({})),
        ("/api/push", json!({})),
        ("/api/copy", json!({})),
        ("/api/me", json!({})),
        ("/api/signout", json!({})),
        ("/api/blobs/sha256:00", json!({})),
        ("/api/experimental/web_search", json!({})),
        ("/api/chat", chat("big:cloud")),
        ("/api/chat", chat("big:120b-Cloud")),
        ("/api/chat", chat("stub")),
        (
            "/v1/messages",
            chat_with("tiny", json!({"max_tokens": 9, "tools": [{"type": "web_search_20250305", "name": "web_search"}]})),
        ),
    ] {
        assert_eq!(post(&fake, path, &body).await.status(), 200, "{path}");
    }
    // Go takes the last of two keys, whatever their case.
    let twice = r#"{"model": "tiny", "stream": false, "messages": [{"role": "user"}], "MODEL": "x:cloud"}"#;
    let response = client().post(fake.url() + "/api/chat").body(twice).send().await.unwrap();
    assert_eq!(response.json::<Value>().await.unwrap()["remote_host"], "https://ollama.com:443");
    assert_eq!(post(&fake, "/api/chat", &chat("stub:local")).await.status(), 404);
    assert_eq!(post(&fake, "/api/chat", &chat("tiny:local")).await.status(), 200);
    let kinds: Vec<ViolationKind> = fake.violations().iter().map(|violation| violation.kind).collect();
    let mut expected = vec![ViolationKind::Forbidden; 7];
    expected.extend([ViolationKind::CloudModel, ViolationKind::CloudModel, ViolationKind::RemoteModel, ViolationKind::WebSearch]);
    expected.push(ViolationKind::CloudModel);
    assert_eq!(kinds, expected);
}
