//! A key's terms as flags: what is left out is not limited, or stays as it is; `none` takes a limit away.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use crate::{
    calendar,
    credits::Credits,
    store::{self, KeyTerms, ModelPattern, Scope, now_ms},
};

/// What a key may do.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Terms {
    /// What it opens: inference, usage or manage. May be given more than once.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// Credits that it may spend in a UTC day, such as 0.50, or `none`.
    #[arg(long, value_name = "CREDITS")]
    spend_day: Option<Limit<Credits>>,
    /// Credits that it may spend in a UTC month.
    #[arg(long, value_name = "CREDITS")]
    spend_month: Option<Limit<Credits>>,
    /// Credits that it may ever spend.
    #[arg(long, value_name = "CREDITS")]
    spend_total: Option<Limit<Credits>>,
    #[command(flatten)]
    rates: Rates,
    /// A model that it may ask for, or the beginning of several with `*` behind it; `none` for all. May be given more than once.
    #[arg(long = "model", value_name = "PATTERN")]
    models: Vec<Limit<ModelPattern>>,
    /// When it ends by itself: a UTC day such as 2027-01-31, a time from now such as 12h or 90d, or `none`.
    #[arg(long, value_name = "WHEN")]
    expires: Option<Limit<Expiry>>,
}

/// How fast may be asked.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Rates {
    /// Requests in a minute, or `none`.
    #[arg(long, value_name = "NUMBER")]
    rpm: Option<Limit<NonZeroU32>>,
    /// Tokens in a minute, or `none`.
    #[arg(long, value_name = "NUMBER")]
    tpm: Option<Limit<NonZeroU32>>,
    /// Requests that run at once, or `none`.
    #[arg(long, value_name = "NUMBER")]
    concurrent: Option<Limit<NonZeroU32>>,
}

/// A value, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit<T>(Option<T>);

/// When a key ends, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry(i64);

/// A span of time as people write it: `30s`, `10m`, `1h`, `2d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub(super) Duration);

/// A text that is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTerm {
    /// No time to come.
    #[error("must be a UTC day to come such as 2027-01-31, a time from now such as 12h or 90d, or none")]
    Expiry,
    /// No span.
    #[error("must be a time such as 30s, 10m, 1h or 2d, at most 10 years")]
    Span,
    /// Less than nothing.
    #[error("must not be negative")]
    Negative,
}

impl Terms {
    /// Lays what was said over `terms`.
    pub(super) fn lay_over(self, terms: &mut KeyTerms) -> Result<(), InvalidTerm> {
        if !self.scopes.is_empty() {
            terms.scopes = self.scopes.into_iter().collect();
        }
        let spending = &mut terms.spending;
        for (limit, kept) in
            [(self.spend_day, &mut spending.day), (self.spend_month, &mut spending.month), (self.spend_total, &mut spending.total)]
        {
            let Some(Limit(limit)) = limit else { continue };
            if limit.is_some_and(|credits| credits.nano < 0) {
                return Err(InvalidTerm::Negative);
            }
            *kept = limit.map(|credits| credits.nano);
        }
        self.rates.lay_over(&mut terms.rates);
        if !self.models.is_empty() {
            // One `none` among them takes all patterns away.
            terms.models = self.models.into_iter().map(|Limit(pattern)| pattern).collect();
        }
        if let Some(Limit(expires)) = self.expires {
            terms.expires_at = expires.map(|Expiry(at)| at);
        }
        Ok(())
    }
}

impl Rates {
    /// Lays what was said over `rates`.
    pub(super) fn lay_over(self, rates: &mut store::Rates) {
        for (limit, kept) in [
            (self.rpm, &mut rates.requests_per_minute),
            (self.tpm, &mut rates.tokens_per_minute),
            (self.concurrent, &mut rates.concurrent),
        ] {
            if let Some(Limit(limit)) = limit {
                *kept = limit;
            }
        }
    }
}

impl<T: FromStr> FromStr for Limit<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|value| Self(Some(value))) }
    }
}

impl FromStr for Expiry {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        let at = match calendar::day(text) {
            Some(day) => i64::try_from(day * 86_400_000).ok(),
            None => text.parse().ok().and_then(|Span(span)| now_ms().checked_add(i64::try_from(span.as_millis()).ok()?)),
        };
        at.filter(|at| *at > now_ms()).map(Self).ok_or(InvalidTerm::Expiry)
    }
}

impl FromStr for Span {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        const TEN_YEARS_S: u64 = 10 * 366 * 86_400;
        let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
        let (number, unit) =
            units.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds))).unwrap_or((text, 0));
        let digits = (1..=9).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = if digits { number.parse().map_err(|_| InvalidTerm::Span)? } else { return Err(InvalidTerm::Span) };
        // A bare number could mean anything, except for nothing.
        if (unit == 0 && number > 0) || number * unit > TEN_YEARS_S {
            return Err(InvalidTerm::Span);
        }
        Ok(Self(Duration::from_secs(number * unit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_ends_are_read() {
        for (text, seconds) in [("0", 0), ("30s", 30), ("10m", 600), ("1h", 3600), ("2d", 172_800)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "h", "1", "-1h", "1w", "1.5h", "4000d", "99999999999h"] {
            assert_eq!(text.parse::<Span>(), Err(InvalidTerm::Span), "{text}");
        }
        assert_eq!("2100-03-01".parse(), Ok(Expiry(47_541 * 86_400_000)));
        for text in ["2020-01-01", "0", "tomorrow"] {
            assert_eq!(text.parse::<Expiry>(), Err(InvalidTerm::Expiry), "{text}");
        }
        assert_eq!("none".parse(), Ok(Limit::<Expiry>(None)));
    }
}
