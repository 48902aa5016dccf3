//! The web app by itself: its types, its rules, its logic, its build and what a browser has to fetch of it (`ui`).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    home, npm, suite,
    tally::{self, Counts, Tally},
};

/// Script that a browser fetches before somebody can chat, compressed. Facts and reason: the page is used from phones.
const MOST_SCRIPT: u64 = 110_000;
/// Styles of the same page, compressed.
const MOST_STYLE: u64 = 20_000;
/// The shell and the page that are fetched then, as Vite names them.
const FIRST_CHAT: [&str; 2] = ["lab.html", "src/features/chat/ChatPage.svelte"];

/// Checks everything about the app that needs no Lab.
pub(crate) fn check(tally: &mut Tally) {
    let pages = home::root().join("ui");
    let mut there = false;
    tally.step("web app: start", || {
        npm::provide(&pages)?;
        npm::provide(&pages.join("gen"))?;
        there = true;
        Ok(Counts::of(true))
    });
    if !there {
        return;
    }
    tally.step("web app: generated types", || tally::holds(&mut npm_run(&pages.join("gen"), "stale")));
    tally.step("web app: types", || tally::holds(&mut npm_run(&pages, "check")));
    // A checker that finds nothing at all is broken, and would let everything pass.
    tally.step("web app: planted error", || {
        let found = npm_run(&pages, "canary").output().context("npm cannot be started")?;
        Ok(suite::check(
            !found.status.success() && String::from_utf8_lossy(&found.stdout).contains("Planted.svelte"),
            "a planted error is found",
        ))
    });
    tally.step("web app: tests", || tally::counted(npm_run(&pages, "test").env("NO_COLOR", "1"), tally::vitest));
    tally.step("web app: build", || tally::holds(&mut npm_run(&pages, "build")));
    tally.step("web app: size", || sizes(&pages.join("dist")));
}

fn npm_run(folder: &Path, script: &str) -> Command {
    let mut npm = Command::new("npm");
    npm.current_dir(folder).args(["run", "--silent", script]);
    npm
}

fn sizes(dist: &Path) -> anyhow::Result<Counts> {
    let manifest = fs::read_to_string(dist.join(".vite").join("manifest.json")).context("the build left no list of its files")?;
    let manifest: Value = serde_json::from_str(&manifest)?;
    let mut chunks = BTreeSet::new();
    for page in FIRST_CHAT {
        ensure!(manifest.get(page).is_some(), "the build has no {page}");
        with_imports(&manifest, page, &mut chunks);
    }
    let script: BTreeSet<&str> = chunks.iter().filter_map(|chunk| manifest[*chunk]["file"].as_str()).collect();
    let style: BTreeSet<&str> = chunks
        .iter()
        .flat_map(|chunk| manifest[*chunk]["css"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    let (script, style) = (compressed(dist, &script)?, compressed(dist, &style)?);
    println!("first usable chat: {script} bytes of script, {style} of style, compressed");
    let fits =
        [(script <= MOST_SCRIPT, "script fits"), (style <= MOST_STYLE, "style fits")].map(|(fits, what)| suite::check(fits, what));
    Ok(Counts { passed: fits.iter().map(|one| one.passed).sum(), failed: fits.iter().map(|one| one.failed).sum(), skipped: 0 })
}

/// A chunk and everything that it cannot begin without.
fn with_imports<'a>(manifest: &'a Value, chunk: &'a str, known: &mut BTreeSet<&'a str>) {
    if !known.insert(chunk) {
        return;
    }
    for import in manifest[chunk]["imports"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        with_imports(manifest, import, known);
    }
}

fn compressed(dist: &Path, files: &BTreeSet<&str>) -> anyhow::Result<u64> {
    let length = |file: &&str| {
        let path: PathBuf = dist.join(format!("{file}.gz"));
        Ok(fs::metadata(&path).with_context(|| format!("{} is missing", path.display()))?.len())
    };
    files.iter().map(length).sum()
}
