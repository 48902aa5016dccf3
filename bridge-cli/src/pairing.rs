//! `login` and `logout`: the device flow as a person sees it.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    time::Duration,
};

use bridge_core::{
    config::{Config, CredentialStoreKind, Origin, Overrides, Told},
    control::{Client, ClientError},
    credentials::{self, Credentials},
    dial::DialError,
    login::{self, LoginError, PendingLogin},
};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;

use crate::{
    exit::Exit,
    failure::Failure,
    output::{Ink, Output, Tone, span, write_line},
    signal,
};

/// `login`
#[derive(Debug, Args)]
pub(crate) struct Login {
    /// The Lab's address, such as `https://lab.example.com`
    #[arg(value_name = "LAB")]
    pub(crate) lab: Origin,
    /// Trust these certificates too, for a Lab with a CA of its own
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Keep the device's key in a file that is not encrypted, for a server without a keyring
    #[arg(long)]
    pub(crate) insecure_file_store: bool,
    /// What the workstation is called in the Lab; the computer's name when left out
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

impl Login {
    /// What of the configuration the command line decides.
    pub(crate) fn overrides(&self, rest: Overrides) -> Result<Overrides, Failure> {
        let ca_file = self.ca_file.as_ref().map(std::path::absolute).transpose().map_err(|error| {
            Failure::new(Exit::Configuration, "ca_file", format!("the CA file's path cannot be used ({})", error.kind()))
        })?;
        Ok(Overrides {
            lab: Some(self.lab.clone()),
            ca_file,
            device_name: self.name.clone(),
            credential_store: self.insecure_file_store.then_some(CredentialStoreKind::InsecureFile),
            ..rest
        })
    }
}

/// Pairs this workstation: shows the code, waits for the approval, wakes the running bridge.
pub(crate) async fn login(config: &Config, lab: &Origin, output: Output) -> Result<(), Failure> {
    let before = Before::look(config, lab).await?;
    let attempt = async {
        let pending = login::begin(config, lab).await?;
        show_code(&pending, output)?;
        waiting(pending, output).await
    };
    let attempt = tokio::select! {
        attempt = attempt => attempt,
        () = signal::stop() => Err(Failure::new(Exit::Failed, "interrupted", "the login was given up; nothing was kept")),
    };
    let paired = match attempt {
        Ok(paired) => paired,
        Err(failure) => {
            before.restore().await;
            return Err(failure);
        }
    };
    let is_running = match Client::new(&config.paths).retry().await {
        Ok(()) => true,
        Err(ClientError::NotRunning) => false,
        Err(error) => {
            eprintln!("1k4-bridge: paired, but the running bridge could not be told: {error}");
            true
        }
    };
    let answer = json!({
        "state": "paired",
        "lab": lab,
        "device": paired.device,
        "owner": paired.owner,
        "bridge_is_running": is_running,
    });
    output.print(&answer, |ink, _| {
        let done = ink.paint(Tone::Good, format_args!("Paired with {lab} for {}.", printable(&paired.owner)));
        if is_running {
            let now = if config.told == Told::default() {
                "The running bridge dials now; `1k4-bridge status` shows it."
            } else {
                "Restart the running bridge: it was started before it was told what this command was."
            };
            format!("{done}\n{now}")
        } else {
            format!("{done}\nStart the bridge: `1k4-bridge run`, or `1k4-bridge service install` to have it always on.")
        }
    })
}

/// Forgets the pairing.
pub(crate) async fn logout(config: &Config, output: Output) -> Result<(), Failure> {
    if login::logout(config).await?.is_none() {
        return Err(Failure::new(Exit::NotPaired, "not_paired", "this workstation is not paired with a Lab; nothing to forget"));
    }
    match Client::new(&config.paths).retry().await {
        // The running bridge sees that the pairing is gone and closes its link; where none runs there is nothing to close.
        Ok(()) | Err(ClientError::NotRunning) => {
            output.done("The pairing is forgotten and the device's key removed. Revoke the device in the Lab as well.")
        }
        Err(error) => Err(error.into()),
    }
}

/// A Lab's text as a terminal may be given it: escape sequences could repaint the words that are to be compared.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// What there was before an attempt, so that one that comes to nothing leaves nothing.
enum Before {
    /// A key: it stays.
    Key,
    /// None: the one that the attempt made is removed.
    NoKey(Credentials),
}

impl Before {
    async fn look(config: &Config, lab: &Origin) -> Result<Self, Failure> {
        let credentials = Credentials::open(config.credential_store.clone(), lab).map_err(LoginError::from)?;
        match credentials.load().await {
            Ok(_) => Ok(Self::Key),
            Err(credentials::Error::NoEntry) => Ok(Self::NoKey(credentials)),
            Err(error) => Err(LoginError::from(error).into()),
        }
    }

    async fn restore(self) {
        if let Self::NoKey(credentials) = self
            && let Err(error) = credentials.delete().await
        {
            eprintln!("1k4-bridge: the key that was made for this attempt could not be removed: {error}");
        }
    }
}

fn show_code(pending: &PendingLogin, output: Output) -> Result<(), Failure> {
    let grant = &pending.grant;
    let fingerprint = pending.fingerprint.to_string();
    let answer = json!({
        "state": "waiting",
        "user_code": grant.user_code,
        "verification_uri": grant.verification_uri,
        "fingerprint": fingerprint,
        "expires_in_s": grant.expires_in,
    });
    output.print(&answer, |ink, _| {
        format!(
            "\nOpen   {}\nEnter  {}\nCheck  that the page shows the words  {}\n",
            ink.paint(Tone::Strong, printable(&grant.verification_uri)),
            large(ink, &printable(&grant.user_code)),
            ink.paint(Tone::Strong, &fingerprint),
        )
    })
}

/// A code that can be read from the other side of the desk.
fn large(ink: Ink, code: &str) -> String {
    let spaced: Vec<String> = code.chars().map(String::from).collect();
    match ink {
        Ink::Colour => format!("\x1b[1;7m  {}  \x1b[0m", spaced.join(" ")),
        // Without colours it is most likely copied.
        Ink::Plain => code.to_owned(),
    }
}

async fn waiting(pending: PendingLogin, output: Output) -> Result<wire::pairing::Paired, Failure> {
    let left = span(Duration::from_secs(pending.grant.expires_in));
    let words = format!("Waiting for the approval (the code holds for {left})");
    let spinner = match output {
        Output::Text(_) if io::stdout().is_terminal() => {
            let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout()).with_message(words);
            spinner.enable_steady_tick(Duration::from_millis(120));
            Some(spinner)
        }
        Output::Text(_) => {
            write_line(&format!("{words} …"))?;
            None
        }
        Output::Json => None,
    };
    let paired = pending.wait().await;
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    Ok(paired?)
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        let (exit, code) = match &error {
            LoginError::Dial(error) => (dial_exit(error), error.code()),
            LoginError::Credential(error) => (Exit::Configuration, error.code()),
            LoginError::Config(_) => (Exit::Configuration, "config"),
            LoginError::NotGranted => (Exit::Temporary, "not_granted"),
            LoginError::Denied => (Exit::Refused, "denied"),
            LoginError::Expired => (Exit::Temporary, "expired"),
        };
        Self::new(exit, code, error)
    }
}

fn dial_exit(error: &DialError) -> Exit {
    match error {
        DialError::Dns { .. }
        | DialError::Tcp { .. }
        | DialError::Unavailable { .. }
        | DialError::TimedOut { .. }
        | DialError::Broken => Exit::Temporary,
        DialError::CaFile { .. }
        | DialError::NoTrust
        | DialError::ProxyAuth { .. }
        | DialError::ProxyRefused { .. }
        | DialError::Proxy { .. }
        | DialError::TlsUntrusted { .. }
        | DialError::OtherName { .. } => Exit::Configuration,
        DialError::Refused { .. } => Exit::Refused,
        DialError::Tls { .. } | DialError::NotALab { .. } => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_large_where_it_can_be_and_copyable_elsewhere() {
        assert_eq!(large(Ink::Plain, "BCDF-GHJK"), "BCDF-GHJK");
        assert_eq!(large(Ink::Colour, "BC-D"), "\x1b[1;7m  B C - D  \x1b[0m");
    }
}
