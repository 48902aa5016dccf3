//! Days of the civil calendar: price lists and model lists write them as dates, and times are kept in seconds since 1970.

/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const BEFORE_1970: i64 = 719_468;

/// The day of a date, counted from 1970-01-01. A month is from 1 to 12; whether it has such a day is not looked at.
pub(crate) const fn day(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March end with the leap day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - BEFORE_1970
}

/// The year, month and day of a time in seconds since 1970.
pub(crate) const fn date(seconds: u64) -> (u64, u64, u64) {
    // The inverse of the above, within one of the calendar's cycles of 400 years.
    let days = seconds / DAY.unsigned_abs() + BEFORE_1970.unsigned_abs();
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + (month <= 2) as u64, month, day_of_year - (153 * march_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        for (at, expected) in [(0, (1970, 1, 1)), (789, (1972, 2, 29)), (11_017, (2000, 3, 1)), (20_777, (2026, 11, 20))] {
            assert_eq!(date(at * 86_400 + 86_399), expected);
        }
        for at in 0..100_000 {
            let (year, month, of_month) = date(at * 86_400);
            assert_eq!(day(year as i64, month as i64, of_month as i64), at as i64);
        }
    }
}
