//! The catalogue's text: one model in one block, one line for each class of service and prompt size.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::json;

use super::{Entry, Genai, Litellm, Origin, Period, Set, names};

pub(super) fn write(litellm: &Set<Litellm>, genai: &Set<Genai>, entries: &[Entry]) -> String {
    let set = |name: &str, version: &str, licence: &str| format!("{name} {version}, {licence}, see prices/");
    let head = [
        (
            "about",
            json!("Made by `cargo xtask gen prices`. Figures are pico-USD per token, `search` per search, each with its origin."),
        ),
        ("taken", json!(genai.taken)),
        ("l", json!(set(&litellm.set, &litellm.version, &litellm.licence))),
        ("g", json!(set(&genai.set, &genai.version, &genai.licence))),
        ("lg", json!("both of them")),
        ("s", json!("l, which has no dates and leaves out sizes, times what the usual price changes by")),
        ("d", json!("they differ or are silent, and prices/decisions.json says what holds and why")),
    ];
    let mut text = String::from("{\n");
    for (name, value) in head {
        text += &format!("  \"{name}\": {value},\n");
    }
    text += "  \"models\": [\n";
    let blocks: Vec<String> = entries.iter().map(block).collect();
    text += &blocks.join(",\n");
    text += "\n  ]\n}\n";
    text
}

fn block(entry: &Entry) -> String {
    // The day in the oldest of the dated names is the nearest that both sets come to a date of birth.
    let created = entry.aliases.iter().filter_map(|name| Some(names::date_of(name)?.1)).min();
    let dated: Vec<&str> =
        entry.dated.iter().map(|sample| if sample.matches('-').count() == 3 { "YYYY-MM-DD" } else { "YYYYMMDD" }).collect();
    let mut lines = vec![
        format!("\"id\": {}, \"provider\": {}", json!(entry.id), json!(entry.provider)),
        format!("\"aliases\": {}, \"dated\": {}", json!(entry.aliases), json!(dated)),
        format!("\"max_input\": {}, \"max_output\": {}, \"created\": {}", entry.max_input, entry.max_output, json!(created)),
    ];
    lines.push(format!("\"can\": {}", json!(entry.can)));
    if let Some((permille, origin)) = entry.us_permille {
        lines.push(format!("\"us_permille\": [{permille}, \"{}\"]", letter(origin)));
    }
    let mut pages = entry.pages.clone();
    pages.sort();
    pages.dedup();
    lines.push(format!("\"pages\": {}", json!(pages)));
    let periods: Vec<String> = entry.periods.iter().map(period).collect();
    lines.push(format!("\"prices\": [\n{}\n     ]", periods.join(",\n")));
    format!("    {{{}}}", lines.join(",\n     "))
}

fn period(period: &Period) -> String {
    let mut rows: BTreeMap<_, String> = BTreeMap::new();
    for (key, (pico, origin)) in &period.figures {
        let row = rows
            .entry((key.service, key.above))
            .or_insert_with(|| format!("{{\"service\": \"{}\", \"above\": {}", key.service.name(), key.above));
        // Writing to a String cannot fail.
        let _ = write!(row, ", \"{}\": [{pico}, \"{}\"]", key.dimension.name(), letter(*origin));
    }
    let rows: Vec<String> = rows.into_values().map(|row| format!("         {row}}}")).collect();
    format!(
        "       {{\"from\": {}, \"until\": {}, \"rates\": [\n{}\n       ]}}",
        json!(period.from),
        json!(period.until),
        rows.join(",\n")
    )
}

fn letter(origin: Origin) -> &'static str {
    match origin {
        Origin::Both => "lg",
        Origin::Litellm => "l",
        Origin::Genai => "g",
        Origin::Scaled => "s",
        Origin::Decided => "d",
    }
}
