//! `models`: Ollama's models as their owner sees them.

use bridge_core::control::{Client, ClientError, Models as Answer, OwnModel, Pull};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use wire::{ModelName, relay::OllamaState};

use crate::{
    exit::Exit,
    failure::Failure,
    output::{Ink, Output, Tone, bytes, table, write_line},
};

/// `models`
#[derive(Debug, Args)]
pub(crate) struct Models {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// All of them, and whether each is shared (the default)
    List,
    /// Download one
    Pull {
        /// Such as llama3.2 or qwen3:8b
        model: ModelName,
    },
    /// Remove one from disk
    Rm {
        /// Which
        model: ModelName,
    },
    /// Remove one from memory
    Unload {
        /// Which
        model: ModelName,
    },
}

/// Does what `args` say.
pub(crate) async fn run(client: &Client, args: Models, output: Output) -> Result<(), Failure> {
    match args.verb.unwrap_or(Verb::List) {
        Verb::List => output.print(&client.models().await?, text),
        Verb::Pull { model } => pull(client, model, output).await,
        Verb::Rm { model } => {
            client.remove(&model).await?;
            output.done(format_args!("Removed {model}."))
        }
        Verb::Unload { model } => {
            client.unload(model.clone()).await?;
            output.done(format_args!("{model} is no longer in memory."))
        }
    }
}

fn text(ink: Ink, answer: &Answer) -> String {
    if answer.models.is_empty() && !matches!(answer.ollama, OllamaState::Running { .. } | OllamaState::TooOld { .. }) {
        return "Ollama does not answer, so its models are not known. `1k4-bridge doctor` says what to do.".to_owned();
    }
    if answer.models.is_empty() {
        return "Ollama has no models yet. Download one: `1k4-bridge models pull llama3.2`.".to_owned();
    }
    let rows: Vec<[String; 5]> = answer
        .models
        .iter()
        .map(|own| {
            let detail = |name: &str| own.model.details.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
            [
                own.model.name.to_string(),
                bytes(own.model.size),
                format!("{} {}", detail("parameter_size"), detail("quantization_level")).trim().to_owned(),
                sharing(own).to_owned(),
                if own.loaded { ink.paint(Tone::Good, "in memory") } else { String::new() },
            ]
        })
        .collect();
    table(&rows)
}

fn sharing(own: &OwnModel) -> &'static str {
    match (own.shared, own.local) {
        (true, _) => "shared",
        (false, true) => "not shared",
        (false, false) => "never shared: it runs in somebody's cloud",
    }
}

async fn pull(client: &Client, model: ModelName, output: Output) -> Result<(), Failure> {
    let mut steps = client.pull(model.clone()).await?;
    let mut shown = Shown::new(output);
    // A stream that ends without a last word has failed, whatever came before.
    while let Some(step) = steps.next().await? {
        shown.step(&step)?;
        match step {
            Pull::Progress { .. } => {}
            Pull::Done => {
                shown.finish();
                return if output.is_json() { Ok(()) } else { output.done(format_args!("{model} is here.")) };
            }
            Pull::Failed { cause } => {
                shown.finish();
                return Err(Failure::new(Exit::Failed, "pull_failed", cause));
            }
        }
    }
    shown.finish();
    Err(ClientError::Silent.into())
}

/// How progress is shown: a bar on a terminal, a line a step elsewhere, each message as it is for programs.
enum Shown {
    Bar(ProgressBar),
    Lines { last: String },
    Json,
}

impl Shown {
    fn new(output: Output) -> Self {
        match output {
            Output::Json => Self::Json,
            Output::Text(Ink::Plain) => Self::Lines { last: String::new() },
            Output::Text(Ink::Colour) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
                bar.set_style(spinning());
                Self::Bar(bar)
            }
        }
    }

    fn step(&mut self, step: &Pull) -> Result<(), Failure> {
        match (self, step) {
            (Self::Json, step) => Output::Json.print(step, |_, _| String::new()),
            (Self::Bar(bar), Pull::Progress { step, completed, total, .. }) => {
                match total {
                    Some(total) if *total > 0 => {
                        bar.set_style(filling());
                        bar.set_length(*total);
                        bar.set_position(completed.unwrap_or(0));
                    }
                    _ => bar.set_style(spinning()),
                }
                bar.set_message(step.clone());
                bar.tick();
                Ok(())
            }
            (Self::Lines { last }, Pull::Progress { step, total, .. }) if last != step => {
                step.clone_into(last);
                match total {
                    Some(total) => write_line(&format!("{step} ({})", bytes(*total))),
                    None => write_line(step),
                }
            }
            (Self::Bar(_) | Self::Lines { .. }, Pull::Progress { .. } | Pull::Done | Pull::Failed { .. }) => Ok(()),
        }
    }

    fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn spinning() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn filling() -> ProgressStyle {
    ProgressStyle::with_template("{msg:20} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
