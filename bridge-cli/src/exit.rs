//! What the exit code says, for scripts and for systemd.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | it did not work; standard error says why |
//! | 2 | the command line was not understood |
//! | 3 | the bridge is not running |
//! | 4 | this workstation is not paired with a Lab |
//! | 5 | refused: the Lab revoked this workstation, or somebody said no |
//! | 6 | `doctor` found problems |
//! | 75 | not now: worth trying again later (`EX_TEMPFAIL`) |
//! | 78 | the configuration has to change first (`EX_CONFIG`); the systemd units do not restart the bridge after it |
//!
//! Under systemd an unpaired bridge also ends with 78: a restart would not pair it.

use std::process::ExitCode;

/// The last lines of `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
   0  done
   1  it did not work; standard error says why
   2  the command line was not understood
   3  the bridge is not running
   4  this workstation is not paired with a Lab
   5  refused: the Lab revoked this workstation, or somebody said no
   6  doctor found problems
  75  not now: worth trying again later
  78  the configuration has to change first (under systemd also: not paired)

Settings: flags win over the environment (ONEK4_...), the environment over the configuration file.
NO_COLOR switches colours off; they are only used on a terminal.";

/// An exit code other than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did not work.
    Failed,
    /// The bridge is not running.
    NotRunning,
    /// Not paired.
    NotPaired,
    /// Refused or revoked.
    Refused,
    /// `doctor` found problems.
    Problems,
    /// Not now.
    Temporary,
    /// The configuration has to change.
    Configuration,
}

impl Exit {
    /// The number.
    #[must_use]
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::NotRunning => 3,
            Self::NotPaired => 4,
            Self::Refused => 5,
            Self::Problems => 6,
            Self::Temporary => 75,
            Self::Configuration => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
