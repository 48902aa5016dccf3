//! Whether a call may be made: pure, from the tool, its target and what the owner decided before.
//!
//! The most specific rules that fit decide, and of those the strictest: a rule about exactly this target before one about targets of a
//! pattern, that before one about every use of the tool, and where there is none the tool's own default. What was answered for the
//! rest of a run only ever answers a question; it cannot lift a rule that says no.

use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{ApprovalId, LocalModel, RuleId};

use super::{Call, Effect, Tool};

/// What happens when a model wants to make a call. The order is that of strictness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is made.
    Allow,
    /// The owner is asked.
    Ask,
    /// It is not made.
    Deny,
}

/// What an owner decided for calls to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The tool's name; `server__*` for every tool of a server.
    pub tool: String,
    /// Which targets.
    pub targets: Targets,
    /// What happens.
    pub verdict: Verdict,
    /// For one tool of a server: what it said of itself when it was allowed. Another description is another tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
}

/// Targets that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Targets {
    /// Whatever it is about.
    Any,
    /// This one.
    Exactly {
        /// A path, a host, a model, a task.
        #[schema(max_length = 2048)]
        target: String,
    },
    /// Those that match: `*` within a folder, `**` across folders.
    Matching {
        /// A glob.
        #[schema(max_length = 512)]
        pattern: String,
    },
}

/// What a call is to the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// What it is about; [`Call::target`], and nothing for a server's tool.
    pub target: &'a str,
    /// What a server says of the tool.
    pub definition: Option<&'a str>,
    /// What happens when no rule fits.
    pub default: Verdict,
}

/// What was decided, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// What happens.
    pub verdict: Verdict,
    /// By what.
    pub by: By,
}

/// What a decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The tool's default.
    Default,
    /// A rule of the project's.
    Rule(RuleId),
    /// What the owner answered to this question earlier in the run.
    Answer(ApprovalId),
}

/// Decisions with their patterns compiled, which takes longer than to look something up in them: a run keeps them, and compiles what is
/// new to it. Clones share them.
#[derive(Clone)]
pub struct Decisions<Id>(Arc<Vec<(Id, Ready)>>);

/// Which files a run gets to see. What is listed and searched is looked at as well: what an owner keeps from being read is not to be had
/// by another way.
#[derive(Clone, Default)]
pub struct Sight {
    rules: Decisions<RuleId>,
    in_run: Decisions<ApprovalId>,
}

/// A rule that can be tried as it is.
struct Ready {
    rule: Rule,
    /// Of a rule about a pattern, if that can be read.
    glob: Option<GlobMatcher>,
}

/// How closely a rule fits: first what it says of the target, then what of the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    AnyOfServer,
    AnyOfTool,
    PatternOfServer,
    PatternOfTool,
    ExactOfServer,
    ExactOfTool,
}

/// Decides. `in_run` are the owner's answers for the rest of this run.
#[must_use]
pub fn decide(asked: &Asked<'_>, rules: &Decisions<RuleId>, in_run: &Decisions<ApprovalId>) -> Decided {
    let first = match rules.closest(asked) {
        Some((verdict, id)) => Decided { verdict, by: By::Rule(id) },
        None => Decided { verdict: asked.default, by: By::Default },
    };
    if first.verdict != Verdict::Ask {
        return first;
    }
    match in_run.closest(asked) {
        Some((verdict, id)) => Decided { verdict, by: By::Answer(id) },
        None => first,
    }
}

/// What happens to a call that no rule is about: what only looks is done, what changes something or costs something is asked for.
#[must_use]
pub fn default_of(call: &Call) -> Verdict {
    match call {
        // A workstation of the owner's own costs nothing and learns nothing new to its owner.
        Call::Delegate(delegate) if matches!(LocalModel::parse(&delegate.model), Some(Ok(_))) => Verdict::Allow,
        // It is a question itself.
        Call::ProposePlan(_) => Verdict::Allow,
        other => match other.tool().effect() {
            Effect::Reads => Verdict::Allow,
            Effect::Writes => Verdict::Ask,
        },
    }
}

/// What happens to a server's tool that no rule is about.
pub const DEFAULT_OF_SERVERS: Verdict = Verdict::Ask;

impl<Id: Copy + PartialEq> Decisions<Id> {
    /// These, compiled.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = (Id, Rule)>) -> Self {
        Self::default().with(rules)
    }

    /// These and no others; what is known already is not compiled again.
    #[must_use]
    pub fn with(self, rules: impl IntoIterator<Item = (Id, Rule)>) -> Self {
        let rules: Vec<_> = rules.into_iter().collect();
        let is = |(known, new): (&(Id, Ready), &(Id, Rule))| known.0 == new.0 && known.1.rule == new.1;
        if self.0.len() == rules.len() && self.0.iter().zip(&rules).all(is) {
            return self;
        }
        let ready = rules.into_iter().map(|(id, rule)| {
            let known = self.0.iter().find(|(known, ready)| *known == id && ready.rule == rule);
            let glob = known.map_or_else(|| rule.targets.glob(), |(_, ready)| ready.glob.clone());
            (id, Ready { rule, glob })
        });
        Self(Arc::new(ready.collect()))
    }

    /// The rules as they were given.
    pub fn rules(&self) -> impl Iterator<Item = (Id, Rule)> {
        self.0.iter().map(|(id, ready)| (*id, ready.rule.clone()))
    }

    /// What fits most closely says, and of those the strictest.
    fn closest(&self, asked: &Asked<'_>) -> Option<(Verdict, Id)> {
        let fitting = self.0.iter().filter_map(|(id, ready)| Some((ready.fit(asked)?, ready.rule.verdict, *id)));
        fitting.max_by_key(|(fit, verdict, _)| (*fit, *verdict)).map(|(_, verdict, id)| (verdict, id))
    }
}

impl Sight {
    /// By these rules and answers.
    #[must_use]
    pub const fn new(rules: Decisions<RuleId>, in_run: Decisions<ApprovalId>) -> Self {
        Self { rules, in_run }
    }

    /// Whether a tool that looks at many files is not told of this one: a rule of its own or one about reading denies it.
    #[must_use]
    pub fn is_hidden(&self, tool: Tool, path: &str) -> bool {
        [tool, Tool::FilesRead].into_iter().any(|tool| self.of(tool, path).verdict == Verdict::Deny)
    }

    /// Whether the owner wants to be asked before this file's words are read.
    #[must_use]
    pub fn is_asked_for(&self, path: &str) -> bool {
        self.of(Tool::FilesRead, path).verdict == Verdict::Ask
    }

    /// What is said of one file; nothing speaks against it where no rule does.
    #[must_use]
    pub fn of(&self, tool: Tool, path: &str) -> Decided {
        let asked = Asked { tool: tool.name(), target: path, definition: None, default: Verdict::Allow };
        decide(&asked, &self.rules, &self.in_run)
    }
}

impl<Id> Default for Decisions<Id> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl Targets {
    fn glob(&self) -> Option<GlobMatcher> {
        match self {
            Self::Any | Self::Exactly { .. } => None,
            Self::Matching { pattern } => glob(pattern),
        }
    }
}

impl Rule {
    /// Whether the rule can be one: its tool can exist, its pattern is a glob, and no server is trusted with tools that nobody has
    /// seen yet.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let tool = match self.tool.strip_suffix("__*") {
            Some(server) => self.verdict != Verdict::Allow && is_word(server),
            None => Tool::named(&self.tool).is_some() || is_served(&self.tool),
        };
        // A server's tools have no target that is known to the rules.
        let targets = match &self.targets {
            Targets::Any => true,
            Targets::Exactly { target } => !is_served(&self.tool) && target.len() <= 2048,
            Targets::Matching { pattern } => !is_served(&self.tool) && pattern.len() <= 512 && glob(pattern).is_some(),
        };
        tool && targets
    }

    /// Whether the rule is about this call.
    #[must_use]
    pub fn fits(&self, asked: &Asked<'_>) -> bool {
        Ready { rule: self.clone(), glob: self.targets.glob() }.fit(asked).is_some()
    }
}

/// Whether this is the name of a server's tool.
#[must_use]
pub fn is_served(tool: &str) -> bool {
    tool.len() <= 64 && tool.split_once("__").is_some_and(|(server, tool)| is_word(server) && (tool == "*" || is_word(tool)))
}

/// Letters, digits, `_` and `-`.
pub(crate) fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

impl Ready {
    fn fit(&self, asked: &Asked<'_>) -> Option<Fit> {
        let Self { rule, glob } = self;
        let of_tool = rule.tool == asked.tool;
        let of_server =
            || rule.tool.strip_suffix('*').is_some_and(|server| server.ends_with("__") && asked.tool.starts_with(server));
        if !of_tool && !of_server() {
            return None;
        }
        // Only trust is bound to what the tool said of itself: what was refused stays refused under every description.
        if rule.verdict == Verdict::Allow && rule.definition.as_deref() != asked.definition {
            return None;
        }
        match (&rule.targets, of_tool) {
            (Targets::Any, true) => Some(Fit::AnyOfTool),
            (Targets::Any, false) => Some(Fit::AnyOfServer),
            (Targets::Exactly { target }, _) if target != asked.target => None,
            (Targets::Exactly { .. }, true) => Some(Fit::ExactOfTool),
            (Targets::Exactly { .. }, false) => Some(Fit::ExactOfServer),
            (Targets::Matching { .. }, of_tool) => {
                let fits = match glob {
                    Some(glob) => glob.is_match(asked.target),
                    // A rule that cannot be read any more forbids rather than allows.
                    None => rule.verdict != Verdict::Allow,
                };
                fits.then_some(if of_tool { Fit::PatternOfTool } else { Fit::PatternOfServer })
            }
        }
    }
}

fn glob(pattern: &str) -> Option<GlobMatcher> {
    Some(GlobBuilder::new(pattern).literal_separator(true).build().ok()?.compile_matcher())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(tool: &str, targets: &str, verdict: Verdict) -> Rule {
        let targets = match targets {
            "any" => Targets::Any,
            text => match text.strip_prefix('=') {
                Some(target) => Targets::Exactly { target: target.into() },
                None => Targets::Matching { pattern: text.into() },
            },
        };
        Rule { tool: tool.into(), targets, verdict, definition: None }
    }

    #[test]
    fn the_most_specific_rules_decide_and_of_those_the_strictest() {
        use Verdict::{Allow, Ask, Deny};
        let check = |tool: &str, target: &str, default, rules: &[(&str, &str, Verdict)], run: &[(&str, &str, Verdict)]| {
            let rules: Vec<_> = rules.iter().map(|(tool, on, what)| (RuleId::random(), rule(tool, on, *what))).collect();
            let run: Vec<_> = run.iter().map(|(tool, on, what)| (ApprovalId::random(), rule(tool, on, *what))).collect();
            let decided =
                decide(&Asked { tool, target, definition: None, default }, &Decisions::new(rules.clone()), &Decisions::new(run));
            let by = match decided.by {
                By::Default => "default".to_owned(),
                By::Answer(_) => "run".to_owned(),
                By::Rule(id) => rules.iter().position(|(known, _)| *known == id).unwrap().to_string(),
            };
            (decided.verdict, by)
        };
        let w = "files_write";
        for (target, rules, run, verdict, by) in [
            // Nothing fits.
            ("a.md", &[][..], &[][..], Ask, "default"),
            ("a.md", &[("files_read", "any", Allow)], &[], Ask, "default"),
            ("a.md", &[(w, "b.md", Allow)], &[], Ask, "default"),
            ("a.md", &[(w, "=A.md", Allow)], &[], Ask, "default"),
            // One fits.
            ("a.md", &[(w, "any", Allow)], &[], Allow, "0"),
            ("a.md", &[(w, "*.md", Deny)], &[], Deny, "0"),
            ("a.md", &[(w, "=a.md", Allow)], &[], Allow, "0"),
            // A star stays in its folder.
            ("x/a.md", &[(w, "*.md", Allow)], &[], Ask, "default"),
            ("x/a.md", &[(w, "**/*.md", Allow)], &[], Allow, "0"),
            // What is more specific wins, whichever it says.
            ("a.md", &[(w, "any", Deny), (w, "*.md", Allow)], &[], Allow, "1"),
            ("a.md", &[(w, "*.md", Deny), (w, "=a.md", Allow)], &[], Allow, "1"),
            ("a.md", &[(w, "=a.md", Ask), (w, "any", Allow)], &[], Ask, "0"),
            // Of the equally specific the strictest.
            ("a.md", &[(w, "*.md", Allow), (w, "a.*", Deny)], &[], Deny, "1"),
            ("a.md", &[(w, "*.md", Deny), (w, "a.*", Ask), (w, "?.md", Allow)], &[], Deny, "0"),
            ("a.md", &[(w, "any", Ask), (w, "any", Allow)], &[], Ask, "0"),
            // The run's answers answer questions only.
            ("a.md", &[], &[(w, "any", Allow)], Allow, "run"),
            ("a.md", &[], &[(w, "=a.md", Deny)], Deny, "run"),
            ("a.md", &[(w, "any", Ask)], &[(w, "=a.md", Allow)], Allow, "run"),
            ("a.md", &[(w, "any", Deny)], &[(w, "=a.md", Allow)], Deny, "0"),
            ("a.md", &[(w, "any", Allow)], &[(w, "=a.md", Deny)], Allow, "0"),
            ("a.md", &[], &[(w, "=b.md", Allow)], Ask, "default"),
            ("a.md", &[], &[(w, "any", Allow), (w, "=a.md", Deny)], Deny, "run"),
            // A pattern that cannot be read forbids.
            ("a.md", &[(w, "a[", Deny)], &[], Deny, "0"),
            ("a.md", &[(w, "a[", Allow)], &[], Ask, "default"),
        ] {
            assert_eq!(check(w, target, Ask, rules, run), (verdict, by.to_owned()), "{target} {rules:?} {run:?}");
        }
        for (tool, rules, verdict) in [
            ("wiki__find", &[("wiki__*", "any", Deny)][..], Deny),
            ("wiki__find", &[("wiki__*", "any", Deny), ("wiki__find", "any", Allow)], Allow),
            ("wiki2__find", &[("wiki__*", "any", Deny)], Ask),
            ("wiki__find", &[("*", "any", Deny)], Ask),
            ("files_write", &[("files_*", "any", Allow)], Ask),
        ] {
            assert_eq!(check(tool, "", Ask, rules, &[]).0, verdict, "{tool} {rules:?}");
        }
    }

    #[test]
    fn trust_in_a_servers_tool_ends_when_it_describes_itself_otherwise() {
        let trusted = Rule { definition: Some("1".into()), ..rule("wiki__find", "any", Verdict::Allow) };
        let refused = Rule { definition: Some("1".into()), ..rule("wiki__drop", "any", Verdict::Deny) };
        let rules = Decisions::new([(RuleId::random(), trusted), (RuleId::random(), refused)]);
        for (tool, definition, verdict) in [
            ("wiki__find", Some("1"), Verdict::Allow),
            ("wiki__find", Some("2"), Verdict::Ask),
            ("wiki__find", None, Verdict::Ask),
            ("wiki__drop", Some("1"), Verdict::Deny),
            ("wiki__drop", Some("2"), Verdict::Deny),
        ] {
            let asked = Asked { tool, target: "", definition, default: DEFAULT_OF_SERVERS };
            assert_eq!(decide(&asked, &rules, &Decisions::default()).verdict, verdict, "{tool} {definition:?}");
        }
    }

    #[test]
    fn what_may_not_be_read_is_not_listed_and_what_is_asked_for_not_searched() {
        use Verdict::{Allow, Ask, Deny};
        let rules = [
            rule("files_read", "secret/**", Deny),
            rule("files_read", "=secret/open.md", Allow),
            rule("files_read", "asked/**", Ask),
            rule("files_list", "unlisted/**", Deny),
            rule("files_search", "unsearched/**", Deny),
            rule("files_write", "a.md", Deny),
        ];
        let rules = Decisions::new(rules.map(|rule| (RuleId::random(), rule)));
        let answered = Decisions::new([(ApprovalId::random(), rule("files_read", "=asked/once.md", Allow))]);
        let sight = Sight::new(rules, answered);
        for (path, unlisted, unsearched, asked_for) in [
            ("a.md", false, false, false),
            ("secret/a.md", true, true, false),
            ("secret/b/c.md", true, true, false),
            ("secret/open.md", false, false, false),
            ("asked/a.md", false, false, true),
            ("asked/once.md", false, false, false),
            ("unlisted/a.md", true, false, false),
            ("unsearched/a.md", false, true, false),
        ] {
            let seen = [sight.is_hidden(Tool::FilesList, path), sight.is_hidden(Tool::FilesSearch, path), sight.is_asked_for(path)];
            assert_eq!(seen, [unlisted, unsearched, asked_for], "{path}");
        }
    }

    #[test]
    fn a_run_compiles_only_what_is_new_to_it() {
        let known: Vec<_> = ["a/**", "b/**"].map(|on| (RuleId::random(), rule("files_read", on, Verdict::Deny))).into();
        let first = Decisions::new(known.clone());
        let same = first.clone().with(known.clone());
        assert!(Arc::ptr_eq(&first.0, &same.0), "nothing is new");
        let changed = [known[1].clone(), (known[0].0, rule("files_read", "c/**", Verdict::Deny))];
        let sight = Sight::new(first.with(changed.clone()), Decisions::default());
        let hidden = ["a/x", "b/x", "c/x"].map(|path| sight.is_hidden(Tool::FilesList, path));
        assert_eq!(hidden, [false, true, true], "a rule that is another one under its old name is compiled anew");
        assert_eq!(sight.rules.rules().collect::<Vec<_>>(), changed);
    }

    #[test]
    fn defaults_ask_for_what_changes_costs_or_leaves_the_lab() {
        for (tool, arguments, verdict) in [
            (Tool::FilesList, json!({}), Verdict::Allow),
            (Tool::FilesRead, json!({"path": "a"}), Verdict::Allow),
            (Tool::FilesSearch, json!({"text": "a"}), Verdict::Allow),
            (Tool::TasksList, json!({}), Verdict::Allow),
            (Tool::FilesWrite, json!({"path": "a", "text": ""}), Verdict::Ask),
            (Tool::FilesPatch, json!({"path": "a", "edits": []}), Verdict::Ask),
            (Tool::TasksCreate, json!({"title": "a"}), Verdict::Ask),
            (Tool::TasksUpdate, json!({"task": wire::TaskId::random()}), Verdict::Ask),
            (Tool::TasksAssign, json!({"task": wire::TaskId::random()}), Verdict::Ask),
            (Tool::WebFetch, json!({"url": "https://example.com"}), Verdict::Ask),
            (Tool::Delegate, json!({"model": "gpt-5.2", "task": "a"}), Verdict::Ask),
            (Tool::Delegate, json!({"model": "local/llama3.2", "task": "a"}), Verdict::Allow),
            (Tool::Delegate, json!({"model": "local@den/llama3.2", "task": "a"}), Verdict::Allow),
            (Tool::Delegate, json!({"model": "localx/llama3.2", "task": "a"}), Verdict::Ask),
            (Tool::Delegate, json!({"model": "local/", "task": "a"}), Verdict::Ask),
        ] {
            assert_eq!(default_of(&Call::parse(tool, &arguments).unwrap()), verdict, "{tool:?} {arguments}");
        }
    }

    #[test]
    fn a_rule_is_about_something_that_can_exist() {
        for (tool, targets, verdict, valid) in [
            ("files_write", "docs/**", Verdict::Allow, true),
            ("files_write", "docs/[", Verdict::Deny, false),
            ("files_wri", "any", Verdict::Deny, false),
            ("*", "any", Verdict::Deny, false),
            ("wiki__find", "any", Verdict::Allow, true),
            ("wiki__find", "=x", Verdict::Allow, false),
            ("wiki__*", "any", Verdict::Deny, true),
            ("wiki__*", "any", Verdict::Allow, false),
            ("wi ki__*", "any", Verdict::Deny, false),
            ("__find", "any", Verdict::Deny, false),
        ] {
            assert_eq!(rule(tool, targets, verdict).is_valid(), valid, "{tool} {targets} {verdict:?}");
        }
    }
}
