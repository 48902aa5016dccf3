//! How answers look: aligned text for people, one JSON document (or one a line) for programs.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use serde::Serialize;

use crate::{exit::Exit, failure::Failure};

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// People.
    Text(Ink),
    /// Programs.
    Json,
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// On a terminal whose owner did not say no.
    Colour,
    /// Everywhere else.
    Plain,
}

/// A colour by what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// All is well.
    Good,
    /// Look at this.
    Caution,
    /// It does not work.
    Bad,
    /// Less important.
    Dim,
    /// More important.
    Strong,
}

impl Output {
    /// As `--json` and the terminal say.
    #[must_use]
    pub(crate) fn new(json: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if json {
            Self::Json
        } else if io::stdout().is_terminal() && !refused {
            Self::Text(Ink::Colour)
        } else {
            Self::Text(Ink::Plain)
        }
    }

    /// Whether programs read it.
    #[must_use]
    pub(crate) fn is_json(self) -> bool {
        self == Self::Json
    }

    /// Prints `value` for programs, or what `text` makes of it for people.
    pub(crate) fn print<T: Serialize>(self, value: &T, text: impl FnOnce(Ink, &T) -> String) -> Result<(), Failure> {
        let line = match self {
            Self::Json => {
                serde_json::to_string(value).map_err(|_| Failure::new(Exit::Failed, "broken", "the answer could not be written"))?
            }
            Self::Text(ink) => text(ink, value).trim_end().to_owned(),
        };
        write_line(&line)
    }

    /// A sentence about something that was done; programs get `{"ok":true}`.
    pub(crate) fn done(self, sentence: impl Display) -> Result<(), Failure> {
        match self {
            Self::Json => write_line(r#"{"ok":true}"#),
            Self::Text(_) => write_line(&sentence.to_string()),
        }
    }
}

/// A line on standard output. Who closed it (`| head`) has read enough.
pub(crate) fn write_line(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failed, "output", format!("the answer could not be written ({})", error.kind())))
        }
        Err(_) => Err(Failure::already_said(Exit::Failed)),
        Ok(()) => Ok(()),
    }
}

impl Ink {
    /// `text` in the colour of `tone`.
    #[must_use]
    pub(crate) fn paint(self, tone: Tone, text: impl Display) -> String {
        let number = match tone {
            Tone::Good => "32",
            Tone::Caution => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        match self {
            Self::Colour => format!("\x1b[{number}m{text}\x1b[0m"),
            Self::Plain => text.to_string(),
        }
    }
}

/// Rows with their columns aligned, without trailing spaces.
#[must_use]
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Bytes as people say them, in powers of 1,000 as Ollama does.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut amount = count as f64;
    let mut unit = 0;
    while amount >= 999.95 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

/// A span of time as people say it, in its two largest units.
#[must_use]
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 if time < Duration::from_secs(10) => format!("{:.1} s", time.as_secs_f64()),
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_as_people_say_them() {
        for (count, text) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_999, "1.0 MB"), (4_661_224_676, "4.7 GB")] {
            assert_eq!(bytes(count), text);
        }
        for (ms, text) in [
            (0, "0.0 s"),
            (1250, "1.2 s"),
            (12_000, "12 s"),
            (61_000, "1 min 1 s"),
            (3_661_000, "1 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a".to_owned(), "b".to_owned()], ["école".to_owned(), String::new()]];
        assert_eq!(table(&rows), "a      b\nécole\n");
    }

    #[test]
    fn plain_text_holds_no_escape() {
        assert_eq!(Ink::Plain.paint(Tone::Bad, "x"), "x");
        assert_eq!(Ink::Colour.paint(Tone::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
