//! What the assistant can look at: one variant each, and nothing that changes anything.

use std::time::{Duration, SystemTime};

use api_proxy::Catalogue;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::UserId;

use super::docs;
use crate::{
    credits::Credits,
    lab::prompt::ToolSpec,
    store::{ReadOnly, StoreError, SumBy, now_ms},
};

/// Days that sums go back.
const DAYS: i64 = 30;
/// Lines of one answer.
const MOST: usize = 100;

/// Everything that can be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "tool", content = "arguments", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Question {
    /// What requests came to.
    Usage {
        /// Put together how.
        by: SumsBy,
    },
    /// Which keys there are, by name.
    Keys {},
    /// Which workstations there are.
    Devices {},
    /// What is there to spend.
    Balance {},
    /// What a model costs.
    Prices {
        /// Its name.
        model: String,
    },
    /// How 1K4 works.
    Docs {
        /// The topic.
        topic: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SumsBy {
    Day,
    Model,
    Key,
    Project,
}

impl Question {
    /// The same as its model is told of it.
    pub(super) fn tools() -> Vec<ToolSpec> {
        let spec = |name: &str, description: &str, properties: Value| {
            let required: Vec<&String> = properties.as_object().into_iter().flat_map(|all| all.keys()).collect();
            let parameters =
                json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
            ToolSpec { name: name.to_owned(), description: description.to_owned(), parameters }
        };
        let topics: Vec<&str> = docs::TOPICS.iter().map(|(topic, _)| *topic).collect();
        vec![
            spec(
                "usage",
                "Requests, tokens and cost of the last 30 days.",
                json!({ "by": { "type": "string", "enum": ["day", "model", "key", "project"] } }),
            ),
            spec("keys", "The account's API keys: names, projects, limits. Never their texts.", json!({})),
            spec("devices", "The account's paired workstations.", json!({})),
            spec("balance", "Credits and free requests that are left.", json!({})),
            spec("prices", "What a million tokens of a model cost, in US dollars.", json!({ "model": { "type": "string" } })),
            spec("docs", "How 1K4 works.", json!({ "topic": { "type": "string", "enum": topics } })),
        ]
    }

    fn of(tool: &str, arguments: &Value) -> Option<Self> {
        let arguments = if arguments.is_null() { json!({}) } else { arguments.clone() };
        serde_json::from_value(json!({ "tool": tool, "arguments": arguments })).ok()
    }
}

/// Looks things up for one person.
pub(super) struct Looking<'a> {
    pub(super) store: &'a ReadOnly,
    pub(super) prices: &'a Catalogue,
    pub(super) user: UserId,
}

impl Looking<'_> {
    /// What its model is told; why it is told nothing otherwise.
    pub(super) async fn answer(&self, tool: &str, arguments: &Value) -> Result<String, &'static str> {
        let question = Question::of(tool, arguments).ok_or("there is no such tool, or it takes other arguments")?;
        let value = self.look(question).await.map_err(|error| {
            tracing::error!(%error, "the assistant cannot look something up");
            "this cannot be looked up just now"
        })?;
        Ok(value.to_string())
    }

    async fn look(&self, question: Question) -> Result<Value, StoreError> {
        let credits = |nano: i64| Credits::of_nano(nano).to_string();
        Ok(match question {
            Question::Usage { by } => {
                let by = match by {
                    SumsBy::Day => SumBy::Day,
                    SumsBy::Model => SumBy::Model,
                    SumsBy::Key => SumBy::Key,
                    SumsBy::Project => SumBy::Project,
                };
                let from = now_ms() - i64::try_from(Duration::from_secs(86_400).as_millis()).unwrap_or_default() * DAYS;
                let sums = self.store.usage(self.user, from, by).await?;
                let sums = sums.iter().take(MOST).map(|sum| {
                    json!({ "of": sum.bucket, "requests": sum.requests, "input_tokens": sum.input_tokens,
                        "output_tokens": sum.output_tokens, "credits": credits(sum.cost_nano) })
                });
                sums.collect()
            }
            Question::Keys {} => {
                let keys = self.store.keys(self.user).await?;
                let keys = keys.iter().take(MOST).map(|(project, key)| {
                    json!({ "name": key.name, "project": project, "id": key.kid, "created_at": key.created_at,
                        "revoked": key.revoked_at.is_some() })
                });
                keys.collect()
            }
            Question::Devices {} => {
                let devices = self.store.devices(self.user).await?;
                let devices = devices.iter().take(MOST).map(|device| {
                    json!({ "name": device.name, "os": device.os, "paired_at": device.created_at,
                        "removed": device.revoked_at.is_some() })
                });
                devices.collect()
            }
            Question::Balance {} => match self.store.balance(self.user).await? {
                Some(balance) => {
                    json!({ "credits": credits(balance.balance_nano), "free_requests_left": balance.free_requests_left })
                }
                None => Value::Null,
            },
            Question::Prices { model } => {
                let price = self.prices.find(&model).and_then(|model| model.list_price(SystemTime::now()));
                match price {
                    Some(price) => json!({ "input": price.input, "cached_input": price.cached, "output": price.output }),
                    None if model.starts_with("local") => json!("models on one's own workstations cost nothing"),
                    None => json!("no model of that name has a price here"),
                }
            }
            Question::Docs { topic } => docs::topic(&topic).map_or_else(|| json!("there is no such topic"), Value::from),
        })
    }
}
