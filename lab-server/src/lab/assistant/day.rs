//! How many questions somebody asked today: a day is a day of UTC, so that everybody can tell when the next one begins. It is kept in
//! memory, for it saves an operator's money rather than anybody's rights; a Lab that starts anew begins the day anew.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use wire::UserId;

/// Questions of one person in a day. Somebody who asks every five minutes of a working day asks a hundred; beyond that it is a program, and
/// each question may cost the operator six of the model's answers.
const PER_DAY: u32 = 100;
/// Seconds.
const DAY: u64 = 24 * 60 * 60;

/// Who asked how often today.
#[derive(Default)]
pub(super) struct Today(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// Days since 1970.
    day: u64,
    asked: HashMap<UserId, u32>,
}

impl Today {
    /// Counts a question; how long it is until the next day where there were as many as there can be.
    pub(super) fn ask(&self, user: UserId, now: SystemTime) -> Result<(), Duration> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let day = now.as_secs() / DAY;
        // No code that can panic runs under the lock.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that is set back gives nobody a second day.
        if day > counts.day {
            *counts = Counts { day, asked: HashMap::new() };
        }
        let opens = Duration::from_secs((counts.day + 1) * DAY).saturating_sub(now);
        let asked = counts.asked.entry(user).or_default();
        if *asked >= PER_DAY {
            return Err(opens);
        }
        *asked += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_has_so_many_questions_a_day_and_is_told_when_the_next_begins() {
        let (today, ada, eve) = (Today::default(), UserId::random(), UserId::random());
        let at = |day: u64, seconds: u64| UNIX_EPOCH + Duration::from_secs(day * DAY + seconds);
        for _ in 0..PER_DAY {
            assert_eq!(today.ask(ada, at(20_000, 60)), Ok(()));
        }
        assert_eq!(today.ask(ada, at(20_000, 3_600)), Err(Duration::from_secs(23 * 3_600)));
        assert_eq!(today.ask(eve, at(20_000, 3_600)), Ok(()), "it is another's");
        assert_eq!(today.ask(ada, at(19_999, 0)), Err(Duration::from_secs(2 * DAY)), "the clock was set back");
        assert_eq!(today.ask(ada, at(20_000, DAY - 1)), Err(Duration::from_secs(1)));
        assert_eq!(today.ask(ada, at(20_001, 0)), Ok(()));
    }
}
