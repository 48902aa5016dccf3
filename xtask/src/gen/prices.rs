//! The catalogue of cloud models, derived from two public sets of prices and from what was decided where they differ.
//!
//! Pure: three texts in, one out. Both sets are brought to the same form, figures by class of service, prompt size and kind of
//! token, and compared one by one. Any difference that `decisions.json` does not name is an error, and so is a decision that
//! nothing needs any more. The committed catalogue is compared with what comes out here by a test.

mod figures;
mod names;
mod page;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use figures::{Dimension, Figures, Key, Service};

/// The committed texts.
pub(crate) struct Sources {
    litellm: String,
    genai: String,
    decisions: String,
}

impl Sources {
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).with_context(|| format!("{name} in {}", folder.display()));
        Ok(Self { litellm: read("litellm.json")?, genai: read("genai-prices.json")?, decisions: read("decisions.json")? })
    }
}

/// One set of prices, as `extract.py` writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set<M> {
    set: String,
    version: String,
    licence: String,
    /// The day on which it was taken; all its undated figures hold on it.
    taken: String,
    models: Vec<M>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Litellm {
    provider: String,
    name: String,
    mode: String,
    max_input: Option<u64>,
    max_output: Option<u64>,
    /// `tools`, `vision` and `thinking`, as far as it is known.
    can: BTreeMap<String, bool>,
    #[serde(rename = "retires")]
    _retires: Option<String>,
    source: Option<String>,
    multipliers: BTreeMap<String, String>,
    figures: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Genai {
    provider: String,
    id: String,
    names: Vec<String>,
    equals: Vec<String>,
    dated: Vec<String>,
    context_window: Option<u64>,
    pages: Vec<String>,
    prices: Vec<GenaiPrice>,
    variants: Vec<GenaiVariant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GenaiPrice {
    from: Option<String>,
    figures: BTreeMap<String, GenaiFigure>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GenaiVariant {
    when: String,
    from: Option<String>,
    figures: BTreeMap<String, GenaiFigure>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum GenaiFigure {
    Flat(String),
    /// The figure beyond each prompt size, for the whole request.
    Sized {
        base: String,
        above: Vec<(u64, String)>,
    },
}

/// What people decided.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decisions {
    /// Models that stay out; `extract.py` heeds it.
    #[serde(rename = "left_out")]
    _left_out: Vec<Choice>,
    /// Models that only genai-prices has.
    also: Vec<Choice>,
    gaps: Vec<Gap>,
    figures: Vec<Decision>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    #[serde(rename = "reason")]
    _reason: String,
    provider: String,
    models: Vec<String>,
}

/// What neither set knows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gap {
    #[serde(rename = "reason")]
    _reason: String,
    models: Vec<String>,
    max_input: Option<u64>,
    max_output: Option<u64>,
    us_permille: Option<u64>,
}

/// Figures on which the sets differ, and the ones that are taken.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    #[serde(rename = "reason")]
    _reason: String,
    models: Vec<String>,
    /// In pico-USD, by names such as `standard input` and `batch >272000 output`.
    take: BTreeMap<String, u64>,
}

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Both,
    Litellm,
    Genai,
    /// LiteLLM's, which has no dates and leaves out sizes, times what the usual price changes by.
    Scaled,
    Decided,
}

/// A model as it goes into the catalogue.
struct Entry {
    id: String,
    provider: String,
    aliases: Vec<String>,
    dated: Vec<String>,
    max_input: u64,
    max_output: u64,
    can: BTreeMap<String, bool>,
    /// Thousandths of the price when a request is kept inside the USA.
    us_permille: Option<(u64, Origin)>,
    pages: Vec<String>,
    periods: Vec<Period>,
}

struct Period {
    /// The first day; `None` when the price holds already.
    from: Option<String>,
    /// The first day after it.
    until: Option<String>,
    figures: BTreeMap<Key, (u64, Origin)>,
}

/// The catalogue's text.
pub(crate) fn derive(sources: &Sources) -> anyhow::Result<String> {
    let litellm: Set<Litellm> = serde_json::from_str(&sources.litellm).context("litellm.json")?;
    let genai: Set<Genai> = serde_json::from_str(&sources.genai).context("genai-prices.json")?;
    let decisions: Decisions = serde_json::from_str(&sources.decisions).context("decisions.json")?;
    ensure!(litellm.taken == genai.taken, "the two sets were not taken on the same day");

    let mut decided = Decided::new(&decisions.figures)?;
    let mut problems = Vec::new();
    let mut entries = Vec::new();
    for group in names::group(&litellm.models, &genai.models, &decisions.also)? {
        match entry(&group, &genai.taken, &decisions, &mut decided) {
            Ok(entry) => entries.push(entry),
            Err(error) => problems.push(format!("{}: {error:#}", group.id)),
        }
    }
    problems.extend(decided.unneeded());
    if !problems.is_empty() {
        bail!("decisions.json has to settle this:\n{}", problems.join("\n"));
    }
    entries.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(page::write(&litellm, &genai, &entries))
}

/// The decisions on figures, each of which must be needed.
struct Decided(BTreeMap<(String, String), (u64, bool)>);

impl Decided {
    fn new(decisions: &[Decision]) -> anyhow::Result<Self> {
        let mut all = BTreeMap::new();
        for decision in decisions {
            for (model, (figure, pico)) in
                decision.models.iter().flat_map(|model| decision.take.iter().map(move |take| (model, take)))
            {
                let before = all.insert((model.clone(), figure.clone()), (*pico, false));
                ensure!(before.is_none(), "{model}'s {figure} is decided twice");
            }
        }
        Ok(Self(all))
    }

    fn take(&mut self, model: &str, figure: &str) -> Option<u64> {
        let (pico, used) = self.0.get_mut(&(model.to_owned(), figure.to_owned()))?;
        *used = true;
        Some(*pico)
    }

    fn unneeded(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .filter(|(_, (_, used))| !used)
            .map(|((model, figure), _)| format!("{model}: nothing needs a decision on {figure}"))
    }
}

fn entry(group: &names::Group<'_>, taken: &str, decisions: &Decisions, decided: &mut Decided) -> anyhow::Result<Entry> {
    let ours = group.litellm.map(figures::of_litellm).transpose()?.unwrap_or_default();
    let theirs = |day: &str| group.genai.map(|genai| figures::of_genai(genai, day)).transpose().map(Option::unwrap_or_default);
    let now = theirs(taken)?;
    let first = merge(&group.id, &ours, &now, decided)?;

    // Changes to come: genai-prices knows the days, and LiteLLM's figures follow the usual price.
    let days: Vec<String> = group.genai.map(|genai| figures::changes(genai, taken)).unwrap_or_default();
    let mut periods = vec![Period { from: None, until: days.first().cloned(), figures: first.clone() }];
    for (at, day) in days.iter().enumerate() {
        let then = theirs(day)?;
        let figures = later(&first, &now, &then)?;
        periods.push(Period { from: Some(day.clone()), until: days.get(at + 1).cloned(), figures });
    }

    let gap = decisions.gaps.iter().find(|gap| gap.models.contains(&group.id));
    let limit = |known: Option<u64>, said: fn(&Gap) -> Option<u64>, what: &str| {
        known.or_else(|| gap.and_then(said)).with_context(|| format!("nobody knows its {what}"))
    };
    Ok(Entry {
        id: group.id.clone(),
        provider: group.provider.to_owned(),
        aliases: group.aliases.iter().cloned().collect(),
        dated: group.genai.filter(|genai| genai.id == group.id).map(|genai| genai.dated.clone()).unwrap_or_default(),
        max_input: limit(
            group.litellm.map_or(group.genai.and_then(|g| g.context_window), |l| l.max_input),
            |gap| gap.max_input,
            "max_input",
        )?,
        // An embedding has no tokens.
        max_output: limit(
            group.litellm.and_then(|l| l.max_output.or((l.mode == "embedding").then_some(0))),
            |gap| gap.max_output,
            "max_output",
        )?,
        // Genai-prices does not say.
        can: group.litellm.map(|litellm| litellm.can.clone()).unwrap_or_default(),
        us_permille: match group.litellm.and_then(|l| l.multipliers.get("us")) {
            Some(text) => Some((figures::scaled(text, 3)?, Origin::Litellm)),
            None => gap.and_then(|gap| gap.us_permille).map(|permille| (permille, Origin::Decided)),
        },
        pages: group
            .litellm
            .iter()
            .filter_map(|l| l.source.clone())
            .chain(group.genai.iter().flat_map(|g| g.pages.clone()))
            .collect(),
        periods,
    })
}

/// Both sets in one, where they agree or somebody decided.
fn merge(id: &str, litellm: &Figures, genai: &Figures, decided: &mut Decided) -> anyhow::Result<BTreeMap<Key, (u64, Origin)>> {
    let sizes: BTreeSet<u64> = litellm.keys().chain(genai.keys()).map(|key| key.above).collect();
    let lines: BTreeSet<(Service, Dimension)> =
        litellm.keys().chain(genai.keys()).map(|key| (key.service, key.dimension)).collect();
    let mut merged = BTreeMap::new();
    let mut open = Vec::new();
    for (service, dimension) in lines {
        for &above in &sizes {
            let key = Key { service, above, dimension };
            let (l, g) = (figures::effective(litellm, key), figures::effective(genai, key));
            let is_written = litellm.contains_key(&key) || genai.contains_key(&key);
            let figure = match (l, g) {
                _ if !is_written => continue,
                (Some(l), Some(g)) if l == g => (l, Origin::Both),
                (Some(l), Some(g)) => match decided.take(id, &key.to_string()) {
                    Some(pico) if pico == l || pico == g => (pico, Origin::Decided),
                    Some(pico) => bail!("{key} is decided as {pico}, which neither set says"),
                    None => {
                        open.push(format!("{key} is {l} in LiteLLM and {g} in genai-prices"));
                        continue;
                    }
                },
                (Some(l), None) => (l, Origin::Litellm),
                (None, Some(g)) => (g, Origin::Genai),
                (None, None) => continue,
            };
            merged.insert(key, figure);
        }
    }
    ensure!(open.is_empty(), "{}", open.join("; "));
    let sized = unsized_classes(&merged)?;
    merged.extend(sized);
    Ok(merged)
}

/// A class that only LiteLLM knows, without sizes, at a model that has them: an omission, since the class is a share of the usual
/// price. What both sets know without sizes has none.
fn unsized_classes(merged: &BTreeMap<Key, (u64, Origin)>) -> anyhow::Result<Vec<(Key, (u64, Origin))>> {
    let mut found = Vec::new();
    for (&key, &(pico, origin)) in merged.iter().filter(|(key, _)| key.service != Service::Standard && key.above == 0) {
        let is_sized = merged.keys().any(|k| (k.service, k.dimension) == (key.service, key.dimension) && k.above > 0);
        let usual = |above| merged.get(&Key { service: Service::Standard, above, ..key }).map(|(pico, _)| *pico);
        let Some(before) = usual(0).filter(|_| origin == Origin::Litellm && !is_sized) else { continue };
        for above in merged.keys().map(|key| key.above).filter(|above| *above > 0).collect::<BTreeSet<_>>() {
            if let Some(after) = usual(above) {
                let key = Key { above, ..key };
                found.push((key, (scale(key, pico, before, after)?, Origin::Scaled)));
            }
        }
    }
    Ok(found)
}

/// `pico` in the proportion in which the usual price changes.
fn scale(key: Key, pico: u64, before: u64, after: u64) -> anyhow::Result<u64> {
    let product = pico.checked_mul(after).context("too large")?;
    ensure!(product.is_multiple_of(before), "{key} does not scale to whole pico-USD");
    Ok(product / before)
}

/// The figures after a change: genai-prices' own, and LiteLLM's in the proportion of the usual price.
fn later(first: &BTreeMap<Key, (u64, Origin)>, now: &Figures, then: &Figures) -> anyhow::Result<BTreeMap<Key, (u64, Origin)>> {
    let mut figures = BTreeMap::new();
    for (&key, &(pico, origin)) in first {
        ensure!(origin != Origin::Decided, "{key} is decided and changes: its later price has to be decided too");
        let figure = match then.get(&key) {
            Some(&pico) => (pico, Origin::Genai),
            None if key.dimension == Dimension::Search => (pico, origin),
            None => {
                let of = |figures: &Figures, dimension| {
                    figures::effective(figures, Key { service: Service::Standard, above: key.above, dimension })
                };
                let basis = if key.dimension.is_answer() { Dimension::Output } else { Dimension::Input };
                let dimension = [key.dimension, basis].into_iter().find(|&d| of(now, d).is_some());
                let pair = dimension.and_then(|d| Some((of(now, d)?, of(then, d)?)));
                let (before, after) = pair.with_context(|| format!("{key} follows no price of genai-prices"))?;
                (scale(key, pico, before, after)?, Origin::Scaled)
            }
        };
        figures.insert(key, figure);
    }
    ensure!(then.keys().all(|key| figures.contains_key(key)), "a price appears that does not hold yet");
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home;

    fn committed() -> Sources {
        Sources::read(&super::super::sources()).unwrap()
    }

    #[test]
    fn the_committed_catalogue_is_what_the_sources_give() {
        let derived = derive(&committed()).unwrap();
        let held = fs::read_to_string(home::root().join(super::super::CATALOGUE)).unwrap();
        assert!(derived == held, "api-proxy/catalogue.json is stale: run `cargo xtask gen prices --offline`");
    }

    /// Changes one text of the sources, which must stand in it, and gives what the derivation says.
    fn with(change: impl FnOnce(&mut Sources) -> (String, String, String)) -> String {
        let mut sources = committed();
        let (text, from, to) = change(&mut sources);
        assert!(text.contains(&from), "{from} does not stand there");
        let text = text.replacen(&from, &to, 1);
        let sources = if text.contains(r#""set": "litellm""#) {
            Sources { litellm: text, ..sources }
        } else {
            Sources { decisions: text, ..sources }
        };
        format!("{:#}", derive(&sources).unwrap_err())
    }

    #[test]
    fn a_difference_that_nobody_decided_on_is_refused() {
        // The price with which claude-sonnet-5-5 was announced, and which no longer holds.
        let said = with(|s| {
            let (_, entry) = s.litellm.split_once(r#""name": "claude-sonnet-5-5""#).unwrap();
            let entry: String = entry.split_once("}},").unwrap().0.to_owned();
            (
                s.litellm.clone(),
                entry.clone(),
                entry.replace(r#""cache_read_input_token_cost": "1e-07""#, r#""cache_read_input_token_cost": "2e-07""#),
            )
        });
        assert!(said.contains("claude-sonnet-5-5: standard cached is 200000 in LiteLLM and 100000 in genai-prices"), "{said}");
    }

    #[test]
    fn a_decision_that_nothing_needs_is_refused() {
        let more = r#""figures": [{"reason": "", "models": ["gpt-6-sol"], "take": {"standard input": 1}},"#;
        let said = with(|s| (s.decisions.clone(), r#""figures": ["#.to_owned(), more.to_owned()));
        assert!(said.contains("gpt-6-sol: nothing needs a decision on standard input"), "{said}");
    }

    #[test]
    fn a_decision_is_one_of_the_two() {
        let said =
            with(|s| (s.decisions.clone(), r#""standard search": 10000000000"#.to_owned(), r#""standard search": 1"#.to_owned()));
        assert!(said.contains("standard search is decided as 1, which neither set says"), "{said}");
    }
}
