//! Measures ways to the same model side by side: a load generator for OpenAI's chat completions.
//!
//! Each round goes through all targets in turn, so that whatever else the machine does meets all of them alike, and what is compared
//! is the median over rounds of each round's difference or ratio to the first target. Every answer is checked byte for byte against
//! what the first target said before the measurement: a fast wrong answer counts as an error. Prints one JSON document.

mod answer;
mod connection;
mod record;
mod report;
mod target;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use answer::Expected;
use anyhow::Context;
use clap::Parser;
use connection::Connection;
use record::Record;
use target::Target;

/// Measures ways to the same model side by side.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Args {
    /// 'NAME URL [model=M] [key-file=FILE] [ca=FILE]'; the first is what the others are compared with
    #[arg(long = "target", required = true)]
    targets: Vec<String>,
    /// The model, unless a target says otherwise
    #[arg(long)]
    model: String,
    /// Ask for streams
    #[arg(long)]
    stream: bool,
    /// Connections, with one request after another on each
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Length of one target's turn
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Requests to each target before anything is measured
    #[arg(long, default_value_t = 50)]
    warmup: u64,
    /// Requests a second of all connections together, at most; as fast as they are answered when left out
    #[arg(long)]
    rate: Option<f64>,
    /// Spread the first requests of a turn over this time
    #[arg(long, default_value_t = 0)]
    ramp_ms: u64,
}

/// One thread: its cost is then the same for every target, and it leaves the other core to what is measured.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut lanes = Vec::new();
    for text in &args.targets {
        let target = Target::parse(text, &args.model, args.stream).with_context(|| format!("target '{text}'"))?;
        lanes.push(Lane { target: Arc::new(target), connections: Vec::new(), rounds: Vec::new() });
    }
    let first = lanes.first().context("no target")?;
    let expected = Arc::new(Expected::learn(&first.target).await.context("the first target gives no whole answer")?);
    for lane in &mut lanes {
        lane.turn(&args, &expected, Limit::Requests(args.warmup)).await?;
        lane.rounds.clear();
    }
    for round in 1..=args.rounds {
        for lane in &mut lanes {
            lane.turn(&args, &expected, Limit::Time(Duration::from_secs_f64(args.seconds))).await?;
            if let Some(last) = lane.rounds.last() {
                eprintln!("round {round} {}", last.in_words(&lane.target.name));
            }
        }
    }
    let rounds: Vec<(&str, &[Record])> = lanes.iter().map(|lane| (lane.target.name.as_str(), lane.rounds.as_slice())).collect();
    println!("{}", report::document(&rounds));
    Ok(())
}

/// A target, the connections kept to it, and what its turns came to.
struct Lane {
    target: Arc<Target>,
    connections: Vec<Connection>,
    rounds: Vec<Record>,
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    Requests(u64),
    Time(Duration),
}

impl Lane {
    async fn turn(&mut self, args: &Args, expected: &Arc<Expected>, limit: Limit) -> anyhow::Result<()> {
        let begun = Instant::now();
        // A turn that is bounded by its requests still ends when nothing answers.
        let (requests, time) = match limit {
            Limit::Requests(requests) => (requests, Duration::from_secs(30)),
            Limit::Time(time) => (u64::MAX, time),
        };
        let left = Arc::new(AtomicU64::new(requests));
        // Those who ask at a rate also take turns.
        let every = args.rate.map(|rate| Duration::from_secs_f64(args.concurrency as f64 / rate));
        let ramp = every.unwrap_or(Duration::from_millis(args.ramp_ms));
        let mut callers = Vec::new();
        for index in 0..args.concurrency {
            let caller = Caller {
                target: self.target.clone(),
                expected: expected.clone(),
                connection: self.connections.pop(),
                left: left.clone(),
                until: begun + time,
                every,
            };
            let wait = ramp.mul_f64(index as f64 / args.concurrency as f64);
            callers.push(tokio::spawn(caller.call(wait)));
        }
        let mut sum = Record::default();
        for caller in callers {
            let (connection, record) = caller.await?;
            self.connections.extend(connection);
            sum.add(&record);
        }
        sum.took = begun.elapsed();
        self.rounds.push(sum);
        Ok(())
    }
}

/// One connection's worth of load.
struct Caller {
    target: Arc<Target>,
    expected: Arc<Expected>,
    connection: Option<Connection>,
    left: Arc<AtomicU64>,
    until: Instant,
    /// The time from one request to the next, unless the answer takes longer.
    every: Option<Duration>,
}

impl Caller {
    async fn call(mut self, wait: Duration) -> (Option<Connection>, Record) {
        let mut record = Record::default();
        tokio::time::sleep(wait).await;
        while Instant::now() < self.until && self.may_ask() {
            let errors = record.errors();
            let asked = Instant::now();
            answer::ask(&mut self.connection, &self.target, &self.expected, &mut record).await;
            if record.errors() > errors {
                // A dead target is not asked a million times.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if let Some(every) = self.every {
                tokio::time::sleep_until((asked + every).min(self.until).into()).await;
            }
        }
        (self.connection, record)
    }

    fn may_ask(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}
