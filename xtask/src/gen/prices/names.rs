//! Which names are one model: dated names and `-latest` are aliases of what they stand for.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};

use super::{Choice, Genai, Litellm};

/// One model, in both sets or in one.
pub(super) struct Group<'a> {
    pub(super) id: String,
    pub(super) provider: &'a str,
    pub(super) aliases: BTreeSet<String>,
    pub(super) litellm: Option<&'a Litellm>,
    pub(super) genai: Option<&'a Genai>,
}

/// Puts the names of both sets together.
pub(super) fn group<'a>(litellm: &'a [Litellm], genai: &'a [Genai], also: &[Choice]) -> anyhow::Result<Vec<Group<'a>>> {
    let by_name: BTreeMap<&str, &Litellm> = litellm.iter().map(|model| (model.name.as_str(), model)).collect();
    ensure!(by_name.len() == litellm.len(), "two providers have a model of one name");
    let known_as =
        |model: &Litellm| genai.iter().find(|entry| entry.provider == model.provider && entry.names.contains(&model.name));
    let mut groups: BTreeMap<&str, Group<'a>> = BTreeMap::new();
    let mut aliases = Vec::new();
    for model in litellm {
        // A name may stand for a name that stands for another: no provider makes longer chains than this.
        let chain = std::iter::successors(Some(model), |model| stands_for(model, known_as(model), &by_name));
        match chain.skip(1).take(3).last() {
            Some(target) => aliases.push((model, target)),
            None => {
                let genai = known_as(model);
                let group = Group {
                    id: model.name.clone(),
                    provider: &model.provider,
                    aliases: BTreeSet::new(),
                    litellm: Some(model),
                    genai,
                };
                groups.insert(&model.name, group);
            }
        }
    }
    for (alias, target) in aliases {
        let group = groups.get_mut(target.name.as_str()).with_context(|| format!("{} stands for an alias", alias.name))?;
        let differs = alias.figures.iter().find(|(key, figure)| target.figures.get(*key).is_some_and(|other| other != *figure));
        ensure!(differs.is_none(), "{} stands for {}, whose {differs:?} is another", alias.name, target.name);
        group.aliases.insert(alias.name.clone());
    }
    for (provider, name) in also.iter().flat_map(|choice| choice.models.iter().map(|name| (&choice.provider, name))) {
        let entry = genai
            .iter()
            .find(|entry| entry.id == *name && entry.provider == *provider)
            .with_context(|| format!("genai-prices has no {name}"))?;
        ensure!(entry.names.is_empty(), "{name} is in both sets: it needs no word in decisions.json");
        let group =
            Group { id: name.clone(), provider: &entry.provider, aliases: BTreeSet::new(), litellm: None, genai: Some(entry) };
        groups.insert(&entry.id, group);
    }
    // Names that only genai-prices spells out.
    for group in groups.values_mut() {
        let more = group.genai.iter().flat_map(|entry| &entry.equals);
        let more = more.filter(|name| !by_name.contains_key(name.as_str()) && base_of(name).is_some_and(|base| base == group.id));
        group.aliases.extend(more.cloned());
    }
    Ok(groups.into_values().collect())
}

/// The model that a name is an alias of, unless it is a model by itself.
fn stands_for<'a>(model: &Litellm, known_as: Option<&Genai>, by_name: &BTreeMap<&str, &'a Litellm>) -> Option<&'a Litellm> {
    let same = |name: &str| by_name.get(name).copied().filter(|other| other.provider == model.provider && other.name != model.name);
    if let Some(other) = base_of(&model.name).and_then(same) {
        return Some(other);
    }
    let equal = |other: &&Litellm| other.figures == model.figures && other.mode == model.mode;
    if model.provider == "xai" {
        // Its list gives one model many names, each with the same prices: the shortest is the model's.
        return model.name.match_indices('-').find_map(|(end, _)| model.name.get(..end).and_then(same).filter(equal));
    }
    let entry = known_as?;
    let moves = model.name.ends_with("-latest");
    same(&entry.id).filter(|other| moves || entry.equals.contains(&model.name) && equal(other))
}

/// What is before a date or `-latest` at the end of a name.
pub(super) fn base_of(name: &str) -> Option<&str> {
    if let Some(base) = name.strip_suffix("-latest") {
        return Some(base);
    }
    date_of(name).map(|(base, _)| base)
}

/// A name and the date at its end, as `YYYY-MM-DD`.
pub(super) fn date_of(name: &str) -> Option<(&str, String)> {
    let is_date = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(b, s)| if s == b'0' { b.is_ascii_digit() } else { b == s })
    };
    let cut = |length: usize| name.split_at_checked(name.len().checked_sub(length)?);
    if let Some((base, date)) = cut(11).filter(|(_, end)| is_date(end, "-0000-00-00")) {
        return Some((base, date[1..].to_owned()));
    }
    let (base, date) = cut(9).filter(|(_, end)| is_date(end, "-00000000"))?;
    Some((base, format!("{}-{}-{}", &date[1..5], &date[5..7], &date[7..])))
}
