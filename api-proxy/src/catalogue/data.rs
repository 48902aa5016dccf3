//! The committed file, read.

use serde::Deserialize;

use super::{
    Abilities, CatalogueError, DateForm, Model,
    price::{self, Listed, Period, Service},
};
use crate::calendar;

/// What is read of it: its head is for people.
#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    models: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    id: &'a str,
    provider: &'a str,
    aliases: Vec<&'a str>,
    dated: Vec<&'a str>,
    max_input: u64,
    max_output: u64,
    created: Option<&'a str>,
    can: Abilities,
    us_permille: Option<Figure<'a>>,
    prices: Vec<Prices<'a>>,
}

/// A number, and where it comes from.
type Figure<'a> = (u64, &'a str);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices<'a> {
    from: Option<&'a str>,
    until: Option<&'a str>,
    #[serde(borrow)]
    rates: Vec<Row<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<'a> {
    service: &'a str,
    above: u64,
    #[serde(borrow)]
    input: Option<Figure<'a>>,
    #[serde(borrow)]
    cached: Option<Figure<'a>>,
    #[serde(borrow)]
    cache_write_short: Option<Figure<'a>>,
    #[serde(borrow)]
    cache_write_long: Option<Figure<'a>>,
    #[serde(borrow)]
    input_audio: Option<Figure<'a>>,
    #[serde(borrow)]
    input_image: Option<Figure<'a>>,
    #[serde(borrow)]
    output: Option<Figure<'a>>,
    #[serde(borrow)]
    output_audio: Option<Figure<'a>>,
    #[serde(borrow)]
    output_image: Option<Figure<'a>>,
    #[serde(borrow)]
    search: Option<Figure<'a>>,
}

/// The models of the text.
pub(super) fn read(text: &str) -> Result<Vec<Model>, CatalogueError> {
    let file: File<'_> = serde_json::from_str(text).map_err(|error| CatalogueError::new("(all)", error.to_string()))?;
    file.models.iter().map(model).collect()
}

fn model(entry: &Entry<'_>) -> Result<Model, CatalogueError> {
    let problem = |problem: &str| CatalogueError::new(entry.id, problem);
    let periods = entry.prices.iter().map(|prices| period(prices).map_err(problem)).collect::<Result<Box<[_]>, _>>()?;
    if periods.is_empty() || !periods.windows(2).all(|pair| pair[0].until.is_some() && pair[0].until == pair[1].from) {
        return Err(problem("its prices must follow each other without a gap"));
    }
    Ok(Model {
        id: entry.id.into(),
        provider: entry.provider.parse().map_err(|_| problem("its provider is no name"))?,
        max_input: entry.max_input,
        max_output: entry.max_output,
        can: entry.can,
        created: entry.created.map(|day| day_of(day).ok_or_else(|| problem("`created` is no day"))).transpose()?,
        aliases: entry.aliases.iter().map(|&name| name.into()).collect(),
        dated: entry
            .dated
            .iter()
            .map(|form| date_form(form).ok_or_else(|| problem("`dated` is not known")))
            .collect::<Result<_, _>>()?,
        has_own_price: false,
        us_permille: entry.us_permille.map_or(1000, |(permille, _)| permille),
        periods,
    })
}

fn period(prices: &Prices<'_>) -> Result<Period, &'static str> {
    let day = |day: Option<&str>| day.map(|day| day_of(day).ok_or("`from` and `until` are days")).transpose();
    let rows = prices.rates.iter().map(row).collect::<Option<Vec<_>>>().ok_or("one of its classes of service is not known")?;
    Ok(Period {
        from: day(prices.from)?,
        until: day(prices.until)?,
        services: price::services(&rows).ok_or("it has no price of the prompt")?,
        search: prices.rates.iter().find_map(|row| row.search).map(|(pico, _)| pico),
    })
}

fn row(row: &Row<'_>) -> Option<(Service, u64, Listed)> {
    let service = match row.service {
        "standard" => Service::Standard,
        "flex" => Service::Flex,
        "batch" => Service::Batch,
        "priority" => Service::Priority,
        "ultrafast" => Service::Ultrafast,
        "fast" => Service::Fast,
        _ => return None,
    };
    let pico = |figure: Option<Figure<'_>>| figure.map(|(pico, _)| pico);
    let listed = Listed {
        input: pico(row.input),
        cached: pico(row.cached),
        cache_write_short: pico(row.cache_write_short),
        cache_write_long: pico(row.cache_write_long),
        input_audio: pico(row.input_audio),
        input_image: pico(row.input_image),
        output: pico(row.output),
        output_audio: pico(row.output_audio),
        output_image: pico(row.output_image),
    };
    Some((service, row.above, listed))
}

fn date_form(text: &str) -> Option<DateForm> {
    match text {
        "YYYY-MM-DD" => Some(DateForm::Dashed),
        "YYYYMMDD" => Some(DateForm::Compact),
        _ => None,
    }
}

/// The first second of a day such as `2026-12-01` in UTC, since 1970.
pub(super) fn day_of(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let in_range = text.len() == 10 && (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    in_range.then(|| u64::try_from(calendar::day(year, month, day) * calendar::DAY).ok())?
}
