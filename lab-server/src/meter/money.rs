//! Everybody's money, as far as this process has to do with it: purses by person, spending by key, read from the database when they
//! are first needed and again before anybody is refused.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use api_proxy::{KeyId, Reservation};
use wire::UserId;

use super::purse::{Broke, Hold, KeySpending, Purse};
use crate::store::{Balance, Charge, Spending, Spent, Store, StoreError, now_ms};

/// How often one person's purse is read again because they would be refused: another process may have given credits.
const READ_AGAIN: Duration = Duration::from_millis(250);
/// How long what nobody uses is remembered.
const IDLE: Duration = Duration::from_secs(300);
const DAY_MS: i64 = 86_400_000;

#[derive(Debug, Default)]
pub(super) struct Money {
    accounts: Mutex<Accounts>,
    /// Held while settlements are written and while a purse is read, so that nobody sees one half of it.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Accounts {
    purses: HashMap<UserId, Known<Purse>>,
    keys: HashMap<KeyId, Known<KeySpending>>,
}

#[derive(Debug)]
struct Known<T> {
    value: T,
    /// The security epoch in which it was read: a later one may mean that credits were taken away.
    epoch: u64,
    read_at: Instant,
}

/// Whose money it is, and what its spending is counted under: the first of the keys that came in each other's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payer {
    pub(super) user: UserId,
    pub(super) key: KeyId,
}

/// What a request was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) payer: Payer,
    pub(super) nano: i64,
    pub(super) charge: Charge,
}

impl Owed {
    pub(super) const fn nothing(payer: Payer) -> Self {
        Self { payer, nano: 0, charge: Charge::Nothing }
    }
}

impl Money {
    /// Whether it was last read so long ago that it is worth reading again.
    pub(super) fn is_old(&self, payer: Payer) -> bool {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.purses.get(&payer.user).is_none_or(|known| known.read_at.elapsed() >= READ_AGAIN)
    }

    /// Reads somebody's money from the database.
    pub(super) async fn read(&self, store: &Store, payer: Payer, epoch: u64) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let now = now_ms();
        let balance = store.balance(payer.user).await?.ok_or(StoreError::Missing("user"))?;
        let spent = store.spent(payer.key.into(), now).await?;
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.put(payer, balance, spent, now.div_euclid(DAY_MS), epoch);
        Ok(())
    }

    /// Sets aside the most that a request can cost, if the money is known as of this epoch.
    pub(super) fn hold(&self, payer: Payer, limits: &Spending, most: i64, epoch: u64) -> Result<Hold, NotHeld> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let (purse, key) = accounts.of(payer, epoch).ok_or(NotHeld::Unknown)?;
        key.roll(now_ms().div_euclid(DAY_MS));
        purse.hold(most, key, limits).map_err(NotHeld::Broke)
    }

    /// Gives back what was set aside for a request that does not go on.
    pub(super) fn release(&self, payer: Payer, hold: Hold) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((purse, key)) = accounts.of(payer, 0) {
            purse.release(hold, key);
        }
    }

    /// Charges a request that has ended, out of what was set aside for it. What nothing was set aside for costs nothing.
    pub(super) fn settle(&self, payer: Payer, limits: &Spending, reservation: Option<&Reservation>, ended: Ended) -> Owed {
        let nothing = Owed::nothing(payer);
        let Some(reservation) = reservation.filter(|reservation| reservation.free || reservation.nano > 0) else { return nothing };
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        // What something is set aside in is never forgotten.
        let Some((purse, key)) = accounts.of(payer, 0) else { return nothing };
        if !reservation.free {
            let nano = purse.charge(reservation.nano, ended.cost_nano, key, limits, ended.arrived_ms.div_euclid(DAY_MS));
            return if nano > 0 { Owed { nano, charge: Charge::Credits, ..nothing } } else { nothing };
        }
        if ended.came_to_something {
            purse.use_free(key);
            return Owed { charge: Charge::Free, ..nothing };
        }
        purse.release(Hold::Free, key);
        nothing
    }

    /// Keeps purses from being read while settlements are written.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// What was owed is in the database now. Who paid less than they owed is read again before their next request.
    pub(super) fn written(&self, owed: impl Iterator<Item = Owed>, paid_less: impl Fn(UserId) -> bool) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        for Owed { payer: Payer { user, key }, nano, charge } in owed.filter(|owed| owed.charge != Charge::Nothing) {
            if let Some(known) = accounts.purses.get_mut(&user) {
                known.value.written(nano, i32::from(charge == Charge::Free));
                if paid_less(user) {
                    known.epoch = 0;
                }
            }
            if let Some(known) = accounts.keys.get_mut(&key) {
                known.value.written(nano);
            }
        }
    }

    /// Forgets whom nobody has asked for lately.
    pub(super) fn tidy(&self) {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.purses.retain(|_, known| !known.value.is_idle() || known.read_at.elapsed() < IDLE);
        accounts.keys.retain(|_, known| !known.value.is_idle() || known.read_at.elapsed() < IDLE);
    }
}

/// How a request ended, as far as money goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) cost_nano: i64,
    pub(super) arrived_ms: i64,
    /// Whether the caller got anything; a free request that came to nothing was not one.
    pub(super) came_to_something: bool,
}

/// Why nothing was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotHeld {
    /// There is not enough, or may not be spent.
    Broke(Broke),
    /// The money is to be read first.
    Unknown,
}

impl Accounts {
    /// What is known as of this epoch.
    fn of(&mut self, payer: Payer, epoch: u64) -> Option<(&mut Purse, &mut KeySpending)> {
        let purse = self.purses.get_mut(&payer.user).filter(|known| known.epoch >= epoch)?;
        Some((&mut purse.value, &mut self.keys.get_mut(&payer.key)?.value))
    }

    fn put(&mut self, payer: Payer, balance: Balance, spent: Spent, day: i64, epoch: u64) {
        let read_at = Instant::now();
        self.purses
            .entry(payer.user)
            .and_modify(|known| {
                known.value.load(balance);
                (known.epoch, known.read_at) = (epoch, read_at);
            })
            .or_insert_with(|| Known { value: Purse::new(balance), epoch, read_at });
        // Nobody but this process spends, so that what is known already is newer.
        self.keys.entry(payer.key).and_modify(|known| known.read_at = read_at).or_insert_with(|| Known {
            value: KeySpending::new(day, spent),
            epoch,
            read_at,
        });
    }
}
