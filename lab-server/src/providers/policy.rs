//! What each provider says that it does with what it is sent: data, behind `GET /api/providers`.
//!
//! The file is served as it stands; the types here describe it for the API's schema, and a test holds the two together.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The data.
pub const POLICIES: &str = include_str!("../../providers.json");

/// What providers document about data that is sent to them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// How to read the rest.
    pub note: String,
    /// One entry for each provider that the catalogue knows, and for Azure.
    pub providers: Vec<Policy>,
}

/// One provider's word.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ProviderPolicy)]
pub struct Policy {
    /// As the catalogue names it.
    pub provider: String,
    /// As people call it.
    pub name: String,
    /// Whether what its API is sent trains models.
    pub trains_on_api_data: Trains,
    /// The same in a sentence.
    pub training: String,
    /// For how many days requests and answers are kept by default.
    pub retention_days: u32,
    /// The same in sentences.
    pub retention: String,
    /// Where the provider says so.
    pub links: Vec<String>,
    /// The day on which that was read.
    pub checked: String,
}

/// Whether a provider trains on what its API is sent.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trains {
    /// Not without the customer's consent.
    No,
    /// With an account that pays nothing.
    UnpaidOnly,
    /// Yes.
    Yes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_whole_and_says_whose_word_it_is() {
        let policies: Policies = serde_json::from_str(POLICIES).unwrap();
        let names: Vec<&str> = policies.providers.iter().map(|policy| policy.provider.as_str()).collect();
        assert_eq!(names, ["openai", "anthropic", "google", "xai", "azure"]);
        for policy in &policies.providers {
            for sentence in [&policy.training, &policy.retention] {
                assert!(sentence.starts_with("As documented by the provider: "), "{sentence}");
            }
            assert!(!policy.links.is_empty() && policy.links.iter().all(|link| link.starts_with("https://")), "{policy:?}");
            assert_eq!(policy.checked.len(), "2026-11-20".len());
        }
    }
}
