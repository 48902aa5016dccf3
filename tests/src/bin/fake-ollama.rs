//! A fake Ollama as a program: for a demonstration where there is no real one, for the benchmark, and for the browser's tests.

use std::io::Write;
use std::net::SocketAddr;

use clap::Parser;
use journeys::control::{self, WrittenStep};
use journeys::fake_ollama::{Capability, FakeOllama, Model, Outcome, Seen};
use journeys::scripted::Step;
use serde::Deserialize;
use serde_json::{Value, json};

/// Answers as Ollama would, without a model: the words are made up.
#[derive(Debug, Parser)]
#[command(name = "fake-ollama", version)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:11434")]
    addr: SocketAddr,
    /// Threads that serve.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Print the address alone, without the words before it.
    #[arg(long)]
    print_url: bool,
    /// Keep what is seen, take commands on standard input, and end with it.
    #[arg(long)]
    control: bool,
}

/// A line on standard input.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    /// Have a model play a part.
    Play { model: String, steps: Vec<WrittenStep> },
    /// Add a model, or replace the one of that name.
    Add { model: String, capabilities: Vec<Ability> },
    /// Take a model away.
    Remove { model: String },
    /// Hold a model before a token, or before its headers.
    Hold { model: String, token: Option<u32> },
    /// Let everything held go on.
    Release,
    /// How many requests are computed at once.
    Parallel { slots: Option<usize> },
    /// Close the listener and every connection.
    Stop,
    /// Listen again.
    Start,
    /// Tell of every generation that was asked for.
    Seen,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ability {
    Completion,
    Tools,
    Insert,
    Vision,
    Embedding,
    Thinking,
}

impl From<Ability> for Capability {
    fn from(ability: Ability) -> Self {
        match ability {
            Ability::Completion => Self::Completion,
            Ability::Tools => Self::Tools,
            Ability::Insert => Self::Insert,
            Ability::Vision => Self::Vision,
            Ability::Embedding => Self::Embedding,
            Ability::Thinking => Self::Thinking,
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let fake = if args.control { FakeOllama::start_on(args.addr) } else { FakeOllama::start_forgetful(args.addr, args.threads) }?;
    let mut out = std::io::stdout().lock();
    if args.print_url {
        writeln!(out, "{}", fake.url())?;
    } else {
        writeln!(out, "listening on {}", fake.url())?;
    }
    out.flush()?;
    drop(out);
    if args.control {
        return control::obey(|command| carry_out(&fake, command));
    }
    // It serves until it is killed.
    loop {
        std::thread::park();
    }
}

fn carry_out(fake: &FakeOllama, command: Command) -> anyhow::Result<Value> {
    match command {
        Command::Play { model, steps } => fake.plays(&model, steps.into_iter().map(Step::from)),
        Command::Add { model, capabilities } => {
            let capabilities: Vec<Capability> = capabilities.into_iter().map(Capability::from).collect();
            fake.add_model(Model::new(&model).with(&capabilities));
        }
        Command::Remove { model } => return Ok(json!({"removed": fake.remove_model(&model)})),
        Command::Hold { model, token: Some(token) } => fake.hold_at_token(&model, token),
        Command::Hold { model, token: None } => fake.hold_before_headers(&model),
        Command::Release => fake.release(),
        Command::Parallel { slots } => fake.set_parallel(slots),
        Command::Stop => fake.stop(),
        Command::Start => fake.restart()?,
        Command::Seen => {
            let generations = fake.log().into_iter().filter(|seen| seen.path.contains("chat") || seen.path.contains("generate"));
            return Ok(json!({"seen": generations.map(told).collect::<Vec<_>>(), "connections": fake.open_connections()}));
        }
    }
    Ok(json!({}))
}

fn told(seen: Seen) -> Value {
    let (outcome, ended_ms, tokens) = match seen.outcome {
        Outcome::Running => ("running", None, None),
        Outcome::Finished => ("finished", None, None),
        Outcome::ClientGone { at, tokens_sent } => ("client_gone", Some(control::unix_ms(at)), Some(tokens_sent)),
        Outcome::Stopped => ("stopped", None, None),
    };
    let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    json!({
        "path": seen.path, "model": body["model"], "at_ms": control::unix_ms(seen.at),
        "outcome": outcome, "ended_ms": ended_ms, "tokens": tokens, "held": seen.held,
    })
}
