//! The fake cloud providers as a program: for the clients' suites, a demonstration without an account, the benchmark, and the browser's
//! tests.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use journeys::control::{self, WrittenStep};
use journeys::fake_provider::{Certificate, FakeProvider, Kind};
use journeys::scripted::Step;
use serde::Deserialize;
use serde_json::{Value, json};

/// Answers as cloud providers would, without a model: the words are made up.
#[derive(Debug, Parser)]
#[command(name = "fake-provider", version)]
struct Args {
    /// Whom paths without a provider's name are for.
    #[arg(long, value_enum, default_value_t = Whom::All)]
    kind: Whom,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: SocketAddr,
    /// Threads that serve.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Serve TLS, h2 included, with this certificate chain (PEM).
    #[arg(long, requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[arg(long, requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// Take commands on standard input, and end with it.
    #[arg(long)]
    control: bool,
}

/// A line on standard input.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    /// Have a model play a part.
    Play { model: String, steps: Vec<WrittenStep> },
    /// Hold a model before a token, or before its headers.
    Hold { model: String, token: Option<u32> },
    /// Let everything held go on.
    Release,
}

/// One provider, or all by their paths.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Whom {
    All,
    Openai,
    Anthropic,
    Gemini,
    Xai,
    Azure,
    Compatible,
}

impl Whom {
    const fn kind(self) -> Option<Kind> {
        Some(match self {
            Self::All => return None,
            Self::Openai => Kind::Openai,
            Self::Anthropic => Kind::Anthropic,
            Self::Gemini => Kind::Gemini,
            Self::Xai => Kind::Xai,
            Self::Azure => Kind::Azure,
            Self::Compatible => Kind::Compatible,
        })
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()));
    let certificate = match (&args.cert_file, &args.key_file) {
        (Some(chain), Some(key)) => Some(Certificate { chain_pem: read(chain)?, key_pem: read(key)? }),
        _ => None,
    };
    let fake = FakeProvider::start_forgetful(args.addr, args.kind.kind(), certificate.as_ref(), args.threads)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {}", fake.origin())?;
    for kind in Kind::ALL {
        // They open nothing but this process.
        writeln!(out, "{} {} {}", kind.name(), fake.url(kind), fake.key(kind))?;
    }
    out.flush()?;
    drop(out);
    if args.control {
        return control::obey(|command| Ok(carry_out(&fake, command)));
    }
    // It serves until it is killed.
    loop {
        std::thread::park();
    }
}

fn carry_out(fake: &FakeProvider, command: Command) -> Value {
    match command {
        Command::Play { model, steps } => fake.plays(&model, steps.into_iter().map(Step::from)),
        Command::Hold { model, token: Some(token) } => fake.hold_at_token(&model, token),
        Command::Hold { model, token: None } => fake.hold_before_headers(&model),
        Command::Release => fake.release(),
    }
    json!({})
}
