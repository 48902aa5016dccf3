//! The owner's policy: what of this workstation is shared, and how much of it.
//!
//! It stands on the owner's disk and is checked here, on the workstation, for every request when it arrives. The Lab can see a
//! [summary](Policy::summary) and never widen it: nothing that comes over the link reaches a field of [`Policy`]. What a request's
//! body may say is decided by [`guard`]; this file decides which models, which operations, how many and when.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use wire::{
    ModelName,
    relay::{Operation, PolicySummary},
};

pub mod guard;

/// What the owner shares. The defaults are generous to the owner's own callers and bound every way to hold the machine for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The models that are shared: `"all"`, or a list of patterns.
    pub shared: Shared,
    /// The models that are not, whatever `shared` says. Where both match, the more specific pattern decides, and of two equal ones
    /// this one.
    pub denied: Vec<ModelPattern>,
    /// The operations that are shared.
    pub operations: BTreeSet<Operation>,
    /// Requests that Ollama is given at once.
    pub max_concurrent: u32,
    /// Requests that may wait for their turn.
    pub max_queued: u32,
    /// The largest context, in tokens, that a request may ask for. A larger one would reload the model and fill the video memory.
    pub num_ctx: u32,
    /// The longest answer, in tokens.
    pub num_predict: u32,
    /// How long, in seconds, a request may keep its model in memory. Never for ever.
    pub keep_alive_s: u64,
    /// How long one request may take in all, in seconds of wall clock.
    pub time_limit_s: u64,
    /// Whether the Lab may have models downloaded.
    pub may_pull: Pull,
    /// Local times at which no work is taken, as `"22:00-07:00"`.
    pub quiet_hours: Vec<QuietHours>,
    /// Take no new work while other programs keep the graphics processor busier than this, in per cent. Absent: never yield.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yield_gpu_percent: Option<u8>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            shared: Shared::All,
            denied: Vec::new(),
            operations: Operation::ALL.into(),
            max_concurrent: 4,
            max_queued: 32,
            num_ctx: 32_768,
            num_predict: 32_768,
            keep_alive_s: 30 * 60,
            time_limit_s: 10 * 60,
            may_pull: Pull::Never,
            quiet_hours: Vec::new(),
            yield_gpu_percent: None,
        }
    }
}

/// A number of the policy that is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is out of range; write a number from {min} to {max}")]
pub struct InvalidPolicy {
    /// The field as it is written in the file.
    pub field: &'static str,
    /// The least that it may be.
    pub min: u64,
    /// The most that it may be.
    pub max: u64,
}

impl Policy {
    /// Checks every number against its range.
    ///
    /// # Errors
    /// Names the first field that is out of its range.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        // The upper ends are far above any workstation; they keep sums and timers from overflowing and a slip of the finger from
        // becoming an open door.
        let numbers: [(&'static str, u64, RangeInclusive<u64>); 7] = [
            ("max_concurrent", self.max_concurrent.into(), 1..=1024),
            ("max_queued", self.max_queued.into(), 0..=1024),
            ("num_ctx", self.num_ctx.into(), 256..=16_777_216),
            ("num_predict", self.num_predict.into(), 1..=16_777_216),
            ("keep_alive_s", self.keep_alive_s, 0..=86_400),
            ("time_limit_s", self.time_limit_s, 1..=86_400),
            ("yield_gpu_percent", self.yield_gpu_percent.map_or(1, u64::from), 1..=99),
        ];
        match numbers.into_iter().find(|(_, value, range)| !range.contains(value)) {
            Some((field, _, range)) => Err(InvalidPolicy { field, min: *range.start(), max: *range.end() }),
            None => Ok(()),
        }
    }

    /// Whether the owner shares this model.
    #[must_use]
    pub fn shares(&self, model: &ModelName) -> bool {
        let name = shortest(model.as_str());
        let rank = |patterns: &[ModelPattern]| patterns.iter().map(ModelPattern::reach).filter(|r| r.covers_name(&name)).max();
        let shared = match &self.shared {
            Shared::All => Some(Reach::Under(String::new())),
            Shared::Only(patterns) => rank(patterns),
        };
        shared > rank(&self.denied)
    }

    /// Shares every model that the pattern covers.
    pub fn allow(&mut self, pattern: ModelPattern) {
        let reach = pattern.reach();
        self.denied.retain(|d| !reach.covers(&d.reach()));
        // What is still denied around the pattern is more general than it: only the pattern itself outranks that.
        let is_denied = self.denied.iter().any(|d| d.reach().covers(&reach));
        match &mut self.shared {
            Shared::All if is_denied => self.shared = Shared::Only(vec![ModelPattern::everything(), pattern]),
            Shared::All => {}
            Shared::Only(patterns) => {
                if is_denied || !patterns.iter().any(|p| p.reach().covers(&reach)) {
                    patterns.retain(|p| p.reach() != reach);
                    patterns.push(pattern);
                }
            }
        }
    }

    /// Stops sharing every model that the pattern covers.
    pub fn deny(&mut self, pattern: ModelPattern) {
        let reach = pattern.reach();
        let is_shared_around = match &mut self.shared {
            Shared::All => true,
            Shared::Only(patterns) => {
                patterns.retain(|p| !reach.covers(&p.reach()));
                patterns.iter().any(|p| p.reach().covers(&reach))
            }
        };
        if is_shared_around && !self.denied.iter().any(|d| d.reach() == reach) {
            self.denied.push(pattern);
        }
    }

    /// The part that a caller may want to know. `paused` is what the bridge knows beyond the policy: a pause, or quiet hours.
    #[must_use]
    pub fn summary(&self, paused: bool) -> PolicySummary {
        PolicySummary {
            max_concurrent: self.max_concurrent,
            max_queued: self.max_queued,
            operations: self.operations.iter().copied().collect(),
            paused,
            may_pull: self.may_pull == Pull::Allow,
            num_ctx: Some(self.num_ctx),
        }
    }

    /// Whether these are quiet hours.
    #[must_use]
    pub fn is_quiet(&self, local_time: TimeOfDay) -> bool {
        self.quiet_for(local_time).is_some()
    }

    /// How long the quiet hours still last; `None` when there are none now.
    #[must_use]
    pub fn quiet_for(&self, local_time: TimeOfDay) -> Option<Duration> {
        self.quiet_hours.iter().filter_map(|hours| hours.left(local_time)).max()
    }
}

/// Which models are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shared {
    /// Every local model. Written as `"all"`.
    All,
    /// The models that one of these patterns covers. Written as a list.
    Only(Vec<ModelPattern>),
}

impl Serialize for Shared {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Only(patterns) => patterns.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;

        impl<'de> de::Visitor<'de> for Words {
            type Value = Shared;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\" or a list of models such as [\"llama3.2\", \"qwen3:8b\", \"my-*\"]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Shared, E> {
                if text == "all" { Ok(Shared::All) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Shared, A::Error> {
                let mut patterns = Vec::new();
                while let Some(pattern) = seq.next_element()? {
                    patterns.push(pattern);
                }
                Ok(Shared::Only(patterns))
            }
        }

        deserializer.deserialize_any(Words)
    }
}

/// Whether the Lab may have models downloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// No.
    #[default]
    Never,
    /// Only when the owner says yes at the workstation, each time.
    Ask,
    /// Yes.
    Allow,
}

/// Models as an owner names them: `llama3.2` (every tag of it), `llama3.2:1b` (that tag), `qwen*` (everything that begins so).
///
/// Compared as Ollama compares names: without regard to case, and with its default registry and namespace left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelPattern(String);

/// A text that is no [`ModelPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a model's name; write one such as `llama3.2`, `llama3.2:1b` or `qwen*` (a `*` only at the end)")]
pub struct InvalidModelPattern;

impl ModelPattern {
    fn everything() -> Self {
        Self("*".to_owned())
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn reach(&self) -> Reach {
        let text = shortest(&self.0);
        if let Some(start) = text.strip_suffix('*') {
            return Reach::Under(start.to_owned());
        }
        let has_tag = text.rfind(':').is_some_and(|at| !text[at..].contains('/'));
        if has_tag { Reach::One(text) } else { Reach::Under(text + ":") }
    }
}

impl FromStr for ModelPattern {
    type Err = InvalidModelPattern;

    fn from_str(text: &str) -> Result<Self, InvalidModelPattern> {
        let is_valid = match text.strip_suffix('*') {
            Some(start) => {
                start.len() <= ModelName::MAX_LEN && start.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:/".contains(&b))
            }
            None => text.parse::<ModelName>().is_ok(),
        };
        if is_valid { Ok(Self(text.to_owned())) } else { Err(InvalidModelPattern) }
    }
}

impl TryFrom<String> for ModelPattern {
    type Error = InvalidModelPattern;

    fn try_from(text: String) -> Result<Self, InvalidModelPattern> {
        text.parse()
    }
}

impl From<ModelPattern> for String {
    fn from(pattern: ModelPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names that a pattern covers. Two reaches either nest or have nothing in common, so that of two which cover one name one is
/// the more specific.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    /// Every name that begins so.
    Under(String),
    /// This name.
    One(String),
}

impl Reach {
    fn covers_name(&self, name: &str) -> bool {
        match self {
            Self::Under(start) => name.starts_with(start.as_str()),
            Self::One(one) => name == one,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Under(start), Self::Under(text) | Self::One(text)) => text.starts_with(start.as_str()),
            (Self::One(one), Self::One(other)) => one == other,
            (Self::One(_), Self::Under(_)) => false,
        }
    }

    fn specificity(&self) -> (usize, bool) {
        match self {
            Self::Under(start) => (start.len(), false),
            Self::One(one) => (one.len(), true),
        }
    }
}

impl PartialOrd for Reach {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reach {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.specificity().cmp(&other.specificity())
    }
}

/// The spelling under which Ollama takes two names for one: it ignores case, and fills in its own registry and the namespace
/// `library` where they are left out.
pub(crate) fn shortest(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let path = name.strip_prefix("registry.ollama.ai/").unwrap_or(&name);
    path.strip_prefix("library/").unwrap_or(path).to_owned()
}

/// Minutes since midnight, local time, from 00:00 to 24:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    const DAY: u16 = 24 * 60;

    /// `None` when there is no such time.
    #[must_use]
    pub const fn new(hour: u8, minute: u8) -> Option<Self> {
        let minutes = hour as u16 * 60 + minute as u16;
        if minute < 60 && minutes <= Self::DAY { Some(Self(minutes)) } else { None }
    }
}

impl FromStr for TimeOfDay {
    type Err = InvalidQuietHours;

    fn from_str(text: &str) -> Result<Self, InvalidQuietHours> {
        let two_digits = |digits: &str| match digits.as_bytes() {
            [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some((a - b'0') * 10 + (b - b'0')),
            _ => None,
        };
        text.split_once(':').and_then(|(hour, minute)| Self::new(two_digits(hour)?, two_digits(minute)?)).ok_or(InvalidQuietHours)
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// A span of local time that comes back every day, as `22:00-07:00`. Its end does not belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QuietHours {
    from: TimeOfDay,
    to: TimeOfDay,
}

/// A text that is no [`QuietHours`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a span of time; write it as `22:00-07:00`, with two different times")]
pub struct InvalidQuietHours;

impl QuietHours {
    /// How long it still lasts at that time; `None` outside.
    fn left(self, now: TimeOfDay) -> Option<Duration> {
        let day = TimeOfDay::DAY;
        // A window over midnight is one that ends on the next day.
        let length = (self.to.0 + day - self.from.0 - 1) % day + 1;
        let since = (now.0 + day - self.from.0) % day;
        (since < length).then(|| Duration::from_secs(u64::from(length - since) * 60))
    }
}

impl FromStr for QuietHours {
    type Err = InvalidQuietHours;

    fn from_str(text: &str) -> Result<Self, InvalidQuietHours> {
        let (from, to) = text.split_once('-').ok_or(InvalidQuietHours)?;
        let (from, to): (TimeOfDay, TimeOfDay) = (from.trim().parse()?, to.trim().parse()?);
        if from == to { Err(InvalidQuietHours) } else { Ok(Self { from, to }) }
    }
}

impl TryFrom<String> for QuietHours {
    type Error = InvalidQuietHours;

    fn try_from(text: String) -> Result<Self, InvalidQuietHours> {
        text.parse()
    }
}

impl From<QuietHours> for String {
    fn from(hours: QuietHours) -> Self {
        hours.to_string()
    }
}

impl fmt::Display for QuietHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model(text: &str) -> ModelName {
        text.parse().unwrap()
    }

    fn pattern(text: &str) -> ModelPattern {
        text.parse().unwrap()
    }

    fn policy(toml: &str) -> Policy {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(policy(""), Policy::default());
        assert_eq!(Policy::default().validate(), Ok(()));
        assert_eq!(toml::from_str::<Policy>(&toml::to_string(&Policy::default()).unwrap()).unwrap(), Policy::default());
    }

    #[test]
    fn a_file_says_what_is_shared() {
        let written = r#"
shared = ["llama3.2", "qwen*"]
denied = ["qwen3:235b"]
operations = ["ollama.chat", "openai.chat"]
max_concurrent = 1
max_queued = 4
num_ctx = 8192
num_predict = 4096
keep_alive_s = 0
time_limit_s = 60
may_pull = "ask"
quiet_hours = ["22:00-07:00"]
yield_gpu_percent = 30
"#;
        let read = policy(written);
        assert_eq!(
            read,
            Policy {
                shared: Shared::Only(vec![pattern("llama3.2"), pattern("qwen*")]),
                denied: vec![pattern("qwen3:235b")],
                operations: [Operation::OllamaChat, Operation::OpenaiChat].into(),
                max_concurrent: 1,
                max_queued: 4,
                num_ctx: 8192,
                num_predict: 4096,
                keep_alive_s: 0,
                time_limit_s: 60,
                may_pull: Pull::Ask,
                quiet_hours: vec!["22:00-07:00".parse().unwrap()],
                yield_gpu_percent: Some(30),
            }
        );
        assert_eq!(toml::to_string(&read).unwrap().trim(), written.trim());
        assert_eq!(serde_json::from_str::<Policy>(&serde_json::to_string(&read).unwrap()).unwrap(), read);
    }

    #[test]
    fn a_slip_in_the_file_is_named() {
        for (text, why) in [
            ("num_ctxx = 1", "unknown field `num_ctxx`"),
            ("shared = \"some\"", "expected \"all\" or a list of models"),
            ("shared = [\"a b\"]", "not a model's name"),
            ("shared = [\"a*b\"]", "not a model's name"),
            ("operations = [\"ollama.delete\"]", "unknown variant `ollama.delete`"),
            ("quiet_hours = [\"22-7\"]", "not a span of time"),
            ("quiet_hours = [\"07:00-07:00\"]", "not a span of time"),
            ("quiet_hours = [\"07:60-08:00\"]", "not a span of time"),
            ("may_pull = true", "may_pull"),
        ] {
            let error = toml::from_str::<Policy>(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn numbers_out_of_range_name_their_field() {
        for (text, field, min, max) in [
            ("max_concurrent = 0", "max_concurrent", 1, 1024),
            ("max_queued = 1025", "max_queued", 0, 1024),
            ("num_ctx = 255", "num_ctx", 256, 16_777_216),
            ("num_predict = 0", "num_predict", 1, 16_777_216),
            ("keep_alive_s = 86401", "keep_alive_s", 0, 86_400),
            ("time_limit_s = 0", "time_limit_s", 1, 86_400),
            ("yield_gpu_percent = 0", "yield_gpu_percent", 1, 99),
            ("yield_gpu_percent = 100", "yield_gpu_percent", 1, 99),
        ] {
            assert_eq!(policy(text).validate(), Err(InvalidPolicy { field, min, max }), "{text}");
        }
        assert_eq!(
            policy("num_predict = 0").validate().unwrap_err().to_string(),
            "`num_predict` is out of range; write a number from 1 to 16777216"
        );
    }

    #[test]
    fn models_are_shared_by_name_tag_and_beginning() {
        let check = |toml: &str, yes: &[&str], no: &[&str]| {
            let policy = policy(toml);
            for name in yes {
                assert!(policy.shares(&model(name)), "{toml}: {name}");
            }
            for name in no {
                assert!(!policy.shares(&model(name)), "{toml}: {name}");
            }
        };
        check("", &["llama3.2", "hf.co/a/b:Q4"], &[]);
        check("shared = []", &[], &["llama3.2"]);
        check("shared = [\"llama3.2\"]", &["llama3.2", "llama3.2:1b", "LLAMA3.2:1B"], &["llama3.20", "llama3", "x/llama3.2"]);
        check("shared = [\"llama3.2:1b\"]", &["llama3.2:1b"], &["llama3.2", "llama3.2:1bb", "llama3.2:1"]);
        check("shared = [\"Qwen*\"]", &["qwen3", "qwen2.5:7b"], &["llama3.2", "a/qwen3"]);
        check("shared = [\"localhost:5000/a/b\"]", &["localhost:5000/a/b:x"], &["localhost:5000/a/c"]);
        check(
            "denied = [\"secret\"]",
            &["llama3.2"],
            &["secret", "secret:1b", "library/SECRET", "registry.ollama.ai/library/secret:1b"],
        );
        check("denied = [\"*\"]", &[], &["llama3.2"]);
        check("shared = [\"*\", \"llama3.2:1b\"]\ndenied = [\"llama3.2\"]", &["a", "llama3.2:1b"], &["llama3.2", "llama3.2:3b"]);
        check("shared = [\"a:1\"]\ndenied = [\"a:1\"]", &[], &["a:1"]);
    }

    #[test]
    fn quiet_hours_may_span_midnight() {
        let at = |text: &str| text.parse::<TimeOfDay>().unwrap();
        let night = policy("quiet_hours = [\"22:00-07:00\", \"12:00-13:00\"]");
        for (time, minutes) in [
            ("21:59", None),
            ("22:00", Some(540)),
            ("23:59", Some(421)),
            ("00:00", Some(420)),
            ("06:59", Some(1)),
            ("07:00", None),
            ("12:30", Some(30)),
            ("13:00", None),
        ] {
            assert_eq!(night.quiet_for(at(time)), minutes.map(|m: u64| Duration::from_secs(m * 60)), "{time}");
            assert_eq!(night.is_quiet(at(time)), minutes.is_some(), "{time}");
        }
        let always = policy("quiet_hours = [\"00:00-24:00\"]");
        assert!(always.is_quiet(at("00:00")) && always.is_quiet(at("23:59")));
        assert_eq!(TimeOfDay::new(24, 1), None);
        assert_eq!("7:00".parse::<TimeOfDay>(), Err(InvalidQuietHours));
    }

    #[test]
    fn the_summary_is_what_a_caller_may_know() {
        let policy = policy("operations = [\"openai.chat\", \"ollama.chat\"]\nmay_pull = \"allow\"\nshared = [\"secret\"]");
        assert_eq!(
            policy.summary(true),
            PolicySummary {
                max_concurrent: 4,
                max_queued: 32,
                operations: vec![Operation::OllamaChat, Operation::OpenaiChat],
                paused: true,
                may_pull: true,
                num_ctx: Some(32_768),
            }
        );
    }

    fn patterns() -> impl Strategy<Value = ModelPattern> {
        prop::sample::select(vec!["*", "a", "a*", "a:1", "a:1*", "a:12", "ab", "ab:1", "b", "A:2"]).prop_map(pattern)
    }

    proptest! {
        #[test]
        fn the_owners_last_word_counts(words in prop::collection::vec((any::<bool>(), patterns()), 1..8), all: bool) {
            let mut policy = Policy { shared: if all { Shared::All } else { Shared::Only(Vec::new()) }, ..Policy::default() };
            for (allow, pattern) in words {
                let before = policy.clone();
                if allow { policy.allow(pattern.clone()) } else { policy.deny(pattern.clone()) }
                for name in ["a", "a:1", "a:2", "a:12", "a:13", "ab", "ab:1", "ab:2", "b", "b:1", "c"] {
                    let name = model(name);
                    let expected = if pattern.reach().covers_name(name.as_str()) { allow } else { before.shares(&name) };
                    prop_assert_eq!(policy.shares(&name), expected, "{} after {:?} -> {:?}", name, before, policy);
                }
            }
        }

        #[test]
        fn no_text_breaks_a_pattern(text in ".{0,40}") {
            if let Ok(pattern) = text.parse::<ModelPattern>() {
                prop_assert!(pattern.reach().covers(&pattern.reach()));
            }
        }
    }
}
