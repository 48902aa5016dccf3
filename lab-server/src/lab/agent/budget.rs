//! What a run may use up: steps, time, tokens, credits. Looked at before each question to a model and before each tool.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::LocalModel;

use crate::lab::{content::Use, event::Outcome};

/// Questions to a model. A task of twenty steps takes some thirty; an agent that needs hundreds has lost its way, or somebody's money.
pub const MOST_STEPS: u32 = 500;
/// Seconds at work; waiting for the owner is not counted. A day's night: it is done before its owner is back.
pub const MOST_SECONDS: u32 = 12 * 60 * 60;
/// Tokens of all prompts and answers.
pub const MOST_TOKENS: u64 = 50_000_000;
/// Nano-credits. The account's balance ends a run before that as well.
pub const MOST_NANO: i64 = 100 * 1_000_000_000;

/// What a run may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// How often models may be asked.
    #[schema(minimum = 1, maximum = 500)]
    pub steps: u32,
    /// Seconds at work; waiting for an approval is not counted.
    #[schema(minimum = 1, maximum = 43200)]
    pub seconds: u32,
    /// Tokens of all prompts and answers.
    #[schema(minimum = 1, maximum = 50_000_000)]
    pub tokens: u64,
    /// Nano-credits.
    #[schema(minimum = 0, maximum = 100_000_000_000_i64)]
    pub nano_credits: i64,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Questions to a model.
    Steps,
    /// Time at work.
    Time,
    /// Tokens.
    Tokens,
    /// Credits.
    Credits,
}

/// What a run has used up of its budgets.
#[derive(Debug, Clone)]
pub struct Purse {
    budgets: Budgets,
    steps: u32,
    tokens: u64,
    nano: i64,
    began: Instant,
    /// Time that the owner took to answer.
    waited: Duration,
}

impl Default for Budgets {
    /// Enough for an hour's work, and little enough that a mistake costs a dollar.
    fn default() -> Self {
        Self { steps: 50, seconds: 60 * 60, tokens: 2_000_000, nano_credits: 1_000_000_000 }
    }
}

impl Budgets {
    /// A chat's answer: one question, as long as it takes; what it costs is the account's matter.
    pub const ANSWER: Self = Self { steps: 1, seconds: MOST_SECONDS, tokens: MOST_TOKENS, nano_credits: MOST_NANO };

    /// Whether no budget is above what any run may use.
    #[must_use]
    pub const fn are_within(&self) -> bool {
        1 <= self.steps
            && self.steps <= MOST_STEPS
            && 1 <= self.seconds
            && self.seconds <= MOST_SECONDS
            && 1 <= self.tokens
            && self.tokens <= MOST_TOKENS
            && 0 <= self.nano_credits
            && self.nano_credits <= MOST_NANO
    }
}

impl Purse {
    /// A full one.
    #[must_use]
    pub fn new(budgets: Budgets, now: Instant) -> Self {
        Self { budgets, steps: 0, tokens: 0, nano: 0, began: now, waited: Duration::ZERO }
    }

    /// Whether a tool may be used.
    ///
    /// # Errors
    /// The budget that is used up.
    pub fn check(&self, now: Instant) -> Result<(), Budget> {
        if now >= self.deadline() {
            Err(Budget::Time)
        } else if self.tokens >= self.budgets.tokens {
            Err(Budget::Tokens)
        } else if self.nano > self.budgets.nano_credits || (self.nano == self.budgets.nano_credits && self.nano > 0) {
            Err(Budget::Credits)
        } else {
            Ok(())
        }
    }

    /// Takes a step; which one it is, from 1.
    ///
    /// # Errors
    /// The budget that is used up.
    pub fn step(&mut self, now: Instant) -> Result<u32, Budget> {
        self.check(now)?;
        if self.steps >= self.budgets.steps {
            return Err(Budget::Steps);
        }
        self.steps += 1;
        Ok(self.steps)
    }

    /// Whether a model may be asked, as far as credits go. What a provider's costs is known only afterwards, so nothing may be left for
    /// none of them; a workstation of the owner's own costs nothing.
    ///
    /// # Errors
    /// [`Budget::Credits`].
    pub fn may_ask(&self, model: &str) -> Result<(), Budget> {
        if may_cost(model) && self.nano >= self.budgets.nano_credits { Err(Budget::Credits) } else { Ok(()) }
    }

    /// What a question took.
    pub fn spend(&mut self, usage: &Use) {
        let tokens = usage.input_tokens.unwrap_or(0).saturating_add(usage.output_tokens.unwrap_or(0));
        self.tokens = self.tokens.saturating_add(tokens);
        self.nano = self.nano.saturating_add(usage.cost_nano);
    }

    /// The owner took this long.
    pub fn wait(&mut self, waited: Duration) {
        self.waited += waited;
    }

    /// When the time is up, as things stand.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.began + Duration::from_secs(self.budgets.seconds.into()) + self.waited
    }

    /// Tokens that are left.
    #[must_use]
    pub const fn tokens_left(&self) -> u64 {
        self.budgets.tokens.saturating_sub(self.tokens)
    }
}

/// Whether a model's answer may cost credits: every one does that is not a workstation's.
#[must_use]
pub fn may_cost(model: &str) -> bool {
    !matches!(LocalModel::parse(model), Some(Ok(_)))
}

impl From<Budget> for Outcome {
    fn from(budget: Budget) -> Self {
        let budget = match budget {
            Budget::Steps => "steps",
            Budget::Time => "time",
            Budget::Tokens => "tokens",
            Budget::Credits => "credits",
        };
        Self::Exhausted { budget: budget.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use wire::RequestId;

    use super::*;

    #[test]
    fn each_budget_ends_a_run_and_waiting_ends_none() {
        let budgets = Budgets { steps: 2, seconds: 10, tokens: 100, nano_credits: 5 };
        let now = Instant::now();
        let usage = |input, cost_nano| Use {
            request: RequestId::random(),
            model: "m".into(),
            device: None,
            provider: None,
            input_tokens: Some(input),
            output_tokens: Some(1),
            estimated: false,
            cost_nano,
            first_token_ms: None,
            total_ms: 0,
            load_ms: None,
        };
        let mut purse = Purse::new(budgets, now);
        assert_eq!((purse.step(now), purse.step(now), purse.step(now)), (Ok(1), Ok(2), Err(Budget::Steps)));
        assert_eq!(purse.check(now), Ok(()), "a tool may still be used after the last question");
        let late = now + Duration::from_secs(10);
        assert_eq!(purse.check(late), Err(Budget::Time));
        purse.wait(Duration::from_secs(1));
        assert_eq!(purse.check(late), Ok(()));
        purse.spend(&usage(98, 4));
        assert_eq!((purse.check(now), purse.tokens_left()), (Ok(()), 1));
        purse.spend(&usage(0, 0));
        assert_eq!(purse.check(now), Err(Budget::Tokens));
        let mut purse = Purse::new(budgets, now);
        purse.spend(&usage(0, 5));
        assert_eq!(purse.check(now), Err(Budget::Credits));
        // Whoever has no credits to spend can still use what costs nothing.
        let mut free = Purse::new(Budgets { nano_credits: 0, ..budgets }, now);
        free.spend(&usage(0, 0));
        assert_eq!(free.step(now), Ok(1));
        // And nothing else, not even once.
        let asked = |purse: &Purse| ["local/m", "local@den/m", "gpt-5.2", "local/"].map(|model| purse.may_ask(model).is_ok());
        assert_eq!(asked(&free), [true, true, false, false]);
        let mut purse = Purse::new(budgets, now);
        purse.spend(&usage(0, 4));
        assert_eq!(asked(&purse), [true; 4]);
        purse.spend(&usage(0, 1));
        assert_eq!(asked(&purse), [true, true, false, false]);
        assert_eq!(Outcome::from(Budget::Steps), Outcome::Exhausted { budget: "steps".into() });
        assert!(Budgets::default().are_within() && Budgets::ANSWER.are_within());
        assert!(!Budgets { steps: 501, ..budgets }.are_within());
    }
}
