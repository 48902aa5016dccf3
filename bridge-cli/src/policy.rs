//! `policy`: what of this workstation is shared.

use bridge_core::{
    control::Client,
    policy::{ModelPattern, Policy},
};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::{
    exit::Exit,
    failure::Failure,
    output::{Ink, Output, Tone, table},
};

/// `policy`
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The whole policy (the default)
    Show,
    /// Change one setting
    #[command(
        after_help = "Examples:\n  1k4-bridge policy set max_concurrent 2\n  1k4-bridge policy set quiet_hours '[\"22:00-07:00\"]'\n  1k4-bridge policy set shared all"
    )]
    Set {
        /// A setting as `policy show` names it
        key: String,
        /// Its new value: a number, a word, or JSON
        value: String,
    },
    /// Share a model
    Allow {
        /// Such as llama3.2 (every tag of it), llama3.2:1b or qwen*
        model: ModelPattern,
    },
    /// Share a model no longer
    Deny {
        /// Such as llama3.2 (every tag of it), llama3.2:1b or qwen*
        model: ModelPattern,
    },
}

/// Does what `args` say, and prints the policy that then holds.
pub(crate) async fn run(client: &Client, args: PolicyArgs, output: Output) -> Result<(), Failure> {
    let policy = match args.verb.unwrap_or(Verb::Show) {
        Verb::Show => client.policy().await?,
        Verb::Set { key, value } => {
            let changed = with(&client.policy().await?, &key, &value)?;
            client.set_policy(&changed).await?
        }
        Verb::Allow { model } => client.allow(model).await?,
        Verb::Deny { model } => client.deny(model).await?,
    };
    output.print(&policy, text)
}

/// The policy with one setting changed. Whether the value is a good one is the bridge's to say.
fn with(policy: &Policy, key: &str, value: &str) -> Result<Value, Failure> {
    let mut fields = settings(policy);
    if !fields.iter().any(|(name, _)| name == key) {
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("there is no setting `{key}`; the settings are {}", names.join(", "));
        return Err(Failure::new(Exit::Failed, "unknown_setting", message));
    }
    // What is no JSON is a word: `policy set may_pull ask` needs no quotes.
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    for (name, old) in &mut fields {
        if name == key {
            old.clone_from(&value);
        }
    }
    Ok(Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect()))
}

/// Every setting with its value; those that are absent with `null`.
fn settings(policy: &Policy) -> Vec<(String, Value)> {
    let Ok(Value::Object(fields)) = serde_json::to_value(policy) else { return Vec::new() };
    let mut fields: Vec<_> = fields.into_iter().collect();
    if !fields.iter().any(|(name, _)| name == OPTIONAL) {
        fields.push((OPTIONAL.to_owned(), Value::Null));
    }
    fields
}

/// The one setting that is left out of the file while it is not set.
const OPTIONAL: &str = "yield_gpu_percent";

fn text(ink: Ink, policy: &Policy) -> String {
    let rows: Vec<[String; 2]> = settings(policy).into_iter().map(|(name, value)| [name, words(&value)]).collect();
    format!("{}\n{}", ink.paint(Tone::Strong, "What this workstation shares"), table(&rows))
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "off".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_setting_is_changed_and_the_others_stay() {
        let policy = Policy::default();
        let changed: Policy = serde_json::from_value(with(&policy, "max_concurrent", "2").unwrap()).unwrap();
        assert_eq!(changed, Policy { max_concurrent: 2, ..policy.clone() });
        let changed: Policy = serde_json::from_value(with(&policy, "may_pull", "ask").unwrap()).unwrap();
        assert_eq!(changed.may_pull, bridge_core::policy::Pull::Ask);
        let on: Policy = serde_json::from_value(with(&policy, "yield_gpu_percent", "50").unwrap()).unwrap();
        assert_eq!(on.yield_gpu_percent, Some(50));
        let off: Policy = serde_json::from_value(with(&on, "yield_gpu_percent", "null").unwrap()).unwrap();
        assert_eq!(off, policy);
    }

    #[test]
    fn a_setting_that_is_not_there_is_named_with_those_that_are() {
        let refused = with(&Policy::default(), "max_concurent", "2").unwrap_err();
        assert_eq!(refused.code, "unknown_setting");
        assert!(
            refused.message.starts_with("there is no setting `max_concurent`; the settings are shared, denied, "),
            "{}",
            refused.message
        );
    }

    #[test]
    fn every_setting_is_shown() {
        let shown = text(Ink::Plain, &Policy::default());
        for line in ["shared             all", "denied             none", "max_concurrent     4", "yield_gpu_percent  off"] {
            assert!(shown.lines().any(|l| l == line), "{line:?} in\n{shown}");
        }
    }
}
