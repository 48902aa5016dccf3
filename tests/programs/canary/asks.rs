//! Every place of a request to a cloud model in which a secret can stand, and every way in which its provider can answer.

use serde_json::{Value, json};

use super::{
    parrot::{MOODS, Mood},
    probes::{Fate, Probe, request},
    search::Canary,
};

/// A surface of the model API with a provider behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    Chat,
    Completions,
    Responses,
    Embeddings,
    Images,
    Messages,
    CountTokens,
    Gemini,
    GeminiStream,
    Azure,
}

pub(super) const SURFACES: [Surface; 10] = [
    Surface::Chat,
    Surface::Completions,
    Surface::Responses,
    Surface::Embeddings,
    Surface::Images,
    Surface::Messages,
    Surface::CountTokens,
    Surface::Gemini,
    Surface::GeminiStream,
    Surface::Azure,
];

impl Surface {
    /// The provider, and its kind in the configuration.
    pub(super) const fn provider(self) -> (&'static str, &'static str) {
        match self {
            Self::Chat | Self::Completions | Self::Responses | Self::Embeddings | Self::Images => ("openai", "openai"),
            Self::Messages | Self::CountTokens => ("anthropic", "anthropic"),
            Self::Gemini | Self::GeminiStream => ("google", "gemini"),
            Self::Azure => ("azure", "azure-deployments"),
        }
    }

    /// The model by which a mood is asked for.
    pub(super) fn model(self, mood: Mood) -> String {
        format!("{}-{}", format!("{self:?}").to_lowercase(), mood.name())
    }

    /// Where a model is asked.
    fn path(self, model: &str) -> String {
        match self {
            Self::Chat => "/v1/chat/completions".to_owned(),
            Self::Completions => "/v1/completions".to_owned(),
            Self::Responses => "/v1/responses".to_owned(),
            Self::Embeddings => "/v1/embeddings".to_owned(),
            Self::Images => "/v1/images/generations".to_owned(),
            Self::Messages => "/v1/messages".to_owned(),
            Self::CountTokens => "/v1/messages/count_tokens".to_owned(),
            Self::Gemini => format!("/v1beta/models/{model}:generateContent"),
            Self::GeminiStream => format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"),
            Self::Azure => format!("/openai/deployments/{model}/chat/completions?api-version=2024-10-21"),
        }
    }

    /// A question in its words.
    pub(super) fn body(self, model: &str, words: &str, stream: bool) -> Value {
        let messages = json!([{"role": "user", "content": words}]);
        match self {
            Self::Chat => json!({"model": model, "stream": stream, "messages": messages}),
            Self::Azure => json!({"stream": stream, "messages": messages}),
            Self::Completions => json!({"model": model, "stream": stream, "prompt": words}),
            Self::Responses => json!({"model": model, "stream": stream, "input": words}),
            Self::Embeddings => json!({"model": model, "input": words}),
            Self::Images => json!({"model": model, "prompt": words}),
            Self::Messages => json!({"model": model, "stream": stream, "max_tokens": 99, "messages": messages}),
            Self::CountTokens => json!({"model": model, "messages": messages}),
            Self::Gemini | Self::GeminiStream => json!({"contents": [{"role": "user", "parts": [{"text": words}]}]}),
        }
    }

    /// Whether there are answers in pieces and in one.
    const fn streams(self) -> &'static [bool] {
        match self {
            Self::Chat | Self::Completions | Self::Responses | Self::Messages | Self::Azure => &[true, false],
            Self::Embeddings | Self::Images | Self::CountTokens | Self::Gemini => &[false],
            Self::GeminiStream => &[true],
        }
    }

    /// Whether its answers come in pieces, where they can.
    pub(super) fn ask_for_stream(self) -> bool {
        self.streams()[0]
    }

    /// A question on the wire.
    pub(super) fn ask(self, key: &str, mood: Mood, words: &str, stream: bool) -> Vec<u8> {
        let model = self.model(mood);
        let body = self.body(&model, words, stream).to_string();
        request(&format!("POST {}", self.path(&model)), &bearer(key), body.as_bytes())
    }
}

fn bearer(key: &str) -> String {
    format!("authorization: Bearer {key}\r\n")
}

/// Keys for everything.
pub(super) struct Keys<'a> {
    /// Opens.
    pub(super) good: &'a str,
    /// Opens, and may spend nothing.
    pub(super) poor: &'a str,
    /// Was revoked.
    pub(super) revoked: &'a str,
}

/// Makes the probes.
struct Maker<'a> {
    keys: &'a Keys<'a>,
    probes: Vec<Probe>,
}

/// Every probe that is sent as it is and whose answer has an end.
pub(super) fn all(keys: &Keys<'_>) -> Vec<Probe> {
    let mut maker = Maker { keys, probes: Vec::new() };
    maker.outcomes();
    maker.openai();
    maker.others();
    maker.envelope();
    maker.refused();
    maker.probes
}

impl Maker<'_> {
    fn add(&mut self, name: &str, fate: Fate, make: impl FnOnce(&Canary) -> Vec<u8>) {
        let canary = Canary::fresh();
        let bytes = make(&canary);
        self.probes.push(Probe { name: name.to_owned(), canary, bytes, fate });
    }

    fn post(&mut self, surface: Surface, name: &str, fate: Fate, body: impl FnOnce(&str, &str) -> Value) {
        self.post_text(surface, name, fate, |model, c| body(model, c).to_string());
    }

    fn post_text(&mut self, surface: Surface, name: &str, fate: Fate, body: impl FnOnce(&str, &str) -> String) {
        let key = bearer(self.keys.good);
        let model = surface.model(Mood::Well);
        self.add(&format!("{surface:?}: {name}"), fate, |canary| {
            request(&format!("POST {}", surface.path(&model)), &key, body(&model, canary.as_str()).as_bytes())
        });
    }

    /// Every way in which a provider can answer, on every surface, whole and streamed.
    fn outcomes(&mut self) {
        let key = self.keys.good;
        let ends = MOODS.into_iter().filter(|mood| !matches!(mood, Mood::Stalls | Mood::Hangs));
        for mood in ends {
            for surface in SURFACES {
                for stream in surface.streams() {
                    // A provider whose key was refused, or that has too many requests, is not asked again at once.
                    if matches!(mood, Mood::Keyless) && !stream && surface.streams().len() > 1 {
                        continue;
                    }
                    self.add(&format!("{surface:?} {mood:?} {stream}"), Fate::Arrives, |c| {
                        surface.ask(key, mood, c.as_str(), *stream)
                    });
                }
            }
        }
    }

    /// OpenAI's words.
    fn openai(&mut self) {
        let arrives = Fate::Arrives;
        let chat = |model: &str, messages: Value, more: Value| {
            let mut body = json!({"model": model, "messages": messages});
            if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
                body.extend(more);
            }
            body
        };
        let user = || json!([{"role": "user", "content": "hello"}]);
        let tool = |name: &str, description: &str, property: &str| {
            json!([{"type": "function", "function": {"name": name, "description": description, "parameters": {
                "type": "object", "properties": {property: {"type": "string"}}}}}])
        };
        let called = |name: &str, arguments: &str, result: &str| {
            json!([{"role": "user", "content": "hello"},
                {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}]},
                {"role": "tool", "tool_call_id": "call_1", "content": result}])
        };
        let part = |part: Value| json!([{"role": "user", "content": [{"type": "text", "text": "what is it?"}, part]}]);
        let said = |role: &str, words: &str| json!([{"role": role, "content": words}, {"role": "user", "content": "hello"}]);
        let c = Surface::Chat;
        self.post(c, "system", arrives, |m, c| chat(m, said("system", c), json!({})));
        self.post(c, "developer", arrives, |m, c| chat(m, said("developer", c), json!({})));
        self.post(c, "assistant", arrives, |m, c| chat(m, said("assistant", c), json!({})));
        self.post(c, "author's name", arrives, |m, c| chat(m, json!([{"role": "user", "name": c, "content": "x"}]), json!({})));
        self.post(c, "role that there is not", arrives, |m, c| chat(m, said(c, "x"), json!({})));
        self.post(c, "tool's description", arrives, |m, c| chat(m, user(), json!({"tools": tool("look", c, "where")})));
        self.post(c, "tool's name", arrives, |m, c| chat(m, user(), json!({"tools": tool(c, "looks", "where")})));
        self.post(c, "tool's parameter", arrives, |m, c| chat(m, user(), json!({"tools": tool("look", "looks", c)})));
        self.post(c, "tool call's name", arrives, |m, c| chat(m, called(c, "{}", "done"), json!({})));
        self.post(c, "tool call's arguments", arrives, |m, c| {
            chat(m, called("look", &json!({"where": c}).to_string(), "x"), json!({}))
        });
        self.post(c, "tool call's result", arrives, |m, c| chat(m, called("look", "{}", c), json!({})));
        self.post(c, "tool choice", arrives, |m, c| {
            chat(m, user(), json!({"tool_choice": {"type": "function", "function": {"name": c}}}))
        });
        self.post(c, "image as base64", arrives, |m, c| {
            chat(m, part(json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{c}")}})), json!({}))
        });
        self.post(c, "image's address", arrives, |m, c| {
            chat(m, part(json!({"type": "image_url", "image_url": {"url": format!("https://example.com/{c}.png")}})), json!({}))
        });
        self.post(c, "file", arrives, |m, c| {
            chat(m, part(json!({"type": "file", "file": {"filename": c, "file_data": c}})), json!({}))
        });
        self.post(c, "audio", arrives, |m, c| {
            chat(m, part(json!({"type": "input_audio", "input_audio": {"data": c, "format": "wav"}})), json!({}))
        });
        for (name, more) in [
            ("metadata", (|c| json!({"metadata": {"note": c}})) as fn(&str) -> Value),
            ("metadata's name", |c| json!({"metadata": {c: "note"}})),
            ("user field", |c| json!({"user": c})),
            ("safety identifier", |c| json!({"safety_identifier": c})),
            ("prompt cache key", |c| json!({"prompt_cache_key": c})),
            ("stop strings", |c| json!({"stop": ["x", c]})),
            ("logit bias", |c| json!({"logit_bias": {c: 1}})),
            ("prediction", |c| json!({"prediction": {"type": "content", "content": c}})),
            ("service tier", |c| json!({"service_tier": c})),
            ("number of a wrong type", |c| json!({"temperature": c})),
            ("limit of a wrong type", |c| json!({"max_tokens": c})),
            ("stream options", |c| json!({"stream": true, "stream_options": {"note": c}})),
            ("unknown field", |c| json!({"note": c})),
            ("unknown field's name", |c| json!({c: 1})),
            ("schema", |c| {
                let schema = json!({"type": "object", "properties": {c: {"type": "string"}}, "required": [c]});
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}})
            }),
            ("web search", |c| json!({"web_search_options": {"user_location": {"approximate": {"city": c}}}})),
        ] {
            self.post(c, name, arrives, |m, c| chat(m, user(), more(c)));
        }
        self.post(c, "messages of a wrong type", arrives, |m, c| json!({"model": m, "messages": c}));
        let completions = Surface::Completions;
        self.post(completions, "suffix", arrives, |m, c| json!({"model": m, "prompt": "hello", "suffix": c}));
        self.post(completions, "list of prompts", arrives, |m, c| json!({"model": m, "prompt": ["hello", c]}));
        let responses = Surface::Responses;
        self.post(responses, "instructions", arrives, |m, c| json!({"model": m, "input": "hello", "instructions": c}));
        self.post(
            responses,
            "item of the input",
            arrives,
            |m, c| json!({"model": m, "input": [{"role": "user", "content": [{"type": "input_text", "text": c}]}]}),
        );
        self.post(
            responses,
            "reasoning",
            arrives,
            |m, c| json!({"model": m, "input": [{"type": "reasoning", "encrypted_content": c, "summary": []}]}),
        );
        self.post(responses, "earlier answer", arrives, |m, c| json!({"model": m, "input": "hello", "previous_response_id": c}));
        self.post(
            responses,
            "prompt's variables",
            arrives,
            |m, c| json!({"model": m, "input": "x", "prompt": {"variables": {"a": c}}}),
        );
        let embeddings = Surface::Embeddings;
        self.post(embeddings, "list", arrives, |m, c| json!({"model": m, "input": ["first", c]}));
        self.post(embeddings, "format", arrives, |m, c| json!({"model": m, "input": "x", "encoding_format": c}));
    }

    /// Anthropic's, Gemini's and Azure's words.
    fn others(&mut self) {
        let arrives = Fate::Arrives;
        let messages = Surface::Messages;
        let ask = |model: &str, said: Value, more: (&str, Value)| {
            let mut body = json!({"model": model, "max_tokens": 50, "messages": said});
            body[more.0] = more.1;
            body
        };
        let user = || json!([{"role": "user", "content": "hello"}]);
        for (name, field, value) in [
            ("system", "system", (|c| json!(c)) as fn(&str) -> Value),
            ("system blocks", "system", |c| json!([{"type": "text", "text": c, "cache_control": {"type": "ephemeral"}}])),
            ("user id", "metadata", |c| json!({"user_id": c})),
            ("stop sequence", "stop_sequences", |c| json!([c])),
            ("thinking", "thinking", |c| json!({"type": "enabled", "budget_tokens": 1024, "note": c})),
            (
                "tool",
                "tools",
                |c| json!([{"name": c, "description": c, "input_schema": {"type": "object", "properties": {c: {}}}}]),
            ),
            ("container", "container", |c| json!({"id": c})),
            ("server of tools", "mcp_servers", |c| json!([{"type": "url", "url": c, "name": "x", "authorization_token": c}])),
        ] {
            self.post(messages, name, arrives, |m, c| ask(m, user(), (field, value(c))));
        }
        for (name, blocks) in [
            ("block", (|c| json!([{"type": "text", "text": c}])) as fn(&str) -> Value),
            ("image", |c| json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": c}}])),
            ("image's address", |c| json!([{"type": "image", "source": {"type": "url", "url": c}}])),
            (
                "document",
                |c| json!([{"type": "document", "title": c, "source": {"type": "text", "media_type": "text/plain", "data": c}}]),
            ),
            ("tool's result", |c| json!([{"type": "tool_result", "tool_use_id": "toolu_1", "content": c}])),
            ("tool's input", |c| json!([{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"where": c}}])),
            ("earlier thoughts", |c| json!([{"type": "thinking", "thinking": c, "signature": c}])),
        ] {
            self.post(messages, name, arrives, |m, c| {
                ask(m, json!([{"role": "user", "content": blocks(c)}]), ("stream", json!(true)))
            });
        }
        self.post(Surface::CountTokens, "system", arrives, |m, c| json!({"model": m, "system": c, "messages": user()}));

        let gemini = |parts: Value, more: (&str, Value)| {
            let mut body = json!({"contents": [{"role": "user", "parts": parts}]});
            body[more.0] = more.1;
            body
        };
        for (name, parts) in [
            ("inline data", (|c| json!([{"inlineData": {"mimeType": "image/png", "data": c}}])) as fn(&str) -> Value),
            ("file's address", |c| json!([{"fileData": {"mimeType": "video/mp4", "fileUri": c}}])),
            ("function call", |c| json!([{"functionCall": {"name": c, "args": {"where": c}}}])),
            ("function's response", |c| json!([{"functionResponse": {"name": "look", "response": {"result": c}}}])),
            ("thought's signature", |c| json!([{"text": "x", "thoughtSignature": c}])),
        ] {
            self.post(Surface::Gemini, name, arrives, |_, c| gemini(parts(c), ("safetySettings", json!([]))));
        }
        for (name, field, value) in [
            ("system instruction", "systemInstruction", (|c| json!({"parts": [{"text": c}]})) as fn(&str) -> Value),
            ("system instruction, the other spelling", "system_instruction", |c| json!({"parts": [{"text": c}]})),
            ("tools", "tools", |c| json!([{"functionDeclarations": [{"name": c, "description": c}]}])),
            (
                "schema",
                "generationConfig",
                |c| json!({"responseSchema": {"type": "OBJECT", "properties": {c: {"type": "STRING"}}}}),
            ),
            ("stop sequences", "generationConfig", |c| json!({"stopSequences": [c]})),
            ("cached content", "cachedContent", |c| json!(c)),
            ("labels", "labels", |c| json!({"note": c})),
        ] {
            self.post(Surface::GeminiStream, name, arrives, |_, c| gemini(json!([{"text": "hello"}]), (field, value(c))));
        }
        self.post(Surface::Azure, "data source", arrives, |_, c| {
            json!({"messages": [{"role": "user", "content": "x"}], "data_sources": [{"type": "azure_search", "parameters": {"endpoint": c}}]})
        });
    }

    /// Around the body.
    fn envelope(&mut self) {
        let key = bearer(self.keys.good);
        let hello = |surface: Surface| surface.body(&surface.model(Mood::Well), "hello", false).to_string();
        let mut header = |name: &str, fate: Fate, line: &dyn Fn(&Canary) -> String| {
            self.add(&format!("header {name}"), fate, |c| {
                request("POST /v1/chat/completions", &format!("{key}{}", line(c)), hello(Surface::Chat).as_bytes())
            });
        };
        for name in [
            "user-agent",
            "x-stainless-os",
            "x-stainless-custom",
            "openai-beta",
            "anthropic-beta",
            "idempotency-key",
            "x-client-request-id",
            "x-session-id",
            "accept-language",
        ] {
            header(name, Fate::Arrives, &|c| format!("{name}: {c}\r\n"));
        }
        for name in [
            "cookie",
            "referer",
            "origin",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-real-ip",
            "forwarded",
            "traceparent",
            "baggage",
            "x-note",
            "openai-organization",
            "openai-project",
            "x-1k4-note",
            "proxy-authorization",
        ] {
            header(name, Fate::Recorded, &|c| format!("{name}: {c}\r\n"));
        }
        header("of another name", Fate::Recorded, &|c| format!("x-{c}: 1\r\n"));
        header("that names a project", Fate::Recorded, &|c| format!("x-1k4-project: {c}\r\n"));
        header("content-encoding", Fate::Recorded, &|c| format!("content-encoding: {c}\r\n"));
        let mut line = |name: &str, fate: Fate, surface: Surface, first: &dyn Fn(&Canary) -> String| {
            self.add(name, fate, |c| request(&first(c), &key, hello(surface).as_bytes()));
        };
        let recorded = Fate::Recorded;
        line("query", recorded, Surface::Chat, &|c| format!("POST /v1/chat/completions?note={c}"));
        line("Gemini's query", recorded, Surface::Gemini, &|c| format!("POST /v1beta/models/gemini-well:generateContent?note={c}"));
        line("Gemini's model", recorded, Surface::Gemini, &|c| format!("POST /v1beta/models/{c}:generateContent"));
        line("Gemini's verb", Fate::Outside, Surface::Gemini, &|c| format!("POST /v1beta/models/gemini-well:{c}"));
        line("Azure's deployment", recorded, Surface::Azure, &|c| format!("POST /openai/deployments/{c}/chat/completions"));
        line("model that is looked up", recorded, Surface::Chat, &|c| format!("GET /v1/models/{c}"));
        line("Gemini's model that is looked up", recorded, Surface::Chat, &|c| format!("GET /v1beta/models/{c}"));
        line("a list's query", recorded, Surface::Chat, &|c| format!("GET /v1/models?note={c}"));
        for path in ["/v1/files", "/v1/batches", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/fine_tuning/jobs"] {
            line(&format!("path {path}"), Fate::Outside, Surface::Chat, &|c| format!("POST {path}/{c}"));
        }
        line("path of the Lab's own", Fate::Outside, Surface::Chat, &|c| format!("GET /api/requests?note={c}"));
        line("request that is looked up", Fate::Outside, Surface::Chat, &|c| format!("GET /v1/requests/{c}"));
    }

    /// What never gets to a provider.
    fn refused(&mut self) {
        let recorded = Fate::Recorded;
        for surface in SURFACES {
            let (poor, revoked) = (self.keys.poor, self.keys.revoked);
            if surface != Surface::CountTokens {
                self.add(&format!("{surface:?}: refused for money"), recorded, |c| {
                    surface.ask(poor, Mood::Well, c.as_str(), false)
                });
            }
            self.add(&format!("{surface:?}: refused key"), Fate::Outside, |c| surface.ask(revoked, Mood::Well, c.as_str(), false));
            let unknown = format!("1k4_live_{}_{}", "0".repeat(12), "0".repeat(49));
            self.add(&format!("{surface:?}: unknown key"), Fate::Outside, |c| surface.ask(&unknown, Mood::Well, c.as_str(), true));
            self.post_text(surface, "JSON that breaks off", recorded, |m, c| format!(r#"{{"model": "{m}", "contents": "{c}"#));
            self.post_text(surface, "no JSON", recorded, |_, c| c.to_owned());
            self.post(surface, "an array", recorded, |_, c| json!([c]));
        }
        let chat = Surface::Chat;
        self.post(chat, "unknown model", recorded, |_, c| json!({"model": c, "messages": []}));
        self.post(chat, "unknown model of a provider", recorded, |_, c| json!({"model": format!("openai/{c}"), "messages": []}));
        self.post(chat, "model of a wrong type", recorded, |_, c| json!({"model": {"name": c}, "messages": []}));
        self.post(chat, "stream of a wrong type", recorded, |m, c| json!({"model": m, "stream": c, "messages": []}));
        self.post_text(chat, "model twice", recorded, |m, c| format!(r#"{{"model": "{m}", "model": "{c}", "messages": []}}"#));
        self.post(chat, "background", recorded, |m, c| json!({"model": m, "background": true, "input": c}));
        self.post(Surface::Messages, "unknown model", recorded, |_, c| json!({"model": c, "max_tokens": 1, "messages": []}));
        self.post_text(chat, "too large", recorded, |m, c| {
            let words = format!("{c} ").repeat((33 << 20) / 33);
            chat.body(m, &words, true).to_string()
        });
        let key = bearer(self.keys.good);
        self.add("a form of several parts", recorded, |c| {
            let form = format!("--x\r\ncontent-disposition: form-data; name=\"{c}\"; filename=\"{c}\"\r\n\r\n{c}\r\n--x--\r\n");
            let bytes = request("POST /v1/chat/completions", &key, form.as_bytes());
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.replacen("application/json", "multipart/form-data; boundary=x", 1).into_bytes()
        });
        self.add("key in the query", Fate::Outside, |c| {
            request(&format!("POST /v1/chat/completions?key={c}"), "", chat.body("chat-well", "x", false).to_string().as_bytes())
        });
        self.add("Gemini's key in the query", Fate::Outside, |c| {
            request(&format!("POST /v1beta/models/gemini-well:generateContent?key={c}"), "", b"{}")
        });
        for header in ["x-goog-api-key", "x-api-key", "api-key"] {
            self.add(&format!("key as {header}"), Fate::Outside, |c| {
                request(
                    "POST /v1/chat/completions",
                    &format!("{header}: {c}\r\n"),
                    chat.body("chat-well", "x", false).to_string().as_bytes(),
                )
            });
        }
    }
}
