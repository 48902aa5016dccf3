//! Counting: what each step of the tests came to, and the one line at the end.

use std::{
    fmt,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;

/// How many passed, failed and were left out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// One check that either holds or not.
    pub(crate) const fn of(holds: bool) -> Self {
        Self { passed: holds as u64, failed: !holds as u64, skipped: 0 }
    }

    pub(crate) const fn skipped() -> Self {
        Self { passed: 0, failed: 0, skipped: 1 }
    }

    const fn plus(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed, skipped: self.skipped + other.skipped }
    }
}

/// `N passed, N failed`, and what was skipped if anything was.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 { write!(f, ", {} skipped", self.skipped) } else { Ok(()) }
    }
}

/// The steps so far.
#[derive(Default)]
pub(crate) struct Tally(Vec<Step>);

struct Step {
    name: &'static str,
    counts: Counts,
    took: Duration,
    note: Option<String>,
}

impl Tally {
    /// Takes a step and remembers what it came to. A step that cannot be taken has failed.
    pub(crate) fn step(&mut self, name: &'static str, take: impl FnOnce() -> anyhow::Result<Counts>) {
        println!("\n== {name}");
        let begun = Instant::now();
        let (counts, note) = match take() {
            Ok(counts) => (counts, None),
            Err(error) => (Counts::of(false), Some(format!("{error:#}"))),
        };
        if let Some(note) = &note {
            println!("{note}");
        }
        self.0.push(Step { name, counts, took: begun.elapsed(), note });
    }

    /// Remembers that something was not done, and why.
    pub(crate) fn skip(&mut self, name: &'static str, why: &str) {
        println!("\n== {name}: skipped, {why}");
        self.0.push(Step { name, counts: Counts::skipped(), took: Duration::ZERO, note: Some(format!("skipped: {why}")) });
    }

    /// Prints a line for each step, then the sum alone on the last line. Says whether nothing failed.
    pub(crate) fn conclude(&self) -> bool {
        println!("\n{:<28} {:>7} {:>7} {:>8} {:>8}", "", "passed", "failed", "skipped", "seconds");
        for step in &self.0 {
            let Counts { passed, failed, skipped } = step.counts;
            println!("{:<28} {passed:>7} {failed:>7} {skipped:>8} {:>8.1}", step.name, step.took.as_secs_f64());
            if let Some(note) = &step.note {
                println!("  {}", note.lines().next().unwrap_or_default());
            }
        }
        let sum = self.0.iter().fold(Counts::default(), |sum, step| sum.plus(step.counts));
        println!("\n{sum}");
        sum.failed == 0
    }
}

/// Runs a check that counts as one.
pub(crate) fn holds(command: &mut Command) -> anyhow::Result<Counts> {
    Ok(Counts::of(started(command.stdin(Stdio::null()).status(), command)?.success()))
}

/// Runs a test runner, passes its output on, and counts by what `read` makes of each line.
///
/// A runner that fails without naming a failed test (a test binary that does not compile, or crashes) counts as one failure.
pub(crate) fn counted(command: &mut Command, read: fn(&str) -> Option<Counts>) -> anyhow::Result<Counts> {
    let running = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut running = started(running, command)?;
    let mut sum = Counts::default();
    for line in running.stdout.take().into_iter().flat_map(|out| BufReader::new(out).split(b'\n')) {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        sum = sum.plus(read(&line).unwrap_or_default());
    }
    if !running.wait()?.success() && sum.failed == 0 {
        sum.failed = 1;
    }
    Ok(sum)
}

fn started<T>(result: std::io::Result<T>, command: &Command) -> anyhow::Result<T> {
    result.with_context(|| format!("{} cannot be started", command.get_program().display()))
}

/// A result line of Rust's own runner.
pub(crate) fn libtest(line: &str) -> Option<Counts> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| numbers.split("; ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok());
    Some(Counts { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
}

/// One of Playwright's last lines, such as `  12 passed (1.5m)`.
pub(crate) fn playwright(line: &str) -> Option<Counts> {
    let (number, word) = line.trim().split_once(' ')?;
    let number = number.parse().ok()?;
    Some(match word.split_once(" (").map_or(word, |(word, _)| word) {
        "passed" => Counts { passed: number, ..Counts::default() },
        "failed" | "interrupted" | "did not run" => Counts { failed: number, ..Counts::default() },
        "skipped" => Counts { skipped: number, ..Counts::default() },
        _ => return None,
    })
}

/// The line of vitest that counts tests, such as `      Tests  1 failed | 17 passed (18)`.
pub(crate) fn vitest(line: &str) -> Option<Counts> {
    let (numbers, _) = line.trim().strip_prefix("Tests  ")?.rsplit_once(" (")?;
    let mut counts = Counts::default();
    for part in numbers.split(" | ") {
        let (number, word) = part.split_once(' ')?;
        let number: u64 = number.parse().ok()?;
        match word {
            "passed" => counts.passed += number,
            "failed" => counts.failed += number,
            _ => counts.skipped += number,
        }
    }
    Some(counts)
}

/// The last line of pytest, such as `2 failed, 5 passed, 1 skipped in 0.30s`.
pub(crate) fn pytest(line: &str) -> Option<Counts> {
    let (numbers, _) = line.trim_matches(['=', ' ']).rsplit_once(" in ")?;
    let mut counts = Counts::default();
    for part in numbers.split(", ") {
        let (number, word) = part.split_once(' ')?;
        let number: u64 = number.parse().ok()?;
        match word {
            "passed" | "xpassed" => counts.passed += number,
            "failed" | "error" | "errors" => counts.failed += number,
            "skipped" | "xfailed" => counts.skipped += number,
            "deselected" | "warning" | "warnings" => {}
            _ => return None,
        }
    }
    Some(counts)
}

/// A summary line of node's runner in TAP.
pub(crate) fn tap(line: &str) -> Option<Counts> {
    let (word, number) = line.strip_prefix("# ")?.split_once(' ')?;
    let number = number.parse().ok()?;
    match word {
        "pass" => Some(Counts { passed: number, ..Counts::default() }),
        "fail" | "cancelled" => Some(Counts { failed: number, ..Counts::default() }),
        "skipped" | "todo" => Some(Counts { skipped: number, ..Counts::default() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Option<Counts> {
        Some(Counts { passed, failed, skipped })
    }

    #[test]
    fn the_runners_are_understood() {
        let line = "test result: FAILED. 12 passed; 3 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.30s";
        assert_eq!(libtest(line), counts(12, 3, 2));
        assert_eq!(libtest("test result_lines ... ok"), None);
        assert_eq!(pytest("2 failed, 5 passed, 1 skipped, 3 deselected, 1 error in 0.30s"), counts(5, 3, 1));
        assert_eq!(pytest("======= 5 passed in 61.30s (0:01:01) ======="), counts(5, 0, 0));
        assert_eq!(vitest("      Tests  1 failed | 17 passed | 2 skipped (20)"), counts(17, 1, 2));
        assert_eq!(vitest(" Test Files  2 passed (2)"), None);
        assert_eq!(pytest("the answer came in 3 pieces"), None);
        assert_eq!(tap("# pass 7"), counts(7, 0, 0));
        assert_eq!(tap("# cancelled 1"), counts(0, 1, 0));
        assert_eq!(tap("# duration_ms 12.5"), None);
        assert_eq!(tap("ok 1 - # pass 7"), None);
    }

    #[test]
    fn playwright_counts_what_it_did_not_get_to() {
        assert_eq!(playwright("  12 passed (1.5m)"), counts(12, 0, 0));
        assert_eq!(playwright("  2 failed"), counts(0, 2, 0));
        assert_eq!(playwright("  3 did not run"), counts(0, 3, 0));
        assert_eq!(playwright("  1 skipped"), counts(0, 0, 1));
        assert_eq!(playwright("  ✓  1 [journeys] › a test (620ms)"), None);
    }

    #[test]
    fn a_runner_that_dies_without_a_word_has_failed() {
        assert_eq!(counted(&mut Command::new("false"), libtest).ok(), counts(0, 1, 0));
        assert_eq!(counted(&mut Command::new("true"), libtest).ok(), counts(0, 0, 0));
        let mut both = Command::new("sh");
        both.args(["-c", "echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured'; exit 101"]);
        assert_eq!(counted(&mut both, libtest).ok(), counts(1, 2, 0));
    }

    #[test]
    fn the_last_line_is_plain() {
        assert_eq!(Counts { passed: 4, failed: 0, skipped: 0 }.to_string(), "4 passed, 0 failed");
        assert_eq!(Counts { passed: 4, failed: 1, skipped: 2 }.to_string(), "4 passed, 1 failed, 2 skipped");
    }
}
