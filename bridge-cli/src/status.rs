//! `status` and `activity`: the state in words first, then its parts.

use std::{fmt::Write, time::Duration};

use bridge_core::{
    control::{ActivityList, Client},
    status::{Activity, LinkState, Pause, Status, now_ms},
};
use clap::Args;
use wire::relay::{Failure as RelayFailure, Gpu, OllamaState, Outcome, Phase};

use crate::{
    clock,
    failure::Failure,
    output::{Ink, Output, Tone, bytes, span, table},
};

/// `status`
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Stay and print the state at each change
    #[arg(long, short)]
    watch: bool,
}

/// Prints the state.
pub(crate) async fn show(client: &Client, args: Show, output: Output) -> Result<(), Failure> {
    if !args.watch {
        return output.print(&client.status().await?, |ink, status| text(ink, status, now_ms()));
    }
    let mut states = client.watch().await?;
    while let Some(status) = states.next().await? {
        output.print(&status, |ink, status| {
            format!("{}\n{}", ink.paint(Tone::Dim, clock::utc(now_ms())), text(ink, status, now_ms()))
        })?;
    }
    Ok(())
}

/// Prints what was done.
pub(crate) async fn activity(client: &Client, output: Output) -> Result<(), Failure> {
    let activity = ActivityList { activity: client.activity().await? };
    output.print(&activity, |ink, list| activity_text(ink, &list.activity))
}

/// The state in one sentence, as systemd shows it too.
#[must_use]
pub(crate) fn headline(status: &Status) -> String {
    let running = status.relays.iter().filter(|relay| relay.phase != Phase::Queued).count();
    match (&status.link, &status.pause) {
        (LinkState::Unpaired, _) => "Not paired with a Lab".to_owned(),
        (LinkState::Connecting { lab, .. }, _) => format!("Connecting to {lab}"),
        (LinkState::Waiting { lab, .. }, _) => format!("No link to {lab}"),
        (LinkState::Refused { lab, .. }, _) => format!("Refused by {lab}"),
        (LinkState::NoCredential { .. }, _) => "The device's key cannot be read".to_owned(),
        (LinkState::Online { lab, .. }, Pause::Paused { .. }) => format!("Paused, linked to {lab}"),
        (LinkState::Online { lab, .. }, Pause::Quiet) => format!("Quiet hours, linked to {lab}"),
        (LinkState::Online { lab, .. }, Pause::Yielding) => format!("Leaving the GPU to other programs, linked to {lab}"),
        (LinkState::Online { lab, .. }, Pause::Serving) => match (&status.ollama, running) {
            (OllamaState::Running { .. }, 0) => format!("Ready, linked to {lab}"),
            (OllamaState::Running { .. }, 1) => format!("Working on 1 request, linked to {lab}"),
            (OllamaState::Running { .. }, n) => format!("Working on {n} requests, linked to {lab}"),
            (OllamaState::Unknown | OllamaState::TooOld { .. } | OllamaState::Unreachable { .. }, _) => {
                format!("Linked to {lab}, but Ollama is not ready")
            }
        },
    }
}

fn tone(status: &Status) -> Tone {
    match (&status.link, &status.pause, &status.ollama) {
        (LinkState::Online { .. }, Pause::Serving, OllamaState::Running { .. }) => Tone::Good,
        (LinkState::Online { .. } | LinkState::Connecting { .. } | LinkState::Waiting { .. }, ..) => Tone::Caution,
        (LinkState::Unpaired | LinkState::Refused { .. } | LinkState::NoCredential { .. }, ..) => Tone::Bad,
    }
}

fn text(ink: Ink, status: &Status, now: u64) -> String {
    let mut text = format!("{} {}\n", ink.paint(tone(status), "●"), ink.paint(Tone::Strong, headline(status)));
    if let Some(line) = link_detail(&status.link, now) {
        let _ = writeln!(text, "  {line}");
    }
    let mut rows = vec![["Workstation".to_owned(), format!("{} (bridge {})", status.name, status.version)]];
    if let LinkState::Online { device, since_ms, .. } = &status.link {
        rows.push(["Device".to_owned(), device.to_string()]);
        rows.push(["Linked for".to_owned(), span(Duration::from_millis(now.saturating_sub(*since_ms)))]);
    }
    if let Some(store) = &status.credential_store {
        rows.push(["Key kept in".to_owned(), store.clone()]);
    }
    rows.push(["Ollama".to_owned(), format!("{} at {}", ollama_words(&status.ollama), status.ollama_url)]);
    let shared: Vec<&str> = status.models.iter().map(|model| model.name.as_str()).collect();
    rows.push(["Shared".to_owned(), if shared.is_empty() { "no models".to_owned() } else { shared.join(", ") }]);
    for model in &status.loaded {
        rows.push([
            "In memory".to_owned(),
            format!("{} ({}, {})", model.name, bytes(model.size), placement(model.size, model.size_vram)),
        ]);
    }
    rows.extend(status.gpus.iter().map(|gpu| ["GPU".to_owned(), gpu_words(gpu)]));
    rows.push(["Work".to_owned(), pause_words(status.pause, now)]);
    for relay in &status.relays {
        let age = span(Duration::from_millis(now.saturating_sub(relay.started_ms)));
        rows.push([
            String::new(),
            format!("{} {} {} for {age} ({})", relay.operation, relay.model, phase_word(relay.phase), relay.id),
        ]);
    }
    rows.push(["Limits".to_owned(), format!("{} at once, {} waiting", status.policy.max_concurrent, status.policy.max_queued)]);
    for line in table(&rows).lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// Cause and next step, where there is something to say.
fn link_detail(link: &LinkState, now: u64) -> Option<String> {
    match link {
        LinkState::Unpaired => Some("Pair it with `1k4-bridge login https://your-lab`.".to_owned()),
        LinkState::Connecting { attempt, .. } if *attempt > 1 => Some(format!("Attempt {attempt}.")),
        LinkState::Waiting { cause, retry_at_ms, .. } => {
            let left = span(Duration::from_millis(retry_at_ms.saturating_sub(now)));
            Some(format!("{}. Next attempt in {left}; `1k4-bridge retry` dials now.", sentence(cause)))
        }
        LinkState::Refused { cause, .. } | LinkState::NoCredential { cause, .. } => Some(format!("{}.", sentence(cause))),
        LinkState::Online { clock_skew_s, .. } if clock_skew_s.abs() > 60 => Some(format!(
            "This computer's clock is {} {}. Set it, or switch time synchronisation on.",
            span(Duration::from_secs(clock_skew_s.unsigned_abs())),
            if *clock_skew_s > 0 { "slow" } else { "fast" }
        )),
        LinkState::Connecting { .. } | LinkState::Online { .. } => None,
    }
}

/// A message fragment as a sentence without its full stop.
fn sentence(fragment: &str) -> String {
    let fragment = fragment.trim_end_matches('.');
    let mut letters = fragment.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn ollama_words(ollama: &OllamaState) -> String {
    match ollama {
        OllamaState::Unknown => "not asked yet".to_owned(),
        OllamaState::Running { version } => format!("{version} running"),
        OllamaState::TooOld { version } => format!("{version} is too old (0.17.1 is the oldest that is safe)"),
        OllamaState::Unreachable { cause } => format!("not answering ({cause})"),
    }
}

fn placement(size: u64, in_vram: u64) -> String {
    match in_vram.saturating_mul(100).checked_div(size) {
        Some(0) | None => "on the CPU".to_owned(),
        Some(percent) if percent >= 100 => "on the GPU".to_owned(),
        Some(percent) => format!("{percent} % on the GPU"),
    }
}

fn gpu_words(gpu: &Gpu) -> String {
    let mut words = gpu.name.clone();
    if let Some(busy) = gpu.busy_percent {
        let _ = write!(words, ", {busy:.0} % busy");
    }
    match (gpu.memory_used, gpu.memory_total) {
        (Some(used), Some(total)) => {
            let _ = write!(words, ", {} of {} in use", bytes(used), bytes(total));
        }
        (None, Some(total)) => {
            let _ = write!(words, ", {}", bytes(total));
        }
        (_, None) => {}
    }
    words
}

fn pause_words(pause: Pause, now: u64) -> String {
    match pause {
        Pause::Serving => "taken".to_owned(),
        Pause::Paused { until_ms: Some(until) } => {
            format!("paused for another {}", span(Duration::from_millis(until.saturating_sub(now))))
        }
        Pause::Paused { until_ms: None } => "paused until `1k4-bridge resume`".to_owned(),
        Pause::Quiet => "not taken in quiet hours".to_owned(),
        Pause::Yielding => "not taken while other programs use the GPU".to_owned(),
    }
}

fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Queued => "waiting",
        Phase::Loading => "loading",
        Phase::Generating => "generating",
    }
}

fn activity_text(ink: Ink, activity: &[Activity]) -> String {
    if activity.is_empty() {
        return "Nothing yet.".to_owned();
    }
    let rows: Vec<[String; 6]> = activity
        .iter()
        .map(|done| {
            [
                clock::utc(done.started_ms),
                done.operation.to_string(),
                done.model.clone(),
                span(Duration::from_millis(done.duration_ms)),
                done.usage.map_or_else(String::new, |usage| format!("{} in, {} out", usage.input, usage.output)),
                outcome_words(done.outcome).to_owned(),
            ]
        })
        .collect();
    let text = table(&rows);
    if rows.len() == 1 { text } else { format!("{text}{}", ink.paint(Tone::Dim, format_args!("{} requests", rows.len()))) }
}

fn outcome_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Complete => "complete",
        Outcome::Cancelled => "cancelled",
        Outcome::Failed(why) => match why {
            RelayFailure::OllamaError => "failed: Ollama reported an error",
            RelayFailure::OllamaTruncated => "failed: Ollama's answer ended early",
            RelayFailure::OllamaLost => "failed: the connection to Ollama broke",
            RelayFailure::NotLocal => "refused: the model ran elsewhere",
            RelayFailure::TimeLimit => "stopped at the time limit",
            RelayFailure::TooLarge => "failed: a line of the answer was too long",
            RelayFailure::LinkLost => "failed: the link was away too long",
        },
    }
}

#[cfg(test)]
mod tests {
    use wire::{
        DeviceId,
        relay::{Model, PolicySummary},
    };

    use super::*;

    const LAB: &str = "https://lab.example.com";

    fn status(link: LinkState, pause: Pause, ollama: OllamaState) -> Status {
        Status {
            version: "0.1.0".into(),
            name: "box".into(),
            link,
            credential_store: Some("the keyring".into()),
            ollama,
            ollama_url: "http://127.0.0.1:11434".into(),
            models: vec![Model {
                name: "llama3.2".parse().unwrap(),
                modified_at: String::new(),
                size: 0,
                digest: String::new(),
                details: serde_json::Value::Null,
                capabilities: vec![],
            }],
            loaded: vec![],
            gpus: vec![],
            relays: vec![],
            pause,
            policy: PolicySummary { max_concurrent: 4, max_queued: 32, ..PolicySummary::default() },
        }
    }

    fn online(clock_skew_s: i64) -> LinkState {
        LinkState::Online {
            lab: LAB.into(),
            device: "dev_00000000000000000000000000".parse::<DeviceId>().unwrap(),
            since_ms: 1_000,
            clock_skew_s,
        }
    }

    fn running() -> OllamaState {
        OllamaState::Running { version: "0.32.15".into() }
    }

    #[test]
    fn the_state_comes_first_and_in_words() {
        let waiting = LinkState::Waiting { lab: LAB.into(), code: "dns".into(), cause: "x".into(), retry_at_ms: 0 };
        let refused = LinkState::Refused { lab: LAB.into(), code: "revoked".into(), cause: "x".into() };
        let gone = OllamaState::Unreachable { cause: "nothing listens".into() };
        for (link, pause, ollama, words) in [
            (LinkState::Unpaired, Pause::Serving, running(), "Not paired with a Lab".to_owned()),
            (waiting, Pause::Serving, running(), format!("No link to {LAB}")),
            (refused, Pause::Serving, running(), format!("Refused by {LAB}")),
            (online(0), Pause::Serving, running(), format!("Ready, linked to {LAB}")),
            (online(0), Pause::Quiet, running(), format!("Quiet hours, linked to {LAB}")),
            (online(0), Pause::Yielding, running(), format!("Leaving the GPU to other programs, linked to {LAB}")),
            (online(0), Pause::Paused { until_ms: None }, running(), format!("Paused, linked to {LAB}")),
            (online(0), Pause::Serving, gone, format!("Linked to {LAB}, but Ollama is not ready")),
        ] {
            let status = status(link, pause, ollama);
            assert_eq!(headline(&status), words);
            assert!(text(Ink::Plain, &status, 2_000).starts_with(&format!("● {words}\n")));
        }
    }

    #[test]
    fn the_parts_are_aligned_under_it() {
        let shown = text(Ink::Plain, &status(online(0), Pause::Serving, running()), 61_000);
        assert_eq!(
            shown,
            "● Ready, linked to https://lab.example.com\n  \
               Workstation  box (bridge 0.1.0)\n  \
               Device       dev_00000000000000000000000000\n  \
               Linked for   1 min 0 s\n  \
               Key kept in  the keyring\n  \
               Ollama       0.32.15 running at http://127.0.0.1:11434\n  \
               Shared       llama3.2:latest\n  \
               Work         taken\n  \
               Limits       4 at once, 32 waiting\n"
        );
    }

    #[test]
    fn a_wrong_clock_and_a_lost_link_say_what_to_do() {
        assert_eq!(
            link_detail(&online(-120), 0).as_deref(),
            Some("This computer's clock is 2 min 0 s fast. Set it, or switch time synchronisation on.")
        );
        assert_eq!(link_detail(&online(60), 0), None);
        let waiting = LinkState::Waiting {
            lab: LAB.into(),
            code: "dns".into(),
            cause: "the name cannot be resolved".into(),
            retry_at_ms: 12_000,
        };
        assert_eq!(
            link_detail(&waiting, 0).as_deref(),
            Some("The name cannot be resolved. Next attempt in 12 s; `1k4-bridge retry` dials now.")
        );
    }

    #[test]
    fn memory_is_placed() {
        for (size, vram, words) in [(0, 0, "on the CPU"), (10, 0, "on the CPU"), (10, 10, "on the GPU"), (10, 4, "40 % on the GPU")]
        {
            assert_eq!(placement(size, vram), words);
        }
    }
}
