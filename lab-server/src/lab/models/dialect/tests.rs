use bytes::Bytes;

use super::*;
use crate::lab::{
    content::ModelChoice,
    models::frames::Frames,
    prompt::{Said, ToolSpec, Turn},
};

const OPENAI: Dialect = Dialect::Openai { limit: "max_completion_tokens" };

/// What a stream says, cut into pieces at these places.
fn said(dialect: Dialect, stream: &str, cut: &[usize]) -> Vec<Piece> {
    let (mut frames, mut reader) = (Frames::new(dialect.framing()), dialect.reader());
    let mut pieces = Vec::new();
    let mut from = 0;
    for &to in cut.iter().chain([&stream.len()]) {
        let bytes = &stream.as_bytes()[from..to];
        frames.read(bytes, |message| reader.read(message, &mut |piece| pieces.push(piece))).unwrap();
        from = to;
    }
    frames.finish(|message| reader.read(message, &mut |piece| pieces.push(piece))).unwrap();
    reader.finish(&mut |piece| pieces.push(piece));
    pieces
}

/// The same wherever it is cut.
fn check(dialect: Dialect, stream: &str, expected: &[Piece]) {
    assert_eq!(said(dialect, stream, &[]), expected);
    for at in 0..stream.len() {
        assert_eq!(said(dialect, stream, &[at]), expected, "cut at {at}");
    }
    let everywhere: Vec<usize> = (1..stream.len()).collect();
    assert_eq!(said(dialect, stream, &everywhere), expected);
}

fn words(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

fn thought(text: &str) -> Piece {
    Piece::Reasoning(text.to_owned())
}

fn call(id: Option<&str>, tool: &str, arguments: Value, echo: Option<&str>) -> Piece {
    Piece::Call { id: id.map(str::to_owned), tool: tool.to_owned(), arguments, echo: echo.map(str::to_owned) }
}

#[test]
fn openai_is_read_wherever_it_is_cut() {
    let stream = concat!(
        ": keepalive\n\n",
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"hm\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"é 🦀\"},\"finish_reason\":null}],\"usage\":null}\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_a\",\"function\":{\"name\":\"read\",\"arguments\":\"\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"call_b\",\"function\":{\"name\":\"list\",\"arguments\":\"{oops\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\":\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"\\\"東\\\"}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n",
    );
    check(
        OPENAI,
        stream,
        &[
            thought("hm"),
            words("é 🦀"),
            call(Some("call_a"), "read", json!({ "a": "東" }), None),
            call(Some("call_b"), "list", "{oops".into(), None),
            Piece::Stop(Stop::ToolCalls),
        ],
    );
}

#[test]
fn anthropic_is_read_wherever_it_is_cut() {
    let event = |value: Value| format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap());
    let delta = |index: u8, delta: Value| event(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
    let start = |block: Value| event(json!({ "type": "content_block_start", "index": 0, "content_block": block }));
    let stop = || event(json!({ "type": "content_block_stop", "index": 0 }));
    let stream = [
        event(json!({ "type": "message_start", "message": { "usage": { "input_tokens": 1 } } })),
        start(json!({ "type": "thinking", "thinking": "", "signature": "" })),
        delta(0, json!({ "type": "thinking_delta", "thinking": "hm" })),
        delta(0, json!({ "type": "signature_delta", "signature": "EqQB" })),
        stop(),
        event(json!({ "type": "ping" })),
        start(json!({ "type": "text", "text": "" })),
        delta(1, json!({ "type": "text_delta", "text": "déjà" })),
        stop(),
        start(json!({ "type": "tool_use", "id": "toolu_1", "name": "read", "input": {} })),
        delta(2, json!({ "type": "input_json_delta", "partial_json": "" })),
        delta(2, json!({ "type": "input_json_delta", "partial_json": "{\"path\":" })),
        delta(2, json!({ "type": "input_json_delta", "partial_json": "\"a\"}" })),
        stop(),
        start(json!({ "type": "tool_use", "id": "toolu_2", "name": "list", "input": {} })),
        stop(),
        event(json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" }, "usage": { "output_tokens": 9 } })),
        event(json!({ "type": "message_stop" })),
    ]
    .concat();
    let echo = r#"anthropic:[{"type":"thinking","thinking":"hm","signature":"EqQB"}]"#;
    check(
        Dialect::Anthropic,
        &stream,
        &[
            thought("hm"),
            words("déjà"),
            call(Some("toolu_1"), "read", json!({ "path": "a" }), Some(echo)),
            call(Some("toolu_2"), "list", json!({}), None),
            Piece::Stop(Stop::ToolCalls),
        ],
    );
    // And goes back where it stood.
    let said = Said::ToolCall { call: "toolu_1".into(), tool: "read".into(), arguments: json!({}), echo: Some(echo.into()) };
    let body = Dialect::Anthropic.body(&prompt(vec![Turn::Assistant(vec![said])]), Limits::default());
    assert_eq!(body["messages"][0]["content"][0], json!({ "type": "thinking", "thinking": "hm", "signature": "EqQB" }));
    assert_eq!(body["messages"][0]["content"][1]["type"], "tool_use");
}

#[test]
fn gemini_is_read_wherever_it_is_cut() {
    let stream = concat!(
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hm\",\"thought\":true}],\"role\":\"model\"}}]}\r\n\r\n",
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"où\"}]}}],\"usageMetadata\":{\"promptTokenCount\":1}}\r\n\r\n",
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"f\",\"args\":{\"x\":[1,\"}\"]}},",
        "\"thoughtSignature\":\"AbC=\"},{\"functionCall\":{\"name\":\"g\"}}]},\"finishReason\":\"STOP\"}]}\r\n\r\n",
    );
    check(
        Dialect::Gemini,
        stream,
        &[
            thought("hm"),
            words("où"),
            call(None, "f", json!({ "x": [1, "}"] }), Some("gemini:AbC=")),
            call(None, "g", json!({}), None),
            Piece::Stop(Stop::ToolCalls),
        ],
    );
    check(Dialect::Gemini, "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n", &[Piece::Stop(Stop::Refused)]);
    let with = |echo: Option<&str>| {
        let (call, tool, arguments) = ("c".into(), "f".into(), json!({}));
        let said = Said::ToolCall { call, tool, arguments, echo: echo.map(str::to_owned) };
        let body = Dialect::Gemini.body(&prompt(vec![Turn::Assistant(vec![said.clone(), said])]), Limits::default());
        let parts = &body["contents"][0]["parts"];
        (parts[0]["thoughtSignature"].clone(), parts[1]["thoughtSignature"].clone())
    };
    assert_eq!(with(Some("gemini:AbC=")), ("AbC=".into(), "AbC=".into()));
    // Another provider's thoughts are nobody's business here.
    assert_eq!(with(Some("anthropic:[]")), ("skip_thought_signature_validator".into(), Value::Null));
}

#[test]
fn ollama_is_read_wherever_it_is_cut() {
    let stream = concat!(
        "\n{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"hm\"},\"done\":false}\n",
        "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"東京 \\u003cb\\u003e\"},\"done\":false}\n",
        "{\"message\":{\"content\":\"\",\"tool_calls\":[{\"id\":\"call_1\",\"function\":{\"index\":0,\"name\":\"read\",\"arguments\":{\"a\":1}}},",
        "{\"function\":{\"name\":\"list\"}}]},\"done\":false}\n",
        "{\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"load_duration\":2500000,\"eval_count\":3}\n",
    );
    check(
        Dialect::Ollama,
        stream,
        &[
            thought("hm"),
            words("東京 <b>"),
            call(Some("call_1"), "read", json!({ "a": 1 }), None),
            call(None, "list", json!({}), None),
            Piece::Loaded(2_500_000),
            Piece::Stop(Stop::Finished),
        ],
    );
    check(Dialect::Ollama, "{\"error\":\"secret words\"}\n", &[Piece::Failed]);
}

#[test]
fn what_is_no_message_says_nothing() {
    let noise = "data: {\"id\":\n\ndata: 7\n\ndata: {\"choices\":7,\"type\":9}\n\ndata: [1,2]\n\nevent\n\ndata: {\"choices\":[{\"delta\":9}]}\n\n";
    for dialect in [OPENAI, Dialect::Anthropic, Dialect::Gemini, Dialect::Ollama] {
        assert_eq!(said(dialect, noise, &[]), [], "{dialect:?}");
    }
}

#[test]
fn a_prompt_is_written_in_every_dialect() {
    let turns = vec![
        Turn::User(vec![
            Said::Text("look".into()),
            Said::Image { media_type: "image/png".into(), data: Bytes::from_static(b"abc") },
        ]),
        Turn::Assistant(vec![
            Said::Text("well".into()),
            Said::ToolCall { call: "c1".into(), tool: "read".into(), arguments: "{oops".into(), echo: None },
        ]),
        Turn::User(vec![
            Said::ToolResult { call: "c1".into(), tool: "read".into(), text: "no".into(), ok: false },
            Said::Text("and?".into()),
        ]),
        Turn::Assistant(Vec::new()),
    ];
    let spec = ToolSpec { name: "read".into(), description: "Reads.".into(), parameters: json!({ "type": "object" }) };
    let mut prompt = Prompt { tools: vec![spec], system: Some("be brief".into()), ..prompt(turns) };
    prompt.choice.temperature = Some(0.7);
    let function = json!({ "name": "read", "description": "Reads.", "parameters": { "type": "object" } });

    assert_eq!(
        OPENAI.body(&prompt, Limits { output: Some(1000), context: Some(8192) }),
        json!({
            "model": "m",
            "messages": [
                { "role": "system", "content": "be brief" },
                { "role": "user", "content": [
                    { "type": "text", "text": "look" },
                    { "type": "image_url", "image_url": { "url": "data:image/png;base64,YWJj" } },
                ] },
                { "role": "assistant", "content": "well", "tool_calls": [
                    { "id": "c1", "type": "function", "function": { "name": "read", "arguments": "{oops" } },
                ] },
                { "role": "tool", "tool_call_id": "c1", "content": "no" },
                { "role": "user", "content": "and?" },
            ],
            "stream": true,
            "stream_options": { "include_usage": true },
            "max_completion_tokens": 1000,
            "temperature": 0.7,
            "tools": [{ "type": "function", "function": function }],
        })
    );
    let input = json!({ "not_an_object": "{oops" });
    assert_eq!(
        Dialect::Anthropic.body(&prompt, Limits::default()),
        json!({
            "model": "m",
            "max_tokens": USUAL_OUTPUT,
            "messages": [
                { "role": "user", "content": [
                    { "type": "text", "text": "look" },
                    { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "YWJj" } },
                ] },
                { "role": "assistant", "content": [
                    { "type": "text", "text": "well" }, { "type": "tool_use", "id": "c1", "name": "read", "input": input },
                ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "c1", "content": "no", "is_error": true },
                    { "type": "text", "text": "and?" },
                ] },
            ],
            "stream": true,
            "system": "be brief",
            "temperature": 0.7,
            "tools": [{ "name": "read", "description": "Reads.", "input_schema": { "type": "object" } }],
        })
    );
    let gemini = Dialect::Gemini.body(&prompt, Limits { output: Some(70_000), context: None });
    assert_eq!(gemini["generationConfig"], json!({ "maxOutputTokens": USUAL_OUTPUT, "temperature": 0.7 }));
    assert_eq!(gemini["contents"][2]["parts"][0]["functionResponse"], json!({ "name": "read", "response": { "error": "no" } }));
    let ollama = Dialect::Ollama.body(&prompt, Limits { output: None, context: Some(8192) });
    assert_eq!(
        ollama["messages"],
        json!([
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": "look", "images": ["YWJj"] },
            { "role": "assistant", "content": "well", "tool_calls": [{ "id": "c1", "function": { "name": "read", "arguments": input } }] },
            { "role": "tool", "tool_name": "read", "tool_call_id": "c1", "content": "no" },
            { "role": "user", "content": "and?" },
        ])
    );
    assert_eq!(ollama["options"], json!({ "num_ctx": 8192, "temperature": 0.7 }));
    assert_eq!(Dialect::Gemini.path("a/b c"), "/v1beta/models/a%2Fb%20c:streamGenerateContent?alt=sse");
}

fn prompt(turns: Vec<Turn>) -> Prompt {
    let choice = ModelChoice { model: "m".into(), max_output_tokens: None, temperature: None };
    Prompt { choice, system: None, turns, tools: Vec::new() }
}
