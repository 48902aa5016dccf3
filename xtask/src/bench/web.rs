//! The pages as people have them, in Chromium: Lighthouse, a long chat, a fast answer, Stop, and a hundred breaks in the middle.
//!
//! What is measured and how stands in `tests/browser/figures` and `tests/browser/full/drops.spec.ts`; each figure comes as a line of JSON.

use std::{borrow::Cow, path::Path, process::Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Findings, Row, Target};
use crate::{browser, home::Programs};

/// All of it.
pub(super) fn measure(programs: &Programs) -> anyhow::Result<Findings> {
    let folder = programs.path("1k4-lab")?.parent().context("the programs lie in no folder")?;
    let (mut rows, mut failed) = (Vec::new(), 0);
    for (project, filter) in [("figures", None), ("full", Some("random moments"))] {
        eprintln!("Measuring in Chromium: {project} …");
        let (figures, succeeded) = figures(project, folder, filter)?;
        rows.extend(figures);
        failed += u64::from(!succeeded);
    }
    ensure!(!rows.is_empty(), "Playwright told no figure; the reason stands above");
    Ok(Findings { rows, failed })
}

fn figures(project: &str, programs: &Path, filter: Option<&str>) -> anyhow::Result<(Vec<Row>, bool)> {
    let output = browser::playwright(project, programs, filter).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.context("Playwright cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Whatever is no figure says how it went.
    text.lines().filter(|line| !line.starts_with('{')).for_each(|line| eprintln!("{line}"));
    Ok((text.lines().filter_map(row).collect(), output.status.success()))
}

fn row(line: &str) -> Option<Row> {
    let line: Value = serde_json::from_str(line).ok()?;
    let told = line.get("figure")?;
    let text = |name: &str| told[name].as_str().map(|text| Cow::Owned(text.to_owned()));
    let target = match (told["most"].as_f64(), told["least"].as_f64()) {
        (Some(most), _) => Target::AtMost(most),
        (None, Some(least)) => Target::AtLeast(least),
        (None, None) => Target::None,
    };
    Some(Row { what: text("what")?, unit: text("unit")?, target, figure: told["figure"].as_f64()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_is_a_row() {
        let row = row(r#"{"figure":{"what":"frames","unit":"/s","figure":48.5,"least":50}}"#).unwrap();
        assert_eq!((row.what.as_ref(), row.verdict().as_str()), ("frames", "missed by 1.50 /s"));
        assert!(super::row("  2 passed (3.2s)").is_none());
    }
}
