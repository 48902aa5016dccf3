//! `cargo xtask run`: everything on one machine, until Ctrl-C.

use std::{io::Write, process::ExitCode};

use serde_json::json;

use crate::{
    home::{Profile, Programs},
    packages,
    stack::{Stack, Wanted},
    stop::Stop,
};

/// `run`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one line of JSON for programs, and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Also start fake cloud providers, and let the Lab ask them
    #[arg(long)]
    fake_providers: bool,
}

/// Starts it, says how to use it, holds it.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    packages::provide(packages::TO_RUN)?;
    eprintln!("Building …");
    let programs = Programs::build(Profile::Dev)?;
    let stop = Stop::listen()?;
    eprintln!("Starting the Lab and the bridge, and pairing them …");
    let mut stack = if args.fake_providers {
        Stack::start_with_fake_providers(&programs, &Wanted::Real, &stop)?
    } else {
        Stack::start(&programs, &Wanted::Real, "", &stop)?
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", stack.as_json())?;
    } else {
        write!(out, "{}", in_words(&stack))?;
    }
    out.flush()?;
    drop(out);
    stack.hold(&stop)?;
    Ok(ExitCode::SUCCESS)
}

fn in_words(stack: &Stack) -> String {
    let access = stack.access();
    let kind = if stack.ollama_is_real() { "" } else { "  (FAKE, a demonstration: its words are made up)" };
    let body = json!({"model": access.model, "stream": true, "messages": [{"role": "user", "content": "Tell me about tides."}]});
    format!(
        "\n\
         Lab      {url}\n\
         API key  {key}\n\
         CA file  {ca}\n\
         Ollama   {ollama}{kind}\n\
         \n\
         Ask a model of this machine through the Lab:\n\
         \n\
         curl --no-buffer --cacert {ca} {url}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{body}'\n\
         \n\
         Ctrl-C ends everything that was started.\n",
        url = access.lab_url,
        key = access.api_key,
        ca = access.ca_file.display(),
        ollama = stack.ollama_url(),
    )
}
