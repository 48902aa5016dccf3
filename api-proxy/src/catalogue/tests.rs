use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::{Iteration, Tier, TokenUsage, Usage};

fn catalogue() -> Catalogue {
    Catalogue::embedded().unwrap()
}

fn on(day: &str) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(data::day_of(day).unwrap())
}

/// The cost of a usage on 20 November 2026.
fn cost(model: &str, tokens: TokenUsage) -> i64 {
    cost_at(model, on("2026-11-20"), tokens)
}

fn cost_at(model: &str, at: SystemTime, tokens: TokenUsage) -> i64 {
    let catalogue = catalogue();
    catalogue.cost(catalogue.find(model).unwrap(), at, &Usage { whole: tokens, iterations: Vec::new() })
}

fn text(input: u64, output: u64) -> TokenUsage {
    TokenUsage { input: Some(input), output: Some(output), ..TokenUsage::default() }
}

/// What a million tokens of each kind cost, in thousandths of a dollar, each asked for in a request of its own that is small
/// enough for the first size.
fn prices(model: &str) -> [i64; 5] {
    let thousand = Some(1000);
    let none = TokenUsage::default();
    [
        TokenUsage { input: thousand, ..none },
        TokenUsage { cached: thousand, ..none },
        TokenUsage { cache_write_short: thousand, ..none },
        TokenUsage { cache_write_long: thousand, ..none },
        TokenUsage { output: thousand, ..none },
    ]
    .map(|tokens| cost(model, tokens) / 1000)
}

#[test]
fn the_known_models_cost_what_their_makers_say() {
    // Input, cached, cache write short and long, output: thousandths of a dollar per million tokens. What a maker does not price
    // costs what input costs.
    for (model, expected) in [
        ("gpt-6-astra", [10_000, 1_000, 12_500, 25_000, 50_000]),
        ("gpt-6-sol", [2_000, 200, 2_500, 5_000, 10_000]),
        ("gpt-6.1-sol", [2_000, 100, 2_500, 5_000, 10_000]),
        ("gpt-6.1-terra", [1_000, 50, 1_250, 2_500, 5_000]),
        ("gpt-6-luna", [100, 10, 125, 250, 500]),
        ("gpt-5.5", [5_000, 500, 5_000, 5_000, 30_000]),
        ("gpt-5.5-pro", [30_000, 30_000, 30_000, 30_000, 180_000]),
        ("gpt-5.4-mini", [750, 75, 750, 750, 4_500]),
        ("claude-fable-5-1", [10_000, 250, 12_500, 20_000, 50_000]),
        ("claude-opus-5-5", [4_000, 200, 5_000, 8_000, 20_000]),
        ("claude-sonnet-5-5", [2_000, 100, 2_500, 4_000, 10_000]),
        ("claude-haiku-5-5", [100, 10, 125, 200, 500]),
        ("claude-haiku-4-5", [1_000, 100, 1_250, 2_000, 5_000]),
        ("claude-sonnet-4-6", [3_000, 300, 3_750, 6_000, 15_000]),
        ("gemini-4-argon", [2_000, 100, 2_000, 2_000, 10_000]),
        ("gemini-3.8-flash", [750, 75, 750, 750, 3_750]),
        ("gemini-3.1-pro-preview", [2_000, 200, 2_000, 2_000, 12_000]),
        ("gemini-2.5-flash", [300, 30, 300, 300, 2_500]),
        ("grok-4.7", [2_000, 500, 2_000, 2_000, 6_000]),
        ("grok-4.3", [1_250, 200, 1_250, 1_250, 2_500]),
    ] {
        assert_eq!(prices(model), expected, "{model}");
    }
}

#[test]
fn a_price_changes_at_midnight_utc() {
    let tokens = TokenUsage { cached: Some(1000), ..text(1000, 100) };
    let last = on("2026-12-01") - Duration::from_nanos(1);
    // 1000 * 2 + 1000 * 0.1 + 100 * 10 micro-dollars, and twice that.
    assert_eq!(cost_at("gemini-4-argon", last, tokens), 3_100_000);
    assert_eq!(cost_at("gemini-4-argon", on("2026-12-01"), tokens), 6_200_000);
    assert_eq!(cost_at("gemini-3.8-flash", on("2026-12-31"), text(1000, 100)), 1_125_000);
    assert_eq!(cost_at("gemini-3.8-flash", on("2027-01-01"), text(1000, 100)), 2_250_000);
    // The class that only one of the sets knows follows.
    let priority = TokenUsage { tier: Some(Tier::Priority), ..text(1000, 100) };
    assert_eq!(cost_at("gemini-4-argon", last, priority), 5_400_000);
    assert_eq!(cost_at("gemini-4-argon", on("2026-12-01"), priority), 10_800_000);
}

#[test]
fn a_long_prompt_makes_the_whole_request_dearer() {
    // All kinds of prompt tokens count for the size; the answer is dearer too.
    let tokens = TokenUsage { cached: Some(1000), cache_write_short: Some(1000), ..text(270_000, 1000) };
    assert_eq!(cost("gpt-6-sol", tokens), 540_000_000 + 200_000 + 2_500_000 + 10_000_000);
    let tokens = TokenUsage { input: Some(270_001), ..tokens };
    assert_eq!(cost("gpt-6-sol", tokens), 1_080_004_000 + 400_000 + 5_000_000 + 15_000_000);
    // Haiku: five times of everything above 100,000.
    assert_eq!(cost("claude-haiku-5-5", text(100_000, 1000)), 10_000_000 + 500_000);
    assert_eq!(cost("claude-haiku-5-5", text(100_001, 1000)), 50_000_500 + 2_500_000);
    let write = TokenUsage { cache_write_long: Some(100_001), ..TokenUsage::default() };
    assert_eq!(cost("claude-haiku-5-5", write), 100_001_000);
    // Google says "above", xAI says "from".
    assert_eq!(cost("gemini-3.1-pro-preview", text(200_000, 0)), 400_000_000);
    assert_eq!(cost("gemini-3.1-pro-preview", text(200_001, 0)), 800_004_000);
    assert_eq!(cost("grok-4.7", text(199_999, 1000)), 399_998_000 + 6_000_000);
    assert_eq!(cost("grok-4.7", text(200_000, 1000)), 800_000_000 + 12_000_000);
}

#[test]
fn a_class_of_service_has_its_prices() {
    let with = |tier| TokenUsage { tier: Some(tier), cached: Some(1000), ..text(1000, 1000) };
    assert_eq!(cost("gpt-6-astra", with(Tier::Standard)), 61_000_000);
    assert_eq!(cost("gpt-6-astra", with(Tier::Scale)), 61_000_000);
    assert_eq!(cost("gpt-6-astra", with(Tier::Priority)), 122_000_000);
    assert_eq!(cost("gpt-6-astra", with(Tier::Flex)), 30_500_000);
    assert_eq!(cost("gpt-6-astra", with(Tier::Batch)), 30_500_000);
    assert_eq!(cost("gpt-6-astra", with(Tier::Ultrafast)), 366_000_000);
    // What a class does not list costs the usual: OpenAI's batch table has no cache.
    assert_eq!(cost("gpt-4.1", TokenUsage { tier: Some(Tier::Batch), cached: Some(1000), ..text(0, 0) }), 500_000);
    // A class is a share of the usual price at each size, also where a list gives it for the small one only.
    assert_eq!(
        cost("gemini-3.1-pro-preview", TokenUsage { tier: Some(Tier::Flex), ..text(200_001, 1000) }),
        400_002_000 + 9_000_000
    );
    // A price without sizes holds for all of them.
    assert_eq!(cost("gpt-5.5", TokenUsage { tier: Some(Tier::Priority), ..text(300_000, 0) }), 3_750_000_000);
    assert_eq!(cost("gpt-5.5", text(300_000, 0)), 3_000_000_000);
}

#[test]
fn speed_and_place_have_their_prices() {
    let tokens = TokenUsage { cached: Some(1000), cache_write_short: Some(1000), cache_write_long: Some(1000), ..text(1000, 1000) };
    assert_eq!(cost("claude-opus-5-5", tokens), 37_200_000);
    assert_eq!(cost("claude-opus-5-5", TokenUsage { fast: true, ..tokens }), 74_400_000);
    assert_eq!(cost("claude-opus-5-5", TokenUsage { us_only: true, ..tokens }), 40_920_000);
    assert_eq!(cost("claude-opus-5-5", TokenUsage { fast: true, us_only: true, ..tokens }), 81_840_000);
    assert_eq!(cost("claude-fable-5-2", TokenUsage { us_only: true, ..text(1000, 0) }), 8_800_000);
    // A search costs the same everywhere.
    let search = TokenUsage { searches: Some(3), us_only: true, ..TokenUsage::default() };
    assert_eq!(cost("claude-opus-5-5", search), 30_000_000);
    // A model without a fast mode has one price, and one without a price of the place likewise.
    assert_eq!(cost("gpt-6-sol", TokenUsage { fast: true, us_only: true, ..text(1000, 0) }), 2_000_000);
}

#[test]
fn sums_are_rounded_once_and_half_up() {
    // 5 nano-dollars each.
    assert_eq!(cost("claude-haiku-5-5", TokenUsage { cached: Some(1), tier: Some(Tier::Batch), ..TokenUsage::default() }), 5);
    // 62.5 nano-dollars each: one is 63, two are 125, not 126.
    let written = |count| TokenUsage { cache_write_short: Some(count), tier: Some(Tier::Batch), ..TokenUsage::default() };
    assert_eq!([1, 2, 3].map(|count| cost("claude-haiku-5-5", written(count))), [63, 125, 188]);
    // With a tenth on top: 68.75, 137.5, 206.25.
    assert_eq!([1, 2, 3].map(|count| cost("claude-haiku-5-5", TokenUsage { us_only: true, ..written(count) })), [69, 138, 206]);
}

#[test]
fn what_an_answer_says_of_its_price_is_rounded_alike_and_is_no_price_by_itself() {
    // 1 tick of xAI's is 100 pico-dollars.
    assert_eq!([123_456_700, 500, 499, 0].map(charged), [123_457, 1, 0, 0]);
    let tokens = text(1_000_000, 1_000_000);
    assert_eq!(cost("grok-4.7", TokenUsage { upstream_cost_pico: Some(0), ..tokens }), cost("grok-4.7", tokens));
}

#[test]
fn an_embedding_costs_its_prompt() {
    assert_eq!(cost("text-embedding-3-small", TokenUsage { input: Some(1000), ..TokenUsage::default() }), 20_000);
    assert_eq!(cost("gemini-embedding-001", TokenUsage { input: Some(1000), ..TokenUsage::default() }), 150_000);
    assert_eq!(catalogue().find("text-embedding-3-small").unwrap().max_output, 0);
}

#[test]
fn pictures_have_their_prices() {
    let tokens = TokenUsage { input_image: Some(1000), output_image: Some(1000), ..text(1000, 0) };
    assert_eq!(cost("gpt-image-2", tokens), 5_000_000 + 8_000_000 + 30_000_000);
    assert_eq!(cost("gpt-image-2", text(0, 1000)), 30_000_000);
    assert_eq!(cost("gemini-3-pro-image", TokenUsage { output_image: Some(1120), ..text(0, 100) }), 134_400_000 + 1_200_000);
}

#[test]
fn turns_are_paid_for_one_by_one() {
    let catalogue = catalogue();
    let turn = |model: Option<&str>, tokens| Iteration { model: model.map(str::to_owned), tokens };
    let asked = catalogue.find("claude-opus-5-5").unwrap();
    let usage = Usage {
        whole: TokenUsage { us_only: true, searches: Some(1), ..text(9_999, 9_999) },
        iterations: vec![
            turn(None, text(1000, 100)),
            turn(Some("claude-haiku-5-5-20261001"), text(100_001, 0)),
            turn(Some("claude-unheard-of"), text(1000, 0)),
        ],
    };
    let sum = (4_000_000 + 2_000_000 + 50_000_500 + 4_000_000) * 11 / 10 + 10_000_000;
    assert_eq!(catalogue.cost(asked, on("2026-11-20"), &usage), sum);
}

#[test]
fn what_no_number_holds_costs_the_most_that_there_is() {
    let huge = TokenUsage { input: Some(u64::MAX), output: Some(u64::MAX), cached: Some(u64::MAX), ..TokenUsage::default() };
    assert_eq!(cost("gpt-6-astra", huge), i64::MAX);
    assert_eq!(cost("claude-opus-5-5", TokenUsage { searches: Some(u64::MAX), us_only: true, ..huge }), i64::MAX);
    let catalogue = catalogue();
    let bound = Bound { input: u64::MAX, output: u64::MAX, tier: None, fast: true, us_only: true };
    assert_eq!(catalogue.most(catalogue.find("claude-opus-5-5").unwrap(), on("2026-11-20"), &bound), i64::MAX);
}

#[test]
fn names_lead_to_models() {
    let catalogue = catalogue();
    let id = |name: &str| catalogue.find(name).map(|model| model.id.to_string());
    assert_eq!(id("gpt-6-sol").as_deref(), Some("gpt-6-sol"));
    assert_eq!(id("claude-haiku-4-5-20251001").as_deref(), Some("claude-haiku-4-5"));
    assert_eq!(id("gemini-flash-latest").as_deref(), Some("gemini-3.8-flash"));
    assert_eq!(id("grok-4.7-latest").as_deref(), Some("grok-4.7"));
    // Days that no list spells out, where the maker writes such names.
    assert_eq!(id("gpt-6-sol-2026-08-31").as_deref(), Some("gpt-6-sol"));
    assert_eq!(id("claude-opus-5-5-20260901").as_deref(), Some("claude-opus-5-5"));
    for unknown in [
        "",
        "gpt-6",
        "gpt-6-sol-20260831",
        "gpt-4o-2024-05-13",
        "gpt-6-sol-2026-08-3x",
        "-2026-08-31",
        "GPT-6-SOL",
        "gpt-3.5-turbo",
        "é-2026-08-31",
    ] {
        assert_eq!(id(unknown), None, "{unknown}");
    }
}

#[test]
fn models_are_listed_once_and_in_order() {
    let catalogue = catalogue();
    let ids: Vec<_> = catalogue.models().map(|model| &*model.id).collect();
    assert_eq!(ids.len(), 112);
    assert!(ids.is_sorted_by(|a, b| a < b));
    let providers: std::collections::BTreeSet<_> = catalogue.models().map(|model| model.provider.as_str()).collect();
    assert_eq!(providers.into_iter().collect::<Vec<_>>(), ["anthropic", "google", "openai", "xai"]);
    let gpt = catalogue.find("gpt-5.5").unwrap();
    assert_eq!((gpt.max_input, gpt.max_output, gpt.created), (1_050_000, 128_000, Some(1_776_902_400)));
    assert!(catalogue.models().all(|model| model.is_priced(on("2026-11-20")) && model.is_priced(on("2031-01-01"))));
}

fn file(prices: &str) -> Result<Catalogue, CatalogueError> {
    let entry =
        r#""id": "m", "provider": "p", "aliases": [], "dated": [], "max_input": 1, "max_output": 1, "created": null, "can": {}"#;
    let text = format!(r#"{{"models": [{{{entry}, "prices": [{prices}]}}]}}"#);
    Catalogue::new(data::read(&text)?, Snapshot::of(&[]))
}

#[test]
fn a_model_without_a_price_now_cannot_be_asked_for() {
    let catalogue =
        file(r#"{"from": "2026-12-01", "until": "2027-01-01", "rates": [{"service": "standard", "above": 0, "input": [7, "l"]}]}"#)
            .unwrap();
    let model = catalogue.find("m").unwrap();
    let second = Duration::from_secs(1);
    let priced =
        [on("2026-12-01") - second, on("2026-12-01"), on("2027-01-01") - second, on("2027-01-01")].map(|at| model.is_priced(at));
    assert_eq!(priced, [false, true, true, false]);
    // What was used all the same is paid for.
    let usage = Usage { whole: text(1_000_000, 0), iterations: Vec::new() };
    assert_eq!([on("2020-01-01"), on("2030-01-01")].map(|at| catalogue.cost(model, at, &usage)), [7_000, 7_000]);
}

#[test]
fn a_damaged_file_is_refused() {
    let said = |prices: &str| file(prices).unwrap_err().to_string();
    assert_eq!(said(""), "the catalogue's entry m: its prices must follow each other without a gap");
    let period = |from: &str, until: &str| {
        format!(r#"{{"from": {from}, "until": {until}, "rates": [{{"service": "standard", "above": 0, "input": [7, "l"]}}]}}"#)
    };
    let gap = [period("null", r#""2026-12-01""#), period(r#""2026-12-02""#, "null")].join(",");
    assert_eq!(said(&gap), "the catalogue's entry m: its prices must follow each other without a gap");
    assert_eq!(said(&period(r#""soon""#, "null")), "the catalogue's entry m: `from` and `until` are days");
    assert_eq!(
        said(r#"{"from": null, "until": null, "rates": [{"service": "slow", "above": 0, "input": [7, "l"]}]}"#),
        "the catalogue's entry m: one of its classes of service is not known"
    );
    assert_eq!(
        said(r#"{"from": null, "until": null, "rates": [{"service": "standard", "above": 0, "output": [7, "l"]}]}"#),
        "the catalogue's entry m: it has no price of the prompt"
    );
    let unknown = said(r#"{"from": null, "until": null, "rates": [{"service": "standard", "above": 0, "inputs": [7, "l"]}]}"#);
    assert!(unknown.starts_with("the catalogue's entry (all): unknown field `inputs`"), "{unknown}");
}

#[test]
fn days_are_counted_from_1970() {
    for (day, expected) in
        [("1970-01-01", 0), ("1972-02-29", 68_169_600), ("2000-03-01", 951_868_800), ("2026-12-01", 1_796_083_200)]
    {
        assert_eq!(data::day_of(day), Some(expected), "{day}");
    }
    for wrong in ["", "2026-13-01", "2026-00-01", "2026-1-1", "2026-12-01T", "1969-12-31", "2026-12-"] {
        assert_eq!(data::day_of(wrong), None, "{wrong}");
    }
}

#[test]
fn a_price_is_read_digit_by_digit() {
    let pico = |text: &str| Price::per_million_tokens(text).map(Price::pico);
    assert_eq!(pico("0.1"), Ok(100_000));
    assert_eq!(pico("12.500000"), Ok(12_500_000));
    assert_eq!(pico("0.000001"), Ok(1));
    assert_eq!(pico("0.0000010"), Ok(1));
    assert_eq!(pico("3"), Ok(3_000_000));
    assert_eq!(pico("0"), Ok(0));
    assert_eq!(pico("0.0000001"), Err(InvalidPrice::TooFine));
    assert_eq!(pico("1000000"), Ok(1_000_000_000_000));
    assert_eq!(pico("1000000.000001"), Err(InvalidPrice::TooLarge));
    assert_eq!(pico("99999999999999999999"), Err(InvalidPrice::TooLarge));
    for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", " 1", "NaN", "0x1", "1.2.3"] {
        assert_eq!(pico(text), Err(InvalidPrice::Form), "{text}");
    }
    assert_eq!(Price::per_thousand_searches("10").map(Price::pico), Ok(10_000_000_000));
}

fn usd(text: &str) -> Price {
    Price::per_million_tokens(text).unwrap()
}

fn own(id: &str) -> ModelOverride {
    let prices = ModelPrices {
        input: usd("0.28"),
        output: Some(usd("0.42")),
        cached: Some(usd("0.028")),
        cache_write_short: None,
        cache_write_long: None,
        input_audio: None,
        input_image: None,
        output_audio: None,
        output_image: None,
        search: None,
    };
    ModelOverride {
        id: id.to_owned(),
        provider: "deepseek".parse().unwrap(),
        aliases: vec![format!("{id}-alias")],
        max_input: Some(128_000),
        max_output: Some(8_000),
        prices: Some(prices),
    }
}

#[test]
fn an_operator_adds_models() {
    let plain = catalogue();
    let with = catalogue().with_overrides(&[own("deepseek-chat")]).unwrap();
    assert_eq!(with.models().len(), plain.models().len() + 1);
    assert_ne!(with.snapshot(), plain.snapshot());
    let model = with.find("deepseek-chat-alias").unwrap();
    assert_eq!((&*model.id, model.provider.as_str(), model.max_output), ("deepseek-chat", "deepseek", 8_000));
    let tokens = TokenUsage { cached: Some(1000), cache_write_long: Some(1000), ..text(1000, 1000) };
    let usage = Usage { whole: tokens, iterations: Vec::new() };
    assert_eq!(with.cost(model, on("2026-11-20"), &usage), 280_000 + 28_000 + 280_000 + 420_000);
    // Nobody knows what this provider takes for a search: the dearest that anybody takes.
    let search = Usage { whole: TokenUsage { searches: Some(1), ..TokenUsage::default() }, iterations: Vec::new() };
    assert_eq!(with.cost(model, on("2026-11-20"), &search), 35_000_000);
}

#[test]
fn an_operator_changes_models() {
    let mut entry = ModelOverride {
        provider: "anthropic".parse().unwrap(),
        max_input: None,
        aliases: vec!["opus".to_owned()],
        ..own("claude-opus-5-5")
    };
    let with = catalogue().with_overrides(std::slice::from_ref(&entry)).unwrap();
    let model = with.find("opus").unwrap();
    assert_eq!((&*model.id, model.max_input, model.max_output), ("claude-opus-5-5", 1_000_000, 8_000));
    let usage = Usage { whole: TokenUsage { fast: true, us_only: true, ..text(1000, 0) }, iterations: Vec::new() };
    assert_eq!(with.cost(model, on("2026-11-20"), &usage), 280_000);
    assert_eq!(with.models().len(), 112);
    // Only a name more: the prices stay.
    entry.prices = None;
    let with = catalogue().with_overrides(&[entry]).unwrap();
    assert_eq!(with.cost(with.find("opus").unwrap(), on("2026-11-20"), &usage), 8_800_000);
}

#[test]
fn an_entry_that_cannot_be_used_is_named() {
    let refused = |entries: &[ModelOverride]| catalogue().with_overrides(entries).unwrap_err().to_string();
    let said = |entry: ModelOverride| refused(&[entry]);
    assert_eq!(said(ModelOverride { prices: None, ..own("x") }), "the catalogue's entry x: a new model needs prices");
    assert_eq!(said(ModelOverride { max_input: None, ..own("x") }), "the catalogue's entry x: a new model needs `max_input`");
    assert_eq!(said(ModelOverride { max_output: None, ..own("x") }), "the catalogue's entry x: a new model needs `max_output`");
    assert_eq!(refused(&[own("x"), own("x")]), "the catalogue's entry x: it is there twice; make one entry of both");
    let clash = ModelOverride { aliases: vec!["gpt-6-sol".to_owned()], ..own("a") };
    assert_eq!(said(clash), "the catalogue's entry gpt-6-sol: its name gpt-6-sol is also one of a");
    assert_eq!(
        said(own("local/x")),
        "the catalogue's entry local/x: the name \"local/x\" begins with local/, which is for workstations"
    );
    assert_eq!(said(own("a b")), "the catalogue's entry a b: the name \"a b\" must have 1 to 256 visible ASCII characters");
}

#[test]
fn a_snapshot_is_of_the_data_and_the_overrides() {
    assert_eq!(catalogue().snapshot(), catalogue().snapshot());
    assert_eq!(catalogue().snapshot().to_string().len(), 16);
    let with = |entries: &[ModelOverride]| catalogue().with_overrides(entries).unwrap().snapshot();
    assert_eq!(with(&[]), catalogue().snapshot());
    assert_eq!(with(&[own("x")]), with(&[own("x")]));
    let mut dearer = own("x");
    if let Some(prices) = &mut dearer.prices {
        prices.search = Some(usd("1"));
    }
    assert_ne!(with(&[dearer]), with(&[own("x")]));
    assert_ne!(with(&[own("x"), own("y")]), with(&[own("y"), own("x")]));
}

/// Some of `total` in each part, or all of it in one: bounds are reached there.
fn parts<const N: usize>(total: u64, all_in: Option<usize>, cuts: [u64; N]) -> [Option<u64>; N] {
    let mut left = total;
    let mut at = 0;
    cuts.map(|cut| {
        let part = match all_in {
            Some(one) => {
                if one % N == at {
                    total
                } else {
                    0
                }
            }
            None => cut % (left + 1),
        };
        left -= part;
        at += 1;
        Some(part)
    })
}

fn tiers() -> impl Strategy<Value = Option<Tier>> {
    prop::sample::select(vec![
        None,
        Some(Tier::Standard),
        Some(Tier::Flex),
        Some(Tier::Priority),
        Some(Tier::Ultrafast),
        Some(Tier::Batch),
        Some(Tier::Scale),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_costs_more_than_its_bound(
        place in any::<prop::sample::Index>(),
        days in 0..4000_u64,
        (input, output) in (prop_oneof![0..2_000_u64, 90_000..310_000_u64, 0..2_000_000_u64], 0..200_000_u64),
        all_in in prop::option::of(any::<usize>()),
        (in_cuts, out_cuts) in (any::<[u64; 6]>(), any::<[u64; 3]>()),
        (tier, served) in (tiers(), prop::sample::select(vec![0_u8, 1, 2])),
        (fast, us_only) in (any::<bool>(), any::<bool>()),
    ) {
        let catalogue = catalogue_once();
        let models: Vec<_> = catalogue.models().collect();
        let model = place.get(&models);
        let at = on("2024-01-01") + Duration::from_secs(days * 86_400);
        let bound = Bound { input, output, tier, fast, us_only };
        let [a, b, c, d, e, f] = parts(input, all_in, in_cuts);
        let [x, y, z] = parts(output, all_in, out_cuts);
        let tokens = TokenUsage {
            input: a, cached: b, cache_write_short: c, cache_write_long: d, input_audio: e, input_image: f,
            output: x, output_audio: y, output_image: z,
            // Served as asked, in the usual class, or without a word about it.
            tier: [tier, Some(Tier::Standard), None][usize::from(served)],
            fast, us_only,
            ..TokenUsage::default()
        };
        let cost = catalogue.cost(model, at, &Usage { whole: tokens, iterations: Vec::new() });
        let most = catalogue.most(model, at, &bound);
        prop_assert!(cost >= 0);
        prop_assert!(cost <= most, "{} cost {cost}, at most {most}: {tokens:?}", model.id);
        let is_something = tokens.input_tokens().unwrap_or(0) + tokens.output_tokens().unwrap_or(0) > 0;
        prop_assert!(!is_something || cost > 0, "{} is free: {tokens:?}", model.id);
    }
}

fn catalogue_once() -> &'static Catalogue {
    static ONCE: std::sync::OnceLock<Catalogue> = std::sync::OnceLock::new();
    ONCE.get_or_init(catalogue)
}

#[test]
fn the_bound_is_that_of_the_dearest_way() {
    let catalogue = catalogue();
    let most = |model: &str, bound: Bound| catalogue.most(catalogue.find(model).unwrap(), on("2026-11-20"), &bound);
    let bound = Bound { input: 100_000, output: 1000, tier: None, fast: false, us_only: false };
    // All of the prompt into the long-lived cache.
    assert_eq!(most("claude-opus-5-5", bound), 800_000_000 + 20_000_000);
    assert_eq!(most("claude-opus-5-5", Bound { fast: true, ..bound }), 1_600_000_000 + 40_000_000);
    assert_eq!(most("claude-opus-5-5", Bound { us_only: true, ..bound }), 902_000_000);
    assert_eq!(most("claude-haiku-5-5", bound), 20_000_000 + 500_000);
    assert_eq!(most("claude-haiku-5-5", Bound { input: 100_001, ..bound }), 100_001_000 + 2_500_000);
    assert_eq!(most("gpt-6.1-terra", bound), 250_000_000 + 5_000_000);
    // A list may have a class that calls itself cheap and is not.
    let odd = file(
        r#"{"from": null, "until": null, "rates": [{"service": "standard", "above": 0, "input": [1000, "l"]},
            {"service": "flex", "above": 0, "input": [3000, "l"]}]}"#,
    )
    .unwrap();
    let of_odd = |tier| odd.most(odd.find("m").unwrap(), on("2026-11-20"), &Bound { output: 0, tier, ..bound });
    assert_eq!([None, Some(Tier::Flex), Some(Tier::Batch)].map(of_odd), [100_000, 300_000, 100_000]);
    // The cheap class may not be given; the name of a dear one may be new.
    assert_eq!(most("gpt-6.1-terra", Bound { tier: Some(Tier::Flex), ..bound }), 255_000_000);
    assert_eq!(most("gpt-6.1-terra", Bound { tier: Some(Tier::Priority), ..bound }), 510_000_000);
    assert_eq!(most("gpt-6.1-sol", Bound { tier: Some(Tier::Priority), ..bound }), 6 * 510_000_000);
}
