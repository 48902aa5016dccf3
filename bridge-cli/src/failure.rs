//! The one error of the commands: what a person reads, what a program reads, what the exit code says.

use std::fmt::Display;

use bridge_core::control::{ClaimError, ClientError};
use serde_json::json;

use crate::{exit::Exit, output::Output};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the exit code says.
    pub(crate) exit: Exit,
    /// For programs.
    pub(crate) code: String,
    /// For people: one sentence with the cause and the next step. Empty when everything has been said already.
    pub(crate) message: String,
}

impl Failure {
    /// A failure with its own sentence.
    pub(crate) fn new(exit: Exit, code: impl Into<String>, message: impl Display) -> Self {
        Self { exit, code: code.into(), message: message.to_string() }
    }

    /// The answer that was printed is itself the bad news.
    pub(crate) fn already_said(exit: Exit) -> Self {
        Self { exit, code: String::new(), message: String::new() }
    }

    /// Prints it to standard error.
    pub(crate) fn print(&self, output: Output) {
        if self.message.is_empty() {
            return;
        }
        if output.is_json() {
            eprintln!("{}", json!({"error": {"code": self.code, "message": self.message}}));
        } else {
            eprintln!("1k4-bridge: {}", self.message);
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::NotRunning => Self::new(Exit::NotRunning, "not_running", message),
            ClientError::Unreachable(_) => Self::new(Exit::Failed, "unreachable", message),
            ClientError::Refused { status: 503, code, .. } => Self::new(Exit::Temporary, code, message),
            ClientError::Refused { code, .. } => Self::new(Exit::Failed, code, message),
            ClientError::NotUnderstood => Self::new(Exit::Failed, "not_understood", message),
            ClientError::Silent => Self::new(Exit::Temporary, "silent", message),
        }
    }
}

impl From<ClaimError> for Failure {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::AlreadyRunning => Self::new(Exit::Failed, "already_running", error),
            ClaimError::Io { .. } => Self::new(Exit::Configuration, "state_dir", error),
        }
    }
}
