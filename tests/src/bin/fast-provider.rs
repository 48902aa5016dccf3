//! A fake of a cloud provider for the benchmark: OpenAI's chat completions over plain HTTP/1.1, whole and streamed.
//!
//! Written by hand on the socket, as the load generator is: it shares the machine's cores with what is measured, and a server library
//! would cost more than a proxy does. It understands the requests of the benchmark and nothing else; the providers of the tests are
//! the faithful ones. A model's name says how many tokens it answers with, and perhaps how many microseconds each takes: `fake-n100`,
//! `fake-n100-d20000`. Each token is a write of its own, as from a model that makes one at a time.

use std::{fmt::Write as _, io::Write as _, net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use bytes::{Buf, BytesMut};
use clap::Parser;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

/// Answers the benchmark's requests as OpenAI would, without a model.
#[derive(Debug, Parser)]
#[command(name = "fast-provider")]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: SocketAddr,
}

/// The longest request, head and body: the benchmark's have some 500 bytes.
const LONGEST: usize = 1 << 20;
/// The most tokens of an answer, which is made whole in memory.
const MOST_TOKENS: u32 = 10_000;

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind(Args::parse().addr).await?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{}", listener.local_addr()?)?;
    out.flush()?;
    loop {
        let (socket, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = serve(socket).await {
                eprintln!("a connection was given up: {error:#}");
            }
        });
    }
}

/// Answers one request after another until the caller leaves.
async fn serve(mut socket: TcpStream) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut unread = BytesMut::with_capacity(16 << 10);
    // A connection of the benchmark asks for the same model again and again.
    let mut script = Script::default();
    while let Some(length) = next(&mut socket, &mut unread).await? {
        let request: Request = serde_json::from_slice(&unread[length.head..length.head + length.body])?;
        if script.request != request {
            script = Script::of(request);
        }
        unread.advance(length.head + length.body);
        let begun = Instant::now();
        for (piece, number) in script.writes.iter().zip(1..) {
            if !script.pace.is_zero() {
                // By the clock: one that was late does not make those behind it late.
                tokio::time::sleep_until(begun + script.pace * number).await;
            }
            // Who has enough of a stream leaves it.
            if socket.write_all(piece).await.is_err() {
                return Ok(());
            }
            // The tokens of streams that run at once take turns.
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

struct Length {
    head: usize,
    body: usize,
}

/// Reads until a whole request is there; `None` when the caller has left.
async fn next(socket: &mut TcpStream, unread: &mut BytesMut) -> anyhow::Result<Option<Length>> {
    loop {
        if let Some(at) = unread.windows(4).position(|end| end == b"\r\n\r\n") {
            let length = Length { head: at + 4, body: body_length(&unread[..at])? };
            ensure!(length.body < LONGEST, "a request is too long");
            if unread.len() >= length.head + length.body {
                return Ok(Some(length));
            }
        }
        ensure!(unread.len() < 2 * LONGEST, "a request has no end");
        // How a caller leaves, politely or not, is its own business.
        if socket.read_buf(unread).await.unwrap_or(0) == 0 {
            return Ok(None);
        }
    }
}

fn body_length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head).context("a head is no text")?;
    ensure!(head.starts_with("POST ") && head.contains("/chat/completions "), "only chat completions are answered, not {head}");
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let length = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length")).context("a request has no length")?;
    length.1.trim().parse().context("a request's length is no number")
}

/// What of a request matters for its answer.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct Request {
    model: String,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    stream_options: StreamOptions,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// An answer, cut into what is written at once.
#[derive(Default)]
struct Script {
    request: Request,
    writes: Vec<Vec<u8>>,
    /// From one write to the next.
    pace: Duration,
}

/// The same for every question: what it is does not matter to what is measured.
const PROMPT_TOKENS: u32 = 60;
const ID: &str = "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT";
const CREATED: u32 = 1_767_225_600;

impl Script {
    fn of(request: Request) -> Self {
        let tokens = number_in(&request.model, 'n').unwrap_or(16).min(MOST_TOKENS);
        let pace = Duration::from_micros(number_in(&request.model, 'd').unwrap_or(0).into());
        let writes = if request.stream { streamed(&request, tokens) } else { vec![whole(&request.model, tokens)] };
        Self { request, writes, pace }
    }
}

/// The number behind this letter of the name.
fn number_in(model: &str, letter: char) -> Option<u32> {
    model.split(['-', '/', ':']).find_map(|piece| piece.strip_prefix(letter)?.parse().ok())
}

fn usage(tokens: u32) -> serde_json::Value {
    json!({"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens})
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nopenai-version: 2020-10-01\r\nx-request-id: req_5e1b0c7cd0f14f0fb6f0d5b4a2c1e9d7\r\n";

fn whole(model: &str, tokens: u32) -> Vec<u8> {
    let text: String = (0..tokens).fold(String::new(), |mut text, token| {
        // Writing to a string cannot fail.
        let _ = write!(text, " {token}");
        text
    });
    let body = json!({
        "id": ID, "object": "chat.completion", "created": CREATED, "model": model,
        "choices": [{
            "index": 0, "message": {"role": "assistant", "content": text, "refusal": null}, "logprobs": null, "finish_reason": "stop",
        }],
        "usage": usage(tokens),
        "service_tier": "default",
    })
    .to_string();
    format!("{HEAD}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn streamed(request: &Request, tokens: u32) -> Vec<Vec<u8>> {
    let event = |choices: serde_json::Value, usage: Option<serde_json::Value>| {
        let mut event =
            json!({"id": ID, "object": "chat.completion.chunk", "created": CREATED, "model": request.model, "choices": choices});
        if let Some(usage) = usage {
            event["usage"] = usage;
        }
        chunk(&event.to_string())
    };
    let delta = |delta: serde_json::Value, reason: Option<&str>| {
        event(json!([{"index": 0, "delta": delta, "finish_reason": reason}]), None)
    };
    let first = format!("{HEAD}content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")
        + &delta(json!({"role": "assistant", "content": ""}), None);
    let mut last = delta(json!({}), Some("stop"));
    if request.stream_options.include_usage {
        last += &event(json!([]), Some(usage(tokens)));
    }
    last += &chunk("[DONE]");
    last += "0\r\n\r\n";
    // The head leaves with the first token, as from a server that flushes once it has something to say.
    let mut writes: Vec<String> = (0..tokens).map(|token| delta(json!({"content": format!(" {token}")}), None)).collect();
    match writes.first_mut() {
        Some(token) => token.insert_str(0, &first),
        None => writes.push(first),
    }
    writes.push(last);
    writes.into_iter().map(String::into_bytes).collect()
}

/// An event of a stream in a chunk of its own.
fn chunk(data: &str) -> String {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
}
