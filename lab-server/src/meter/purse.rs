//! The arithmetic of money: what is there, what running requests have set aside, and what a request is charged in the end. Pure, in
//! whole nano-credits.
//!
//! A [`Purse`] is a person's money, [`KeySpending`] what one key may still spend of it. In both, what is set aside never exceeds what
//! there is; so no number of requests at once can overrun either.

use crate::{
    calendar,
    store::{Balance, Spending, Spent},
};

/// A person's money, as this process knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purse {
    /// What the database says.
    stored: Balance,
    /// Charged, and not in the database yet.
    unwritten: i64,
    free_unwritten: i32,
    /// Set aside for running requests.
    held: i64,
    free_held: i32,
}

/// What is set aside for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Nothing: it costs nothing.
    Nothing,
    /// One of the free requests.
    Free,
    /// Nano-credits.
    Credits(i64),
}

/// Why nothing is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broke {
    /// There is not enough.
    Insufficient,
    /// The free requests are used up, and there never were credits.
    TrialExhausted,
    /// There would be enough, but for what running requests have set aside.
    InFlight,
    /// The key has spent what it may.
    KeyLimit,
}

impl Purse {
    pub(super) fn new(stored: Balance) -> Self {
        Self { stored, unwritten: 0, free_unwritten: 0, held: 0, free_held: 0 }
    }

    /// What the database says now. What is not written yet is still owed.
    pub(super) fn load(&mut self, stored: Balance) {
        self.stored = stored;
    }

    /// Nobody waits for anything here.
    pub(super) fn is_idle(&self) -> bool {
        (self.unwritten, self.free_unwritten, self.held, self.free_held) == (0, 0, 0, 0)
    }

    fn balance(&self) -> i64 {
        self.stored.balance_nano.saturating_sub(self.unwritten).max(0)
    }

    fn free_left(&self) -> i32 {
        self.stored.free_requests_left.saturating_sub(self.free_unwritten).max(0)
    }

    /// Sets aside the most that a request can cost: a free request while there is one, credits after that.
    pub(super) fn hold(&mut self, most: i64, key: &mut KeySpending, limits: &Spending) -> Result<Hold, Broke> {
        if most <= 0 {
            return Ok(Hold::Nothing);
        }
        if self.free_left() > self.free_held {
            self.free_held += 1;
            return Ok(Hold::Free);
        }
        key.may_hold(most, limits)?;
        if most > self.balance() {
            let trial = self.balance() == 0 && !self.stored.had_credits;
            return Err(match (trial, self.free_left() > 0) {
                // The last free requests are running; one that comes to nothing is there again.
                (_, true) => Broke::InFlight,
                (true, false) => Broke::TrialExhausted,
                (false, false) => Broke::Insufficient,
            });
        }
        if most > self.balance().saturating_sub(self.held) {
            return Err(Broke::InFlight);
        }
        self.held = self.held.saturating_add(most);
        key.held = key.held.saturating_add(most);
        Ok(Hold::Credits(most))
    }

    /// Gives back what was set aside, as if it never had been.
    pub(super) fn release(&mut self, hold: Hold, key: &mut KeySpending) {
        match hold {
            Hold::Nothing => {}
            Hold::Free => self.free_held = (self.free_held - 1).max(0),
            Hold::Credits(most) => {
                self.held = self.held.saturating_sub(most).max(0);
                key.held = key.held.saturating_sub(most).max(0);
            }
        }
    }

    /// Charges a free request that came to something.
    pub(super) fn use_free(&mut self, key: &mut KeySpending) {
        self.release(Hold::Free, key);
        self.free_unwritten += 1;
    }

    /// Charges what a request of this day cost, as far as it was set aside or is free to be had, and gives what was charged.
    pub(super) fn charge(&mut self, held: i64, cost: i64, key: &mut KeySpending, limits: &Spending, day: i64) -> i64 {
        let free = self.balance().saturating_sub(self.held).max(0).min(key.room(limits));
        let charge = cost.min(held.saturating_add(free)).min(self.balance()).max(0);
        self.release(Hold::Credits(held), key);
        self.unwritten = self.unwritten.saturating_add(charge);
        key.add(charge, day);
        charge
    }

    /// What was charged is in the database now.
    pub(super) fn written(&mut self, nano: i64, free: i32) {
        self.unwritten = self.unwritten.saturating_sub(nano);
        self.stored.balance_nano = self.stored.balance_nano.saturating_sub(nano);
        self.free_unwritten -= free;
        self.stored.free_requests_left -= free;
    }
}

/// What one key has spent, and what is set aside under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeySpending {
    /// The day that `spent` is for, counted from 1970.
    day: i64,
    spent: Spent,
    held: i64,
    /// Charged, and not in the database yet.
    unwritten: i64,
}

impl KeySpending {
    pub(super) fn new(day: i64, spent: Spent) -> Self {
        Self { day, spent, held: 0, unwritten: 0 }
    }

    pub(super) fn is_idle(&self) -> bool {
        (self.held, self.unwritten) == (0, 0)
    }

    /// What was charged is in the database now.
    pub(super) fn written(&mut self, nano: i64) {
        self.unwritten = self.unwritten.saturating_sub(nano);
    }

    /// A new day begins, and maybe a new month.
    pub(super) fn roll(&mut self, day: i64) {
        if day > self.day {
            self.spent.day = 0;
            if month(day) != month(self.day) {
                self.spent.month = 0;
            }
            self.day = day;
        }
    }

    fn may_hold(&self, most: i64, limits: &Spending) -> Result<(), Broke> {
        for (limit, spent) in self.windows(limits) {
            if spent.saturating_add(most) > limit {
                return Err(Broke::KeyLimit);
            }
        }
        if most > self.room(limits) { Err(Broke::InFlight) } else { Ok(()) }
    }

    /// What is neither spent nor set aside.
    fn room(&self, limits: &Spending) -> i64 {
        let left = self.windows(limits).map(|(limit, spent)| limit.saturating_sub(spent).saturating_sub(self.held).max(0));
        left.min().unwrap_or(i64::MAX)
    }

    fn windows(&self, limits: &Spending) -> impl Iterator<Item = (i64, i64)> {
        let Spent { day, month, total } = self.spent;
        [(limits.day, day), (limits.month, month), (limits.total, total)]
            .into_iter()
            .filter_map(|(limit, spent)| limit.map(|limit| (limit, spent)))
    }

    /// A request counts in the day of its arrival, which may be over.
    fn add(&mut self, nano: i64, day: i64) {
        self.roll(day);
        self.unwritten = self.unwritten.saturating_add(nano);
        self.spent.total = self.spent.total.saturating_add(nano);
        if day == self.day {
            self.spent.day = self.spent.day.saturating_add(nano);
        }
        if month(day) == month(self.day) {
            self.spent.month = self.spent.month.saturating_add(nano);
        }
    }
}

fn month(day: i64) -> (u64, u64) {
    let (year, month, _) = calendar::date(u64::try_from(day).unwrap_or_default());
    (year, month)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: Spending = Spending { day: None, month: None, total: None };
    const TODAY: i64 = 20_777; // 2026-11-20

    fn purse(balance_nano: i64, free_requests_left: i32, had_credits: bool) -> (Purse, KeySpending) {
        let purse = Purse::new(Balance { balance_nano, free_requests_left, had_credits });
        (purse, KeySpending::new(TODAY, Spent::default()))
    }

    #[test]
    fn free_requests_go_first_and_the_refusals_tell_why() {
        let (mut purse, mut key) = purse(0, 2, false);
        for _ in 0..2 {
            assert_eq!(purse.hold(5, &mut key, &NONE), Ok(Hold::Free));
        }
        assert_eq!(purse.hold(0, &mut key, &NONE), Ok(Hold::Nothing));
        assert_eq!(purse.hold(5, &mut key, &NONE), Err(Broke::InFlight));
        purse.release(Hold::Free, &mut key);
        assert_eq!(purse.hold(5, &mut key, &NONE), Ok(Hold::Free));
        purse.use_free(&mut key);
        purse.use_free(&mut key);
        assert_eq!(purse.hold(5, &mut key, &NONE), Err(Broke::TrialExhausted));
        purse.load(Balance { balance_nano: 10, free_requests_left: 2, had_credits: true });
        assert_eq!(purse.hold(8, &mut key, &NONE), Ok(Hold::Credits(8)));
        assert_eq!(purse.hold(8, &mut key, &NONE), Err(Broke::InFlight));
        assert_eq!(purse.hold(11, &mut key, &NONE), Err(Broke::Insufficient));
        assert_eq!(purse.charge(8, 3, &mut key, &NONE, TODAY), 3);
        assert_eq!(purse.hold(8, &mut key, &NONE), Err(Broke::Insufficient));
        purse.written(3, 2);
        assert_eq!((purse.balance(), purse.free_left(), purse.is_idle()), (7, 0, true));
    }

    #[test]
    fn a_key_stops_at_its_limits_and_begins_anew_with_the_window() {
        let (mut purse, mut key) = purse(1000, 0, true);
        let limits = Spending { day: Some(10), month: Some(15), total: Some(100) };
        assert_eq!(purse.hold(6, &mut key, &limits), Ok(Hold::Credits(6)));
        assert_eq!(purse.hold(6, &mut key, &limits), Err(Broke::InFlight));
        assert_eq!(purse.hold(11, &mut key, &limits), Err(Broke::KeyLimit));
        // More than was set aside is charged only as far as the limit goes.
        assert_eq!(purse.charge(6, 99, &mut key, &limits, TODAY), 10);
        assert_eq!(purse.hold(1, &mut key, &limits), Err(Broke::KeyLimit));
        key.roll(TODAY + 1);
        assert_eq!(purse.hold(6, &mut key, &limits), Err(Broke::KeyLimit));
        assert_eq!(purse.hold(5, &mut key, &limits), Ok(Hold::Credits(5)));
        // It arrived yesterday.
        assert_eq!(purse.charge(5, 5, &mut key, &limits, TODAY), 5);
        assert_eq!(key.spent, Spent { day: 0, month: 15, total: 15 });
        key.roll(TODAY + 11); // 2026-12-01
        assert_eq!(key.spent, Spent { day: 0, month: 0, total: 15 });
        assert_eq!(purse.balance(), 985);
    }

    #[test]
    fn what_was_taken_away_behind_a_request_is_not_charged() {
        let (mut purse, mut key) = purse(10, 0, true);
        assert_eq!(purse.hold(8, &mut key, &NONE), Ok(Hold::Credits(8)));
        purse.load(Balance { balance_nano: 3, free_requests_left: 0, had_credits: true });
        assert_eq!(purse.charge(8, 8, &mut key, &NONE, TODAY), 3);
        assert_eq!((purse.balance(), purse.held), (0, 0));
        for nano in [i64::MAX, i64::MIN, -1] {
            assert!((0..=3).contains(&purse.charge(nano, nano, &mut key, &NONE, TODAY)));
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Hold(i64),
        Settle { which: usize, cost: i64 },
        Write,
        Grant(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (-1_i64..200).prop_map(Step::Hold),
            (any::<prop::sample::Index>(), -5_i64..300).prop_map(|(which, cost)| Step::Settle { which: which.index(1000), cost }),
            Just(Step::Write),
            (1_i64..100).prop_map(Step::Grant),
        ]
    }

    proptest! {
        /// Against a model that knows only what was granted, what was charged and who runs.
        #[test]
        fn nothing_is_ever_overrun(
            steps in prop::collection::vec(step(), 1..200),
            free in 0_i32..5,
            limit in prop::option::of(0_i64..500),
        ) {
            let (mut purse, mut key) = purse(300, free, true);
            let limits = Spending { total: limit, ..NONE };
            let (mut granted, mut charged, mut free_used) = (300_i64, 0_i64, 0_i32);
            let (mut written, mut free_written) = (0_i64, 0_i32);
            let mut running = Vec::new();
            for step in steps {
                match step {
                    Step::Hold(most) => match purse.hold(most, &mut key, &limits) {
                        Ok(hold) => running.push(hold),
                        Err(broke) => {
                            let held: i64 = running.iter().map(|hold| if let Hold::Credits(most) = hold { *most } else { 0 }).sum();
                            let fits = most <= granted - charged && limit.is_none_or(|limit| charged + most <= limit);
                            let fits_now = most + held <= granted - charged && limit.is_none_or(|limit| charged + held + most <= limit);
                            prop_assert!(!fits_now);
                            if broke != Broke::InFlight {
                                prop_assert!(!fits);
                            }
                        }
                    },
                    Step::Settle { which, cost } if !running.is_empty() => match running.swap_remove(which % running.len()) {
                        Hold::Nothing => {}
                        Hold::Free if cost < 0 => purse.release(Hold::Free, &mut key),
                        Hold::Free => {
                            purse.use_free(&mut key);
                            free_used += 1;
                        }
                        Hold::Credits(held) => {
                            let charge = purse.charge(held, cost, &mut key, &limits, TODAY);
                            prop_assert!(charge >= cost.clamp(0, held) && charge <= cost.max(0));
                            charged += charge;
                        }
                    },
                    Step::Settle { .. } => {}
                    Step::Write => {
                        purse.written(charged - written, free_used - free_written);
                        key.written(charged - written);
                        (written, free_written) = (charged, free_used);
                    }
                    Step::Grant(nano) => {
                        granted += nano;
                        let stored = Balance { balance_nano: granted - written, free_requests_left: free - free_written, had_credits: true };
                        purse.load(stored);
                    }
                }
                let held: i64 = running.iter().map(|hold| if let Hold::Credits(most) = hold { *most } else { 0 }).sum();
                prop_assert_eq!(purse.balance(), granted - charged);
                prop_assert_eq!((purse.held, key.held), (held, held));
                prop_assert!(held <= purse.balance());
                prop_assert!(limit.is_none_or(|limit| charged + held <= limit));
                prop_assert!(free_used <= free);
                prop_assert_eq!(key.spent.total, charged);
            }
        }
    }
}
