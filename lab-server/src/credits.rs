//! Credits as people write them: decimal strings. Inside they are whole nano-credits; no float ever holds one.

use std::{fmt, str::FromStr};

use api_proxy::NANO_PER_CREDIT;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

/// Digits behind the point.
const DECIMALS: usize = 9;
/// The most that can be written, in credits: sums of a million such amounts stay far inside 64 bits.
const MOST: i64 = 1_000_000;

/// An amount of credits; one is one US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Credits {
    /// In nano-credits.
    pub nano: i64,
}

/// A text that is no amount. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an amount of credits such as 0.01, with at most 9 digits behind the point and at most 1000000")]
pub struct InvalidCredits;

impl Credits {
    /// An amount of nano-credits.
    #[must_use]
    pub const fn of_nano(nano: i64) -> Self {
        Self { nano }
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, nano) = (if self.nano < 0 { "-" } else { "" }, self.nano.unsigned_abs());
        let (whole, fraction) = (nano / NANO_PER_CREDIT.unsigned_abs(), nano % NANO_PER_CREDIT.unsigned_abs());
        if fraction == 0 {
            return write!(f, "{sign}{whole}");
        }
        write!(f, "{sign}{whole}.{}", format!("{fraction:0DECIMALS$}").trim_end_matches('0'))
    }
}

impl FromStr for Credits {
    type Err = InvalidCredits;

    fn from_str(text: &str) -> Result<Self, InvalidCredits> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(whole, 7) || !plain(fraction, DECIMALS) {
            return Err(InvalidCredits);
        }
        let whole: i64 = whole.parse().map_err(|_| InvalidCredits)?;
        let fraction: i64 = format!("{fraction:0<DECIMALS$}").parse().map_err(|_| InvalidCredits)?;
        let nano = whole * NANO_PER_CREDIT + fraction;
        if nano > MOST * NANO_PER_CREDIT {
            return Err(InvalidCredits);
        }
        Ok(Self { nano: if negative { -nano } else { nano } })
    }
}

impl Serialize for Credits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Credits {
    /// From a string only: a JSON number would have been through a float at most of its readers.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl PartialSchema for Credits {
    fn schema() -> RefOr<Schema> {
        let description = "An amount of credits, exactly; one credit is one US dollar.";
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
        text.pattern(Some(r"^-?[0-9]{1,10}(\.[0-9]{1,9})?$")).examples(["0.01"]).into()
    }
}

impl ToSchema for Credits {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn money_is_exact_or_refused() {
        for (text, nano, shown) in [
            ("0.01", 10_000_000, "0.01"),
            ("1", 1_000_000_000, "1"),
            ("1.50", 1_500_000_000, "1.5"),
            ("-0.000000001", -1, "-0.000000001"),
            ("0", 0, "0"),
            ("-0", 0, "0"),
            ("1000000", 1_000_000_000_000_000, "1000000"),
            ("007.1", 7_100_000_000, "7.1"),
        ] {
            let credits: Credits = text.parse().unwrap();
            assert_eq!((credits.nano, credits.to_string().as_str()), (nano, shown), "{text}");
        }
        for text in
            ["", ".", "1.", ".5", "1e3", "+1", " 1", "1,5", "0x1", "1000000.000000001", "0.0000000001", "--1", "-", "99999999", "١"]
        {
            assert_eq!(text.parse::<Credits>(), Err(InvalidCredits), "{text}");
        }
        assert_eq!(serde_json::to_string(&Credits::of_nano(10_000_000)).unwrap(), "\"0.01\"");
        assert!(serde_json::from_str::<Credits>("0.01").is_err());
        assert_eq!(Credits::of_nano(i64::MIN).to_string(), "-9223372036.854775808");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(nano in -1_000_000_000_000_000_i64..=1_000_000_000_000_000) {
            let credits = Credits::of_nano(nano);
            prop_assert_eq!(credits.to_string().parse(), Ok(credits));
        }
    }
}
