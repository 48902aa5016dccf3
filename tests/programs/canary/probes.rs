//! Every place of a request in which a secret can stand, as bytes on the wire.

use serde_json::{Value, json};

use super::search::Canary;

/// One request with a canary in it.
pub(super) struct Probe {
    /// Where the canary stands, and what becomes of the request.
    pub(super) name: String,
    /// The canary.
    pub(super) canary: Canary,
    /// The request.
    pub(super) bytes: Vec<u8>,
    /// What is expected.
    pub(super) fate: Fate,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It reaches Ollama, canary and all, and leaves a record.
    Arrives,
    /// The canary is kept from Ollama, and the request leaves a record.
    Recorded,
    /// It is not let in, and leaves no record.
    Outside,
}

/// The surfaces on which a model speaks, with the place of the question.
pub(super) const SPEAKING: [&str; 6] =
    ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/api/chat", "/api/generate"];

/// A question on one of the surfaces. The fake Ollama's answer begins with it.
pub(super) fn question(path: &str, model: &str, question: &str, stream: bool) -> Value {
    let model = if path.starts_with("/v1/") { format!("local/{model}") } else { model.to_owned() };
    let messages = json!([{"role": "user", "content": question}]);
    match path {
        "/v1/completions" | "/api/generate" => json!({"model": model, "stream": stream, "prompt": question}),
        "/v1/responses" => json!({"model": model, "stream": stream, "input": question}),
        "/v1/messages" => json!({"model": model, "stream": stream, "max_tokens": 999, "messages": messages}),
        "/v1/embeddings" | "/api/embed" => json!({"model": model, "input": question}),
        _ => json!({"model": model, "stream": stream, "messages": messages}),
    }
}

/// A request as it goes over the wire. `headers` are whole lines.
pub(super) fn request(first_line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{first_line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Makes the probes for one key.
pub(super) struct Maker<'a> {
    key: &'a str,
    probes: Vec<Probe>,
}

/// Every probe that is sent as it is and read to its end.
pub(super) fn all(key: &str) -> Vec<Probe> {
    let mut maker = Maker { key, probes: Vec::new() };
    maker.outcomes();
    maker.openai();
    maker.anthropic();
    maker.ollama();
    maker.malformed();
    maker.envelope();
    maker.keys();
    maker.pairing();
    maker.probes
}

impl Maker<'_> {
    fn add(&mut self, name: &str, fate: Fate, make: impl FnOnce(&Canary) -> Vec<u8>) {
        let canary = Canary::fresh();
        let bytes = make(&canary);
        self.probes.push(Probe { name: name.to_owned(), canary, bytes, fate });
    }

    fn bearer(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.key)
    }

    fn post(&mut self, name: &str, path: &str, fate: Fate, body: impl FnOnce(&str) -> Value) {
        self.post_text(name, path, fate, |canary| body(canary).to_string());
    }

    fn post_text(&mut self, name: &str, path: &str, fate: Fate, body: impl FnOnce(&str) -> String) {
        let bearer = self.bearer();
        self.add(name, fate, |canary| request(&format!("POST {path}"), &bearer, body(canary.as_str()).as_bytes()));
    }

    /// Every way in which Ollama can end an answer, on every surface.
    fn outcomes(&mut self) {
        for path in SPEAKING {
            for stream in [true, false] {
                for model in ["tiny", "tiny-h400", "tiny-h500", "tiny-x3", "tiny-f3", "tiny-e3", "thinker", "seer"] {
                    self.post(&format!("{path} {model} {stream}"), path, Fate::Arrives, |c| question(path, model, c, stream));
                }
            }
        }
        for path in ["/v1/embeddings", "/api/embed"] {
            for model in ["embed", "embed-h400", "embed-h500"] {
                self.post(&format!("{path} {model}"), path, Fate::Arrives, |c| question(path, model, c, false));
            }
            self.post(&format!("{path} list"), path, Fate::Arrives, |c| {
                let mut body = question(path, "embed", c, false);
                body["input"] = json!(["first", c]);
                body
            });
        }
    }

    fn openai(&mut self) {
        const CHAT: &str = "/v1/chat/completions";
        let chat = |messages: Value, more: Value| {
            let mut body = json!({"model": "local/tiny", "messages": messages});
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
        let arrives = Fate::Arrives;
        self.post("system", CHAT, arrives, |c| {
            chat(json!([{"role": "system", "content": c}, {"role": "user", "content": "hello"}]), json!({}))
        });
        self.post("developer", CHAT, arrives, |c| {
            chat(json!([{"role": "developer", "content": c}, {"role": "user", "content": "hello"}]), json!({}))
        });
        self.post("assistant", CHAT, arrives, |c| {
            chat(json!([{"role": "user", "content": "hello"}, {"role": "assistant", "content": c}, {"role": "user", "content": "more"}]), json!({}))
        });
        self.post("tool definition", CHAT, arrives, |c| chat(user(), json!({"tools": tool("look", c, "where")})));
        self.post("function name, said back", CHAT, arrives, |c| chat(user(), json!({"tools": tool(c, "looks", "where")})));
        self.post("function name, streamed", CHAT, arrives, |c| {
            chat(user(), json!({"stream": true, "tools": tool(c, "looks", "where")}))
        });
        self.post("tool parameter, said back", CHAT, arrives, |c| chat(user(), json!({"tools": tool("look", "looks", c)})));
        self.post("tool choice", CHAT, arrives, |c| {
            chat(
                user(),
                json!({"tools": tool("look", "looks", "where"), "tool_choice": {"type": "function", "function": {"name": c}}}),
            )
        });
        self.post("tool call's name", CHAT, arrives, |c| chat(called(c, "{}", "done"), json!({})));
        self.post("tool call's arguments", CHAT, arrives, |c| {
            chat(called("look", &json!({"where": c}).to_string(), "done"), json!({}))
        });
        self.post("tool call's result", CHAT, arrives, |c| chat(called("look", "{}", c), json!({})));
        self.post("image as base64", CHAT, arrives, |c| {
            let image = format!("data:image/png;base64,{c}");
            json!({"model": "local/seer", "messages": [{"role": "user", "content": [
                {"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": image}}]}]})
        });
        self.post("stop sequence", CHAT, arrives, |c| chat(user(), json!({"stop": [c]})));
        self.post("user field", CHAT, arrives, |c| chat(user(), json!({"user": c})));
        self.post("metadata", CHAT, arrives, |c| chat(user(), json!({"metadata": {"note": c}})));
        self.post("schema", CHAT, arrives, |c| {
            let schema = json!({"type": "object", "properties": {c: {"type": "string"}}, "required": [c]});
            chat(user(), json!({"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}))
        });
        self.post("name of a message's author", CHAT, arrives, |c| {
            chat(json!([{"role": "user", "name": c, "content": "hello"}]), json!({}))
        });
        self.post("role that there is not", CHAT, arrives, |c| chat(json!([{"role": c, "content": "hello"}]), json!({})));
        self.post("unknown field", CHAT, arrives, |c| chat(user(), json!({c: 1})));
        self.post("a suffix", "/v1/completions", arrives, |c| json!({"model": "local/tiny", "prompt": "hello", "suffix": c}));
        self.post(
            "instructions",
            "/v1/responses",
            arrives,
            |c| json!({"model": "local/tiny", "input": "hello", "instructions": c}),
        );
        self.post(
            "an item of the input",
            "/v1/responses",
            arrives,
            |c| json!({"model": "local/tiny", "input": [{"role": "user", "content": c}]}),
        );
        self.post(
            "an item that Ollama quotes in its refusal",
            "/v1/responses",
            arrives,
            |c| json!({"model": "local/tiny", "input": [{"type": c}]}),
        );
        self.post(
            "encoding that Ollama quotes in its refusal",
            "/v1/embeddings",
            arrives,
            |c| json!({"model": "local/embed", "input": "x", "encoding_format": c}),
        );
    }

    fn anthropic(&mut self) {
        const MESSAGES: &str = "/v1/messages";
        let ask = |messages: Value, more: (&str, Value)| {
            let mut body = json!({"model": "local/tiny", "max_tokens": 50, "messages": messages});
            body[more.0] = more.1;
            body
        };
        let user = || json!([{"role": "user", "content": "hello"}]);
        let arrives = Fate::Arrives;
        self.post("messages: system", MESSAGES, arrives, |c| ask(user(), ("system", json!(c))));
        self.post("messages: system blocks", MESSAGES, arrives, |c| ask(user(), ("system", json!([{"type": "text", "text": c}]))));
        self.post("messages: block", MESSAGES, arrives, |c| {
            ask(json!([{"role": "user", "content": [{"type": "text", "text": c}]}]), ("stream", json!(true)))
        });
        self.post("messages: user id", MESSAGES, arrives, |c| ask(user(), ("metadata", json!({"user_id": c}))));
        self.post("messages: stop sequence", MESSAGES, arrives, |c| ask(user(), ("stop_sequences", json!([c]))));
        self.post("messages: tool", MESSAGES, arrives, |c| {
            ask(
                user(),
                ("tools", json!([{"name": c, "description": "looks", "input_schema": {"type": "object", "properties": {}}}])),
            )
        });
        self.post("messages: input and result of a tool", MESSAGES, arrives, |c| {
            let messages = json!([{"role": "user", "content": "hello"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"where": c}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": c}]}]);
            ask(messages, ("stream", json!(true)))
        });
        self.post("messages: image source that Ollama quotes", MESSAGES, arrives, |c| {
            ask(
                json!([{"role": "user", "content": [{"type": "image", "source": {"type": c, "data": ""}}]}]),
                ("stream", json!(false)),
            )
        });
    }

    fn ollama(&mut self) {
        const CHAT: &str = "/api/chat";
        let arrives = Fate::Arrives;
        let chat = |more: (&str, Value)| {
            let mut body = json!({"model": "tiny", "messages": [{"role": "user", "content": "hello"}]});
            body[more.0] = more.1;
            body
        };
        self.post("option's value", CHAT, arrives, |c| chat(("options", json!({"stop": [c]}))));
        self.post("thinking that Ollama quotes in its refusal", CHAT, arrives, |c| chat(("think", json!(c))));
        self.post("format", CHAT, arrives, |c| chat(("format", json!({"type": "object", "properties": {"x": {"const": c}}}))));
        self.post(
            "image",
            CHAT,
            arrives,
            |c| json!({"model": "seer", "messages": [{"role": "user", "content": "hello", "images": [c]}]}),
        );
        self.post("earlier thoughts", CHAT, arrives, |c| {
            json!({"model": "thinker", "messages": [{"role": "assistant", "content": "x", "thinking": c}, {"role": "user", "content": "hello"}]})
        });
        for (field, fate) in [("system", arrives), ("suffix", arrives), ("template", Fate::Recorded)] {
            self.post(
                &format!("generate: {field}"),
                "/api/generate",
                fate,
                |c| json!({"model": "tiny", "prompt": "hello", field: c}),
            );
        }
        self.post("name to show", "/api/show", Fate::Recorded, |c| json!({"model": c}));
        self.post("keep_alive", CHAT, Fate::Recorded, |c| chat(("keep_alive", json!(c))));
    }

    /// What is refused, and must not be quoted in a log on the way.
    fn malformed(&mut self) {
        let refused = Fate::Recorded;
        for (name, path) in [("chat", "/v1/chat/completions"), ("messages", "/v1/messages"), ("native", "/api/chat")] {
            let model = if path.starts_with("/v1/") { "local/tiny" } else { "tiny" };
            self.post_text(&format!("{name}: no JSON"), path, refused, |c| c.to_owned());
            self.post_text(&format!("{name}: JSON that breaks off"), path, refused, |c| {
                format!(r#"{{"model": "{model}", "messages": [{{"role": "user", "content": "{c}"#)
            });
            self.post_text(&format!("{name}: a comma too many"), path, refused, |c| {
                format!(r#"{{"model": "{model}", "messages": [{{"role": "user", "content": "{c}"}}],}}"#)
            });
            self.post_text(&format!("{name}: no UTF-8 escape"), path, refused, |c| {
                format!(r#"{{"model": "{model}", "x": "{c}\q"}}"#)
            });
            self.post(&format!("{name}: model of a wrong type"), path, refused, |c| json!({"model": {"name": c}}));
            self.post(
                &format!("{name}: stream of a wrong type"),
                path,
                refused,
                |c| json!({"model": model, "stream": c, "messages": []}),
            );
            self.post(
                &format!("{name}: key in another case"),
                path,
                refused,
                |c| json!({"model": model, "MODEL": c, "messages": []}),
            );
            self.post_text(&format!("{name}: key twice"), path, refused, |c| {
                format!(r#"{{"model": "{model}", "model": "{c}", "messages": []}}"#)
            });
            self.post(&format!("{name}: an array"), path, refused, |c| json!([c]));
            self.post(&format!("{name}: unknown model"), path, refused, |c| question(path, c, "hello", true));
            self.post(
                &format!("{name}: unknown workstation"),
                path,
                refused,
                |c| json!({"model": format!("local@{c}/tiny"), "messages": [{"role": "user", "content": "hello"}]}),
            );
            self.post(&format!("{name}: model with a wrong letter"), path, refused, |c| {
                question(path, &format!("{c} x"), "hello", true)
            });
            self.post(&format!("{name}: model of the vendor's"), path, refused, |c| {
                question(path, &format!("{c}:cloud"), "hello", true)
            });
        }
        self.post(
            "messages of a wrong type",
            "/v1/chat/completions",
            Fate::Arrives,
            |c| json!({"model": "local/tiny", "messages": c}),
        );
        self.post(
            "a number of a wrong type",
            "/v1/chat/completions",
            refused,
            |c| json!({"model": "local/tiny", "max_tokens": c, "messages": [{"role": "user", "content": "hello"}]}),
        );
        self.post("options of a wrong type", "/api/chat", refused, |c| json!({"model": "tiny", "options": c, "messages": []}));
        self.post(
            "options twice in two cases",
            "/api/chat",
            refused,
            |c| json!({"model": "tiny", "options": {}, "Options": {"stop": c}, "messages": []}),
        );
        self.post_text("too large a body", "/v1/chat/completions", refused, |c| {
            let words = format!("{c} ").repeat((33 << 20) / 33);
            question("/v1/chat/completions", "tiny", &words, true).to_string()
        });
    }

    /// Around the body.
    fn envelope(&mut self) {
        let bearer = self.bearer();
        let hello = question("/v1/chat/completions", "tiny", "hello", false).to_string();
        // The bridge sends Ollama what it made itself: of these nothing arrives, and nothing must stay on the way.
        let mut head = |name: &str, fate, first_line: &dyn Fn(&Canary) -> String, headers: &dyn Fn(&Canary) -> String| {
            self.add(name, fate, |c| request(&first_line(c), &format!("{bearer}{}", headers(c)), hello.as_bytes()));
        };
        let chat = |_: &Canary| "POST /v1/chat/completions".to_owned();
        let none = |_: &Canary| String::new();
        let recorded = Fate::Recorded;
        for name in [
            "x-note",
            "user-agent",
            "cookie",
            "traceparent",
            "idempotency-key",
            "openai-organization",
            "anthropic-beta",
            "x-forwarded-for",
            "x-forwarded-host",
            "referer",
            "accept",
        ] {
            head(&format!("header {name}"), recorded, &chat, &|c| format!("{name}: {c}\r\n"));
        }
        head("header's name", recorded, &chat, &|c| format!("x-{c}: 1\r\n"));
        head("query", recorded, &|c| format!("POST /v1/chat/completions?note={c}"), &none);
        head("query of a list", recorded, &|c| format!("GET /api/tags?note={c}"), &none);
        head("model in the path", recorded, &|c| format!("GET /v1/models/local/{c}"), &none);
        head("path", Fate::Outside, &|c| format!("POST /v1/{c}"), &none);
        head("path of Ollama's that is not offered", Fate::Outside, &|c| format!("POST /api/blobs/{c}"), &none);
        head("method", Fate::Outside, &|c| format!("{c} /v1/models"), &none);
        head("version", Fate::Outside, &|c| format!("GET /healthz HTTP/{c}"), &none);
        head("line that is no header", Fate::Outside, &chat, &|c| format!("{c}\r\n"));
        head("head that is too large", Fate::Outside, &chat, &|c| format!("x-note: {}\r\n", c.as_str().repeat(2_000)));
    }

    fn keys(&mut self) {
        let hello = question("/v1/chat/completions", "tiny", "hello", false).to_string();
        let mut key = |name: &str, header: &dyn Fn(&Canary) -> String| {
            self.add(name, Fate::Outside, |c| request("POST /v1/chat/completions", &header(c), hello.as_bytes()));
        };
        key("key", &|c| format!("authorization: Bearer {c}\r\n"));
        key("key of the right form", &|c| format!("authorization: Bearer 1k4_live_{}_{c}{}\r\n", "0".repeat(12), "0".repeat(17)));
        key("key as x-api-key", &|c| format!("x-api-key: {c}\r\n"));
        key("key as a password", &|c| format!("authorization: Basic {c}\r\n"));
        key("two keys", &|c| format!("authorization: Bearer {c}\r\nx-api-key: x{c}\r\n"));
        self.add("prompt without a key", Fate::Outside, |c| {
            request(
                "POST /v1/chat/completions",
                "",
                question("/v1/chat/completions", "tiny", c.as_str(), true).to_string().as_bytes(),
            )
        });
        self.add("key in the query", Fate::Outside, |c| {
            request(&format!("POST /v1/chat/completions?api_key={c}"), "", hello.as_bytes())
        });
    }

    /// Where pairing takes text: what is no name of a workstation is kept nowhere either.
    fn pairing(&mut self) {
        let outside = Fate::Outside;
        let form = "content-type: application/x-www-form-urlencoded\r\nsec-fetch-site: same-origin\r\n";
        let post = |path: &str, headers: &str, body: String| {
            let bytes = request(&format!("POST {path}"), headers, body.as_bytes());
            // One content type, the form's.
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if headers.is_empty() { text } else { text.replacen("content-type: application/json\r\n", "", 1) }.into_bytes()
        };
        self.add("page: code", outside, |c| post("/pair/review", form, format!("code={c}&key=x")));
        self.add("page: key", outside, |c| post("/pair/review", form, format!("code=BBBB-BBBB&key={c}")));
        self.add("page: ticket", outside, |c| post("/pair/decide", form, format!("ticket={c}&decision=approve")));
        self.add("page: field", outside, |c| post("/pair/decide", form, format!("{c}=1")));
        self.add("device code", outside, |c| {
            post("/bridge/v1/token", "", json!({"device_code": c.as_str(), "signature": "00"}).to_string())
        });
        self.add("signature", outside, |c| {
            post("/bridge/v1/token", "", json!({"device_code": "00", "signature": c.as_str()}).to_string())
        });
        self.add("public key", outside, |c| {
            let body = json!({"public_key": c.as_str(), "hostname": "x", "os": "x", "version": "x"});
            post("/bridge/v1/device_authorization", "", body.to_string())
        });
        self.add("field of a pairing", outside, |c| {
            post("/bridge/v1/device_authorization", "", json!({c.as_str(): 1}).to_string())
        });
    }
}
