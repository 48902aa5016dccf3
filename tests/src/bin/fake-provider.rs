//! The fake cloud providers as a program: for the clients' suites, a demonstration without an account, and the benchmark.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use journeys::fake_provider::{Certificate, FakeProvider, Kind};

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
    // It serves until it is killed.
    loop {
        std::thread::park();
    }
}
