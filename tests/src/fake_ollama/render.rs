//! How each surface writes an answer: chunk by chunk, or whole.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::json::{encode, push_number, push_text, push_time, time_text, unix_now};
use super::request::{Ask, Surface};

/// What Ollama says when its runner is not there to be asked.
pub(super) const RUNNER_STOPPED: &str = "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, check ollama server logs for details";
/// What Ollama says when its runner dies while it answers.
pub(super) const RUNNER_DIED: &str = "an error was encountered while running the model: unexpected EOF";

/// A call that the model makes: whole, never in parts.
#[derive(Debug, Clone)]
pub(super) struct ToolCall {
    /// Which of the answer's calls it is, from 0.
    pub(super) index: usize,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: Value,
}

/// The end of an answer, in numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) prompt_tokens: u64,
    pub(super) tokens: u64,
    pub(super) total: Duration,
    pub(super) load: Duration,
    pub(super) prompt: Duration,
    pub(super) eval: Duration,
    /// Why it ended; `None` where the model ended without saying that it was done.
    pub(super) reason: Option<&'static str>,
}

/// A whole answer.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) thinking: String,
    pub(super) content: String,
    pub(super) calls: Vec<ToolCall>,
}

/// The writer of one answer.
#[derive(Debug)]
pub(super) struct Renderer {
    /// The model's name as asked for, a JSON string.
    model: Vec<u8>,
    model_name: String,
    created: u64,
    raw: bool,
    padding_kib: usize,
    /// The name elsewhere and its host, for a model that only stands for one.
    remote: Option<(String, String)>,
    dialect: Dialect,
}

#[derive(Debug)]
enum Dialect {
    Chat,
    /// Whether it is in the middle of thoughts.
    Generate {
        thinks: bool,
    },
    OpenAiChat {
        id: String,
        lead: Vec<u8>,
        usage: bool,
        started: bool,
        called: bool,
    },
    OpenAiCompletion {
        id: String,
        usage: bool,
    },
    Responses(Box<Responses>),
    Messages(Messages),
}

/// Numbers answers; identifiers may repeat after 999, as Ollama's do.
static ANSWERS: AtomicU64 = AtomicU64::new(0);

impl Renderer {
    pub(super) fn new(ask: &Ask, padding_kib: usize, remote: Option<(String, String)>) -> Self {
        let number = ANSWERS.fetch_add(1, Ordering::Relaxed);
        let created = unix_now();
        let mut model = vec![b'"'];
        push_text(&mut model, &ask.model);
        model.push(b'"');
        let dialect = match ask.surface {
            Surface::Chat => Dialect::Chat,
            Surface::Generate => Dialect::Generate { thinks: false },
            Surface::OpenAiChat => {
                let id = format!("chatcmpl-{}", number % 999);
                let mut lead =
                    format!("data: {{\"id\":\"{id}\",\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":")
                        .into_bytes();
                lead.extend_from_slice(&model);
                lead.extend_from_slice(b",\"system_fingerprint\":\"fp_ollama\",\"choices\":[");
                Dialect::OpenAiChat { id, lead, usage: ask.include_usage, started: false, called: false }
            }
            Surface::OpenAiCompletion => {
                Dialect::OpenAiCompletion { id: format!("cmpl-{}", number % 999), usage: ask.include_usage }
            }
            Surface::Responses => Dialect::Responses(Box::new(Responses::new(number, ask))),
            Surface::Messages => Dialect::Messages(Messages::new(number, ask)),
        };
        Self { model, model_name: ask.model.clone(), created, raw: ask.raw, padding_kib, remote, dialect }
    }

    /// The type of a streamed answer.
    pub(super) const fn content_type(&self) -> &'static str {
        match self.dialect {
            Dialect::Chat | Dialect::Generate { .. } => "application/x-ndjson",
            _ => "text/event-stream",
        }
    }

    /// A token of thought.
    pub(super) fn thinking(&mut self, text: &str, out: &mut Vec<u8>) {
        match &mut self.dialect {
            Dialect::Chat => {
                self.native_lead(out);
                out.extend_from_slice(b"\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"");
                push_text(out, text);
                out.extend_from_slice(b"\"},\"done\":false}\n");
            }
            Dialect::Generate { thinks } => {
                if !std::mem::replace(thinks, true) {
                    self.blank(out);
                }
                self.native_lead(out);
                out.extend_from_slice(b"\"response\":\"\",\"thinking\":\"");
                push_text(out, text);
                out.extend_from_slice(b"\",\"done\":false}\n");
            }
            Dialect::OpenAiChat { lead, started, .. } => {
                push_delta_lead(lead, started, out);
                out.extend_from_slice(b"\"content\":\"\",\"reasoning\":\"");
                push_text(out, text);
                out.extend_from_slice(b"\"},\"finish_reason\":null}]}\n\n");
            }
            // The converter of this surface does not know of thinking: what is left is a chunk with no text.
            Dialect::OpenAiCompletion { .. } => self.completion_chunk("", None, out),
            Dialect::Responses(state) => state.thinking(text, out),
            Dialect::Messages(state) => state.thinking(text, out),
        }
    }

    /// A token of the answer.
    pub(super) fn content(&mut self, text: &str, out: &mut Vec<u8>) {
        match &mut self.dialect {
            Dialect::Chat => {
                self.native_lead(out);
                out.extend_from_slice(b"\"message\":{\"role\":\"assistant\",\"content\":\"");
                push_text(out, text);
                out.extend_from_slice(b"\"},\"done\":false}\n");
            }
            Dialect::Generate { thinks } => {
                if std::mem::replace(thinks, false) {
                    self.blank(out);
                }
                self.native_lead(out);
                out.extend_from_slice(b"\"response\":\"");
                push_text(out, text);
                out.extend_from_slice(b"\",\"done\":false}\n");
            }
            Dialect::OpenAiChat { lead, started, .. } => {
                push_delta_lead(lead, started, out);
                out.extend_from_slice(b"\"content\":\"");
                push_text(out, text);
                out.extend_from_slice(b"\"},\"finish_reason\":null}]}\n\n");
            }
            Dialect::OpenAiCompletion { .. } => self.completion_chunk(text, None, out),
            Dialect::Responses(state) => state.content(text, out),
            Dialect::Messages(state) => state.content(text, out),
        }
    }

    /// A tool call.
    pub(super) fn call(&mut self, call: &ToolCall, out: &mut Vec<u8>) {
        match &mut self.dialect {
            Dialect::Chat => {
                self.native_lead(out);
                out.extend_from_slice(b"\"message\":{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":");
                out.extend_from_slice(&encode(&json!([native_call(call)])));
                out.extend_from_slice(b"},\"done\":false}\n");
            }
            Dialect::OpenAiChat { lead, started, called, .. } => {
                push_delta_lead(lead, started, out);
                *called = true;
                out.extend_from_slice(b"\"content\":\"\",\"tool_calls\":");
                out.extend_from_slice(&encode(&json!([openai_call(call)])));
                out.extend_from_slice(b"},\"finish_reason\":null}]}\n\n");
            }
            // Neither of these surfaces takes tools.
            Dialect::Generate { .. } | Dialect::OpenAiCompletion { .. } => {}
            Dialect::Responses(state) => state.call(call, out),
            Dialect::Messages(state) => state.call(call, out),
        }
    }

    /// The end of a stream.
    pub(super) fn finish(&mut self, totals: &Totals, out: &mut Vec<u8>) {
        let reason = totals.reason.unwrap_or("stop");
        match &mut self.dialect {
            Dialect::Chat | Dialect::Generate { .. } => {
                let mut last = self.native_whole(&Whole::default(), totals);
                self.pad(&mut last, out);
                out.extend_from_slice(&encode(&last));
                out.push(b'\n');
            }
            Dialect::OpenAiChat { lead, usage, started, called, .. } => {
                if !*started {
                    push_delta_lead(lead, started, out);
                    out.extend_from_slice(b"\"content\":\"\"},\"finish_reason\":null}]}\n\n");
                }
                let reason = if *called && reason == "stop" { "tool_calls" } else { reason };
                out.extend_from_slice(lead);
                out.extend_from_slice(b"{\"index\":0,\"delta\":{},\"finish_reason\":\"");
                out.extend_from_slice(reason.as_bytes());
                out.extend_from_slice(b"\"}]}\n\n");
                if *usage {
                    out.extend_from_slice(lead);
                    out.extend_from_slice(b"],\"usage\":");
                    out.extend_from_slice(&encode(&openai_usage(totals)));
                    out.extend_from_slice(b"}\n\n");
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
            Dialect::OpenAiCompletion { id, usage } => {
                let last = usage.then(|| {
                    json!({
                        "id": id, "object": "text_completion", "created": unix_now(), "choices": [], "model": self.model_name,
                        "system_fingerprint": "fp_ollama", "usage": openai_usage(totals),
                    })
                });
                self.completion_chunk("", Some(reason), out);
                if let Some(last) = last {
                    push_data(&last, out);
                }
                out.extend_from_slice(b"data: [DONE]\n\n");
            }
            Dialect::Responses(state) => state.finish(totals, out),
            Dialect::Messages(state) => state.finish(totals, out),
        }
    }

    /// A failure in mid-stream: one line natively; elsewhere its text is lost, and at most a blank chunk comes.
    pub(super) fn failure(&mut self, message: &str, out: &mut Vec<u8>) {
        match &self.dialect {
            Dialect::Chat | Dialect::Generate { .. } => {
                out.extend_from_slice(&encode(&json!({"error": message})));
                out.push(b'\n');
            }
            Dialect::OpenAiChat { id, .. } => push_data(
                &json!({
                    "id": id, "object": "chat.completion.chunk", "created": self.created, "model": "",
                    "system_fingerprint": "fp_ollama", "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": null}],
                }),
                out,
            ),
            Dialect::OpenAiCompletion { .. } => {
                self.model = b"\"\"".to_vec();
                self.completion_chunk("", None, out);
            }
            Dialect::Responses(_) | Dialect::Messages(_) => {}
        }
    }

    /// An answer that is not streamed.
    pub(super) fn whole(self, whole: &Whole, totals: &Totals) -> (&'static str, Vec<u8>) {
        let value = match &self.dialect {
            Dialect::Chat | Dialect::Generate { .. } => {
                return ("application/json; charset=utf-8", encode(&self.native_whole(whole, totals)));
            }
            Dialect::OpenAiChat { id, .. } => {
                let mut message = json!({"role": "assistant", "content": whole.content});
                if !whole.thinking.is_empty() {
                    message["reasoning"] = whole.thinking.as_str().into();
                }
                let mut reason = totals.reason;
                if !whole.calls.is_empty() {
                    message["tool_calls"] = whole.calls.iter().map(openai_call).collect();
                    reason = reason.map(|reason| if reason == "stop" { "tool_calls" } else { reason });
                }
                json!({
                    "id": id, "object": "chat.completion", "created": self.created, "model": self.model_name,
                    "system_fingerprint": "fp_ollama",
                    "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                    "usage": openai_usage(totals),
                })
            }
            Dialect::OpenAiCompletion { id, .. } => json!({
                "id": id, "object": "text_completion", "created": self.created, "model": self.model_name,
                "system_fingerprint": "fp_ollama",
                "choices": [{"text": whole.content, "index": 0, "finish_reason": totals.reason}],
                "usage": openai_usage(totals),
            }),
            Dialect::Responses(state) => state.whole(whole, totals),
            Dialect::Messages(state) => state.whole(whole, totals),
        };
        let mut bytes = encode(&value);
        // Go's encoder ends a document with a newline; gin's does not.
        bytes.push(b'\n');
        ("application/json", bytes)
    }

    /// What is left of a tag around thoughts where only the words between the tags are taken away.
    fn blank(&self, out: &mut Vec<u8>) {
        self.native_lead(out);
        out.extend_from_slice(b"\"response\":\"\",\"done\":false}\n");
    }

    fn native_lead(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"model\":");
        out.extend_from_slice(&self.model);
        self.push_remote(out);
        out.extend_from_slice(b",\"created_at\":\"");
        push_time(out, SystemTime::now());
        out.extend_from_slice(b"\",");
    }

    fn push_remote(&self, out: &mut Vec<u8>) {
        if let Some((host, model)) = &self.remote {
            out.extend_from_slice(b",\"remote_model\":\"");
            push_text(out, model);
            out.extend_from_slice(b"\",\"remote_host\":\"");
            push_text(out, host);
            out.push(b'"');
        }
    }

    /// A native answer whose last chunk this is: the whole of it, or (with nothing in it) the end of a stream.
    fn native_whole(&self, whole: &Whole, totals: &Totals) -> Value {
        let mut answer = json!({"model": self.model_name});
        if let Some((host, model)) = &self.remote {
            answer["remote_model"] = model.as_str().into();
            answer["remote_host"] = host.as_str().into();
        }
        answer["created_at"] = time_text(SystemTime::now()).into();
        if matches!(self.dialect, Dialect::Chat) {
            let mut message = json!({"role": "assistant", "content": whole.content});
            if !whole.thinking.is_empty() {
                message["thinking"] = whole.thinking.as_str().into();
            }
            if !whole.calls.is_empty() {
                message["tool_calls"] = whole.calls.iter().map(native_call).collect();
            }
            answer["message"] = message;
        } else {
            answer["response"] = whole.content.as_str().into();
            if !whole.thinking.is_empty() {
                answer["thinking"] = whole.thinking.as_str().into();
            }
        }
        answer["done"] = totals.reason.is_some().into();
        let Some(reason) = totals.reason else { return answer };
        answer["done_reason"] = reason.into();
        if matches!(self.dialect, Dialect::Generate { .. }) && !self.raw && matches!(reason, "stop" | "length") {
            answer["context"] = (0..totals.prompt_tokens + totals.tokens).map(|index| 1000 + index % 97).collect();
        }
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        for (name, number) in [
            ("total_duration", nanos(totals.total)),
            ("load_duration", nanos(totals.load)),
            ("prompt_eval_count", totals.prompt_tokens),
            ("prompt_eval_duration", nanos(totals.prompt)),
            ("eval_count", totals.tokens),
            ("eval_duration", nanos(totals.eval)),
        ] {
            if number > 0 {
                answer[name] = number.into();
            }
        }
        answer
    }

    /// Makes the last native line as long as its model's name asks for.
    fn pad(&self, last: &mut Value, out: &[u8]) {
        if self.padding_kib > 0 {
            // "1234," is five bytes.
            let numbers = (self.padding_kib * 1024).saturating_sub(out.len()) / 5 + 1;
            last["context"] = (0..numbers).map(|index| 1000 + index % 9000).collect();
        }
    }

    fn completion_chunk(&self, text: &str, reason: Option<&str>, out: &mut Vec<u8>) {
        let Dialect::OpenAiCompletion { id, usage } = &self.dialect else { return };
        out.extend_from_slice(b"data: {\"id\":\"");
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(b"\",\"object\":\"text_completion\",\"created\":");
        push_number(out, unix_now());
        out.extend_from_slice(b",\"choices\":[{\"text\":\"");
        push_text(out, text);
        out.extend_from_slice(b"\",\"index\":0,\"finish_reason\":");
        match reason {
            None => out.extend_from_slice(b"null"),
            Some(reason) => {
                out.push(b'"');
                out.extend_from_slice(reason.as_bytes());
                out.push(b'"');
            }
        }
        out.extend_from_slice(b"}],\"model\":");
        out.extend_from_slice(&self.model);
        out.extend_from_slice(b",\"system_fingerprint\":\"fp_ollama\"");
        if *usage {
            out.extend_from_slice(b",\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}");
        }
        out.extend_from_slice(b"}\n\n");
    }
}

fn push_delta_lead(lead: &[u8], started: &mut bool, out: &mut Vec<u8>) {
    out.extend_from_slice(lead);
    out.extend_from_slice(b"{\"index\":0,\"delta\":{");
    if !std::mem::replace(started, true) {
        out.extend_from_slice(b"\"role\":\"assistant\",");
    }
}

fn push_data(value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(&encode(value));
    out.extend_from_slice(b"\n\n");
}

fn push_event(event: &str, value: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    out.push(b'\n');
    push_data(value, out);
}

fn native_call(call: &ToolCall) -> Value {
    json!({"id": call.id, "function": {"index": call.index, "name": call.name, "arguments": call.arguments}})
}

fn openai_call(call: &ToolCall) -> Value {
    json!({"id": call.id, "index": call.index, "type": "function", "function": {"name": call.name, "arguments": arguments(call)}})
}

fn arguments(call: &ToolCall) -> String {
    String::from_utf8_lossy(&encode(&call.arguments)).into_owned()
}

fn openai_usage(totals: &Totals) -> Value {
    json!({
        "prompt_tokens": totals.prompt_tokens, "completion_tokens": totals.tokens,
        "total_tokens": totals.prompt_tokens + totals.tokens,
    })
}

/// The stream of `/v1/responses`. Its events are Go maps, so their keys come in alphabetical order.
#[derive(Debug)]
struct Responses {
    number: u64,
    id: String,
    item: String,
    model: String,
    echo: Value,
    sequence: u64,
    index: u64,
    reasoning: Reasoning,
    thoughts: String,
    text: String,
    text_started: bool,
    calls: Vec<Value>,
}

#[derive(Debug, PartialEq, Eq)]
enum Reasoning {
    None,
    Open,
    Closed,
}

impl Responses {
    fn new(number: u64, ask: &Ask) -> Self {
        Self {
            number,
            id: format!("resp_{number}"),
            item: format!("msg_{number}"),
            model: ask.model.clone(),
            echo: ask.echo.clone(),
            sequence: 0,
            index: 0,
            reasoning: Reasoning::None,
            thoughts: String::new(),
            text: String::new(),
            text_started: false,
            calls: Vec::new(),
        }
    }

    fn event(&mut self, kind: &str, mut value: Value, out: &mut Vec<u8>) {
        value["type"] = kind.into();
        value["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        value.sort_all_objects();
        push_event(kind, &value, out);
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if self.sequence == 0 {
            let response = self.streamed(self.object("in_progress", json!([]), Value::Null));
            self.event("response.created", json!({"response": response.clone()}), out);
            self.event("response.in_progress", json!({"response": response}), out);
        }
    }

    fn reasoning_id(&self) -> String {
        format!("rs_{}", self.number)
    }

    fn thinking(&mut self, text: &str, out: &mut Vec<u8>) {
        self.start(out);
        let (id, index) = (self.reasoning_id(), self.index);
        if self.reasoning == Reasoning::None {
            self.reasoning = Reasoning::Open;
            let item = json!({"id": id, "type": "reasoning", "summary": []});
            self.event("response.output_item.added", json!({"output_index": index, "item": item}), out);
        }
        self.thoughts.push_str(text);
        let delta = json!({"item_id": id, "output_index": index, "summary_index": 0, "delta": text});
        self.event("response.reasoning_summary_text.delta", delta, out);
    }

    fn reasoning_item(&self) -> Value {
        json!({
            "id": self.reasoning_id(), "type": "reasoning", "summary": [{"type": "summary_text", "text": self.thoughts}],
            "encrypted_content": self.thoughts,
        })
    }

    fn end_reasoning(&mut self, out: &mut Vec<u8>) {
        if self.reasoning != Reasoning::Open {
            return;
        }
        self.reasoning = Reasoning::Closed;
        let index = self.index;
        let done = json!({"item_id": self.reasoning_id(), "output_index": index, "summary_index": 0, "text": self.thoughts});
        self.event("response.reasoning_summary_text.done", done, out);
        let item = self.reasoning_item();
        self.event("response.output_item.done", json!({"output_index": index, "item": item}), out);
        self.index += 1;
    }

    fn call(&mut self, call: &ToolCall, out: &mut Vec<u8>) {
        self.start(out);
        self.end_reasoning(out);
        let (index, id, arguments) = (self.index, format!("fc_{}_{}", self.number, call.index), arguments(call));
        let item = |status: &str, arguments: &str| {
            json!({
                "id": id, "type": "function_call", "status": status, "call_id": call.id, "name": call.name, "arguments": arguments,
            })
        };
        self.event("response.output_item.added", json!({"output_index": index, "item": item("in_progress", "")}), out);
        let delta = json!({"item_id": id, "output_index": index, "delta": arguments});
        self.event("response.function_call_arguments.delta", delta, out);
        let done = json!({"item_id": id, "output_index": index, "arguments": arguments});
        self.event("response.function_call_arguments.done", done, out);
        let item = item("completed", &arguments);
        self.event("response.output_item.done", json!({"output_index": index, "item": item.clone()}), out);
        self.index += 1;
        self.calls.push(item);
    }

    fn content(&mut self, text: &str, out: &mut Vec<u8>) {
        self.start(out);
        self.end_reasoning(out);
        let (id, index) = (self.item.clone(), self.index);
        if !self.text_started {
            self.text_started = true;
            let item = json!({"id": id, "type": "message", "status": "in_progress", "role": "assistant", "content": []});
            self.event("response.output_item.added", json!({"output_index": index, "item": item}), out);
            let part = json!({"item_id": id, "output_index": index, "content_index": 0, "part": output_text("")});
            self.event("response.content_part.added", part, out);
        }
        self.text.push_str(text);
        let delta = json!({"item_id": id, "output_index": index, "content_index": 0, "delta": text, "logprobs": []});
        self.event("response.output_text.delta", delta, out);
    }

    fn message(&self, text: &str) -> Value {
        json!({"id": self.item, "type": "message", "status": "completed", "role": "assistant", "content": [output_text(text)]})
    }

    fn finish(&mut self, totals: &Totals, out: &mut Vec<u8>) {
        self.start(out);
        self.end_reasoning(out);
        let index = self.index;
        let mut output = Vec::new();
        if self.reasoning == Reasoning::Closed {
            output.push(self.reasoning_item());
        }
        if !self.calls.is_empty() {
            output.append(&mut self.calls);
        } else if self.text_started {
            let (id, text, message) = (self.item.clone(), self.text.clone(), self.message(&self.text));
            let done = json!({"item_id": id, "output_index": index, "content_index": 0, "text": text, "logprobs": []});
            self.event("response.output_text.done", done, out);
            let part = json!({"item_id": id, "output_index": index, "content_index": 0, "part": output_text(&text)});
            self.event("response.content_part.done", part, out);
            self.event("response.output_item.done", json!({"output_index": index, "item": message.clone()}), out);
            output.push(message);
        }
        // Go's nil slice.
        let output = if output.is_empty() { Value::Null } else { Value::Array(output) };
        let mut response = self.streamed(self.object("completed", output, responses_usage(totals)));
        response["completed_at"] = unix_now().into();
        self.event("response.completed", json!({"response": response}), out);
    }

    /// The response as a stream has it: only there is the absence of a summary of the reasoning written out.
    fn streamed(&self, mut response: Value) -> Value {
        if let Some(reasoning) = response["reasoning"].as_object_mut() {
            reasoning.entry("summary").or_insert(Value::Null);
        }
        response
    }

    fn whole(&self, whole: &Whole, totals: &Totals) -> Value {
        let mut output = Vec::new();
        if !whole.thinking.is_empty() {
            output.push(json!({
                "id": format!("rs_{}", self.id), "type": "reasoning",
                "summary": [{"type": "summary_text", "text": whole.thinking}], "encrypted_content": whole.thinking,
            }));
        }
        if whole.calls.is_empty() {
            output.push(self.message(&whole.content));
        }
        output.extend(whole.calls.iter().map(|call| {
            json!({
                "id": format!("fc_{}_{}", self.id, call.index), "type": "function_call", "status": "completed", "call_id": call.id,
                "name": call.name, "arguments": arguments(call),
            })
        }));
        let mut response = self.object("completed", output.into(), responses_usage(totals));
        response["completed_at"] = unix_now().into();
        response
    }

    /// The response itself, with what it repeats of the request.
    fn object(&self, status: &str, output: Value, usage: Value) -> Value {
        let echo = |name: &str, default: Value| self.echo.get(name).cloned().unwrap_or(default);
        let tools = self.echo.get("tools").and_then(Value::as_array).into_iter().flatten().map(|tool| {
            let part = |name: &str| tool.get(name).cloned().unwrap_or_default();
            // A Go map: its keys are sorted.
            let mut parameters = part("parameters");
            parameters.sort_all_objects();
            json!({
                "type": part("type"), "name": part("name"), "description": part("description"), "strict": part("strict"),
                "parameters": parameters,
            })
        });
        let format = self.echo.get("text").and_then(|text| text.get("format")).cloned();
        json!({
            "id": self.id,
            "object": "response",
            "created_at": unix_now(),
            "completed_at": null,
            "status": status,
            "incomplete_details": null,
            "model": self.model,
            "previous_response_id": null,
            "instructions": echo("instructions", Value::Null),
            "output": output,
            "error": null,
            "tools": tools.collect::<Vec<_>>(),
            "tool_choice": "auto",
            "truncation": echo("truncation", "disabled".into()),
            "parallel_tool_calls": true,
            "text": {"format": format.unwrap_or_else(|| json!({"type": "text"}))},
            "top_p": echo("top_p", 1.into()),
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "top_logprobs": 0,
            "temperature": echo("temperature", 1.into()),
            "reasoning": echo("reasoning", Value::Null),
            "usage": usage,
            "max_output_tokens": echo("max_output_tokens", Value::Null),
            "max_tool_calls": null,
            "store": false,
            "background": echo("background", false.into()),
            "service_tier": "default",
            "metadata": {},
            "safety_identifier": null,
            "prompt_cache_key": null,
        })
    }
}

fn output_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn responses_usage(totals: &Totals) -> Value {
    json!({
        "input_tokens": totals.prompt_tokens, "output_tokens": totals.tokens,
        "total_tokens": totals.prompt_tokens + totals.tokens,
        "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0},
    })
}

/// The stream of `/v1/messages`.
#[derive(Debug)]
struct Messages {
    id: String,
    model: String,
    estimated_tokens: u64,
    started: bool,
    index: u64,
    block: Block,
    called: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    None,
    Thinking,
    Text,
}

impl Messages {
    fn new(number: u64, ask: &Ask) -> Self {
        Self {
            id: format!("msg_{number:024x}"),
            model: ask.model.clone(),
            estimated_tokens: ask.talk.estimated_tokens(),
            started: false,
            index: 0,
            block: Block::None,
            called: false,
        }
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            let message = json!({
                "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": [],
                "usage": {"input_tokens": self.estimated_tokens, "output_tokens": 0},
            });
            push_event("message_start", &json!({"type": "message_start", "message": message}), out);
        }
    }

    /// Opens a block of that kind, if it is not the one that is open.
    fn open(&mut self, block: Block, content: &Value, out: &mut Vec<u8>) {
        self.start(out);
        if self.block != block {
            self.close(out);
            self.block = block;
            let start = json!({"type": "content_block_start", "index": self.index, "content_block": content});
            push_event("content_block_start", &start, out);
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.block != Block::None {
            self.block = Block::None;
            push_event("content_block_stop", &json!({"type": "content_block_stop", "index": self.index}), out);
            self.index += 1;
        }
    }

    fn delta(&self, delta: &Value, out: &mut Vec<u8>) {
        push_event("content_block_delta", &json!({"type": "content_block_delta", "index": self.index, "delta": delta}), out);
    }

    fn thinking(&mut self, text: &str, out: &mut Vec<u8>) {
        self.open(Block::Thinking, &json!({"type": "thinking", "thinking": ""}), out);
        self.delta(&json!({"type": "thinking_delta", "thinking": text}), out);
    }

    fn content(&mut self, text: &str, out: &mut Vec<u8>) {
        self.open(Block::Text, &json!({"type": "text", "text": ""}), out);
        self.delta(&json!({"type": "text_delta", "text": text}), out);
    }

    fn call(&mut self, call: &ToolCall, out: &mut Vec<u8>) {
        self.start(out);
        self.close(out);
        self.called = true;
        let block = json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}});
        push_event(
            "content_block_start",
            &json!({"type": "content_block_start", "index": self.index, "content_block": block}),
            out,
        );
        self.delta(&json!({"type": "input_json_delta", "partial_json": arguments(call)}), out);
        push_event("content_block_stop", &json!({"type": "content_block_stop", "index": self.index}), out);
        self.index += 1;
    }

    fn finish(&mut self, totals: &Totals, out: &mut Vec<u8>) {
        self.start(out);
        self.close(out);
        let delta = json!({
            "type": "message_delta", "delta": {"stop_reason": stop_reason(totals, self.called)}, "usage": anthropic_usage(totals),
        });
        push_event("message_delta", &delta, out);
        push_event("message_stop", &json!({"type": "message_stop"}), out);
    }

    fn whole(&self, whole: &Whole, totals: &Totals) -> Value {
        let mut content = Vec::new();
        if !whole.thinking.is_empty() {
            content.push(json!({"type": "thinking", "thinking": whole.thinking}));
        }
        if !whole.content.is_empty() {
            content.push(json!({"type": "text", "text": whole.content}));
        }
        content.extend(
            whole.calls.iter().map(|call| json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments})),
        );
        // Go's nil slice.
        let content = if content.is_empty() { Value::Null } else { Value::Array(content) };
        let mut message = json!({"id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content});
        if totals.reason.is_some() || !whole.calls.is_empty() {
            message["stop_reason"] = stop_reason(totals, !whole.calls.is_empty()).into();
        }
        message["usage"] = anthropic_usage(totals);
        message
    }
}

fn stop_reason(totals: &Totals, called: bool) -> &'static str {
    match totals.reason {
        _ if called => "tool_use",
        Some("stop") | None => "end_turn",
        Some("length") => "max_tokens",
        Some(_) => "stop_sequence",
    }
}

fn anthropic_usage(totals: &Totals) -> Value {
    json!({"input_tokens": totals.prompt_tokens, "output_tokens": totals.tokens})
}
