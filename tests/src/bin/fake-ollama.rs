//! A fake Ollama as a program: for a demonstration where there is no real one, and for the benchmark.

use std::io::Write;
use std::net::SocketAddr;

use clap::Parser;
use journeys::fake_ollama::FakeOllama;

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
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let fake = FakeOllama::start_forgetful(args.addr, args.threads)?;
    let mut out = std::io::stdout().lock();
    if args.print_url {
        writeln!(out, "{}", fake.url())?;
    } else {
        writeln!(out, "listening on {}", fake.url())?;
    }
    out.flush()?;
    drop(out);
    // It serves until it is killed.
    loop {
        std::thread::park();
    }
}
