//! The Lab in a browser: Debian's own Chromium on a real Lab, with real bridges and fakes of the rest (`tests/browser`).

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use crate::{
    home::{self, Profile, Programs},
    npm, packages,
    tally::{self, Counts, Tally},
};

/// The tests, and what they are written in.
const FOLDER: &str = "tests/browser";
/// The pages that the Lab serves.
const PAGES: &str = "ui";

/// Runs what a person sees; everything on every route where all is asked for.
pub(crate) fn check(tally: &mut Tally, filter: Option<&str>, full: bool) {
    let mut programs = None;
    tally.step("browser: start", || {
        packages::provide(packages::TO_BROWSE)?;
        programs = Some(prepare(Profile::Dev)?);
        Ok(Counts::of(true))
    });
    let Some(programs) = programs else { return };
    tally.step("browser: types", || {
        tally::holds(Command::new("npx").current_dir(home::root().join(FOLDER)).args(["tsc", "--noEmit"]))
    });
    tally.step("browser: journeys", || tally::counted(&mut playwright("journeys", &programs, filter), tally::playwright));
    if full {
        tally.step("browser: everything", || tally::counted(&mut playwright("full", &programs, filter), tally::playwright));
    }
}

/// `screens`
#[derive(Debug, clap::Args)]
pub(crate) struct Screens {}

/// Makes the pictures of the main screens again, in `docs/screens`.
pub(crate) fn screens(_: &Screens) -> anyhow::Result<ExitCode> {
    packages::provide(packages::TO_RUN)?;
    packages::provide(packages::TO_BROWSE)?;
    let programs = prepare(Profile::Dev)?;
    home::succeed(&mut playwright("screens", &programs, None))?;
    Ok(ExitCode::SUCCESS)
}

/// Builds the pages and the programs that serve them, and gives the programs' folder.
fn prepare(profile: Profile) -> anyhow::Result<PathBuf> {
    pages()?;
    let lab = Programs::build(profile)?.path("1k4-lab")?.to_owned();
    Ok(lab.parent().map_or_else(home::target, Path::to_owned))
}

/// Builds the pages, and brings the tests' libraries.
pub(crate) fn pages() -> anyhow::Result<()> {
    let pages = home::root().join(PAGES);
    npm::provide(&pages)?;
    npm::provide(&home::root().join(FOLDER))?;
    home::succeed(Command::new("npm").current_dir(&pages).args(["run", "--silent", "build"]))
}

/// Playwright on one of its projects.
pub(crate) fn playwright(project: &str, programs: &Path, filter: Option<&str>) -> Command {
    let mut command = Command::new("npx");
    command
        .current_dir(home::root().join(FOLDER))
        .args(["playwright", "test", "--project", project])
        .env("ONEK4_PROGRAMS", programs)
        // Everything that is asked is on this machine.
        .env("NO_PROXY", "*");
    if let Some(filter) = filter {
        // A filter that no test of the browser has in its name is for the others.
        command.args(["--pass-with-no-tests", "--grep", filter]);
    }
    command
}
