//! How requests that have ended come into the database: record, charge and what the key has spent, in one transaction.
//!
//! A settlement counts once, by its request, however often it is written. Nobody is charged more than they have: when the balance was
//! lowered behind a running request, the charge and the record are lowered with it, so that the sums stay equal.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, Statement, Value};
use serde::{Deserialize, Serialize};

use super::{EntryKind, RequestRecord, SpendingWindow, Store, StoreError, api_keys, balances, spending, spending::DAY_MS};

/// A request that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Its record; its `cost_nano` is what is charged.
    pub record: RequestRecord,
    /// What for.
    pub charge: Charge,
}

/// What a request is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Charge {
    /// Nothing: it cost nothing, or came to nothing.
    Nothing,
    /// One of the free requests.
    Free,
    /// The credits.
    Credits,
}

/// Rows in one statement at most: some 5,000 values, of SQLite's 32,766 and PostgreSQL's 65,535.
const CHUNK: usize = 256;

impl Store {
    /// Writes settlements, all or none, and gives the people whose charge had to be lowered. What is there already is left as it is,
    /// so that a batch may be tried again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_settlements<S: Sync>(&self, batch: &[S]) -> Result<BTreeSet<String>, StoreError>
    where
        for<'a> Settlement: From<&'a S>,
    {
        // That something is there already happens only when the journal is read again, so that nobody looks before it is seen.
        match self.try_write(charged(batch), AlreadyThere::Nothing).await? {
            Some(lowered) => Ok(lowered),
            None => Ok(self.try_write(charged(batch), AlreadyThere::Maybe).await?.unwrap_or_default()),
        }
    }

    /// `None`, and nothing is written, when something was there already against what was believed.
    async fn try_write(&self, mut charges: Vec<Charged>, there: AlreadyThere) -> Result<Option<BTreeSet<String>>, StoreError> {
        let transaction = self.write().await?;
        if there == AlreadyThere::Maybe {
            let mut known = known(&transaction, &charges).await?;
            charges.retain(|charged| known.insert(charged.record.id.clone()));
        }
        let lowered = take(&transaction, &mut charges).await?;
        let entries: Vec<&Charged> = charges.iter().filter(|charged| charged.kind != Charge::Nothing).collect();
        let mut rest = &entries[..];
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(chunk(rest.len()));
            if insert_entries(&transaction, chunk).await? < chunk.len() as u64 {
                // Dropped, a transaction is taken back.
                return Ok(None);
            }
            rest = later;
        }
        spend(&transaction, &charges).await?;
        let mut rest = charges.into_iter();
        while rest.len() > 0 {
            let rows = chunk(rest.len());
            if insert_requests(&transaction, rest.by_ref().take(rows)).await? < rows as u64 {
                return Ok(None);
            }
        }
        transaction.commit().await?;
        Ok(Some(lowered))
    }
}

/// How many of so many rows go into the next statement: a power of two, because each number is a statement of its own that is
/// parsed the first time, and remembered.
fn chunk(rows: usize) -> usize {
    rows.checked_ilog2().map_or(0, |power| CHUNK.min(1 << power))
}

impl From<&Self> for Settlement {
    fn from(settlement: &Self) -> Self {
        settlement.clone()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AlreadyThere {
    Nothing,
    Maybe,
}

/// A settlement with what it is charged in the end.
struct Charged {
    record: RequestRecord,
    kind: Charge,
    nano: i64,
}

impl Charged {
    fn new(Settlement { record, charge }: Settlement) -> Self {
        let nano = record.cost_nano.max(0);
        let (kind, nano) = match charge {
            Charge::Credits if nano > 0 => (Charge::Credits, nano),
            Charge::Free => (Charge::Free, 0),
            Charge::Credits | Charge::Nothing => (Charge::Nothing, 0),
        };
        Self { record, kind, nano }
    }
}

fn charged<S>(batch: &[S]) -> Vec<Charged>
where
    for<'a> Settlement: From<&'a S>,
{
    batch.iter().map(|settlement| Charged::new(settlement.into())).collect()
}

/// Takes what everybody owes from their balances; where there is less, lowers the charges to it, first come, first served.
async fn take(db: &DatabaseTransaction, charges: &mut [Charged]) -> Result<BTreeSet<String>, StoreError> {
    let mut owed: HashMap<String, (i64, i32)> = HashMap::new();
    for charged in charges.iter().filter(|charged| charged.kind != Charge::Nothing) {
        let (nano, free) = match owed.get_mut(&charged.record.user) {
            Some(sums) => sums,
            None => owed.entry(charged.record.user.clone()).or_default(),
        };
        *nano = nano.saturating_add(charged.nano);
        *free += i32::from(charged.kind == Charge::Free);
    }
    let mut lowered = BTreeSet::new();
    for (user, (nano, free)) in owed {
        if balances::take(db, &user, nano, free).await? {
            continue;
        }
        let (balance, free_left) = balances::read(db, &user).await?;
        let (mut left, mut free_now) = (balance, free_left);
        for charged in charges.iter_mut().filter(|charged| charged.record.user == user) {
            charged.nano = charged.nano.min(left);
            left -= charged.nano;
            match charged.kind {
                Charge::Free if free_now == 0 => charged.kind = Charge::Nothing,
                Charge::Free => free_now -= 1,
                Charge::Credits if charged.nano == 0 => charged.kind = Charge::Nothing,
                Charge::Credits | Charge::Nothing => {}
            }
        }
        balances::take(db, &user, balance - left, free_left - free_now).await?;
        lowered.insert(user);
    }
    Ok(lowered)
}

/// Adds what keys have spent. A request counts in the windows of its arrival, and under the key that its own counts as.
async fn spend(db: &DatabaseTransaction, charges: &[Charged]) -> Result<(), StoreError> {
    let mut spent: BTreeMap<(&str, i64), i64> = BTreeMap::new();
    for charged in charges.iter().filter(|charged| charged.nano > 0) {
        let sum = spent.entry((&charged.record.key, charged.record.time.div_euclid(DAY_MS))).or_default();
        *sum = sum.saturating_add(charged.nano);
    }
    for ((key, day), nano) in spent {
        let counts_as = api_keys::counts_as(db, key).await?;
        for window in SpendingWindow::ALL {
            spending::add(db, &counts_as, window, &window.bucket(day * DAY_MS), nano).await?;
        }
    }
    Ok(())
}

/// Those of the requests that are in the database already, as a record or as an entry of the ledger.
async fn known(db: &DatabaseTransaction, batch: &[Charged]) -> Result<BTreeSet<String>, StoreError> {
    let mut known = BTreeSet::new();
    for chunk in batch.chunks(CHUNK) {
        for sql in ["SELECT id FROM requests WHERE id IN (", "SELECT idempotency_key FROM ledger WHERE idempotency_key IN ("] {
            let mut sql = sql.to_owned();
            placeholders(db.get_database_backend(), &mut sql, 1, chunk.len());
            sql.push(')');
            let ids = chunk.iter().map(|charged| Value::from(charged.record.id.clone()));
            for row in db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, ids)).await? {
                known.insert(row.try_get_by_index::<String>(0)?);
            }
        }
    }
    Ok(known)
}

/// By hand and not through the query builder, which takes longer than the database: this is the busiest statement of all.
async fn insert_requests(db: &DatabaseTransaction, rows: impl ExactSizeIterator<Item = Charged> + Send) -> Result<u64, StoreError> {
    const COLUMNS: usize = 19;
    let count = rows.len();
    let mut values: Vec<Value> = Vec::with_capacity(count * COLUMNS);
    for Charged { record, nano, .. } in rows {
        values.extend::<[Value; COLUMNS]>([
            record.id.into(),
            record.time.into(),
            record.model.into(),
            record.operation.into(),
            record.device.into(),
            record.provider.into(),
            record.input_tokens.into(),
            record.output_tokens.into(),
            nano.into(),
            record.user.into(),
            record.project.into(),
            record.key.into(),
            record.latency_ms.into(),
            record.first_token_ms.into(),
            record.stream.into(),
            record.status.into(),
            record.outcome.into(),
            record.estimated.into(),
            record.prices.into(),
        ]);
    }
    let columns = "id, time, model, operation, device, provider, input_tokens, output_tokens, cost_nano, \"user\", project, key, \
                   latency_ms, first_token_ms, stream, status, outcome, estimated, prices";
    let sql = insert(db.get_database_backend(), "requests", columns, COLUMNS, count, values);
    Ok(db.execute_raw(sql).await?.rows_affected())
}

async fn insert_entries(db: &DatabaseTransaction, chunk: &[&Charged]) -> Result<u64, StoreError> {
    const COLUMNS: usize = 8;
    let mut values: Vec<Value> = Vec::with_capacity(chunk.len() * COLUMNS);
    for Charged { record, kind, nano } in chunk {
        let kind = if *kind == Charge::Free { EntryKind::Free } else { EntryKind::Usage };
        values.extend::<[Value; COLUMNS]>([
            record.time.into(),
            record.user.clone().into(),
            kind.as_str().into(),
            (-nano).into(),
            record.id.clone().into(),
            record.id.clone().into(),
            record.project.clone().into(),
            record.key.clone().into(),
        ]);
    }
    let columns = "time, user_id, kind, amount_nano, idempotency_key, request, project, key";
    let sql = insert(db.get_database_backend(), "ledger", columns, COLUMNS, chunk.len(), values);
    Ok(db.execute_raw(sql).await?.rows_affected())
}

fn insert(backend: DbBackend, table: &str, columns: &str, width: usize, rows: usize, values: Vec<Value>) -> Statement {
    let mut sql = format!("INSERT INTO {table} ({columns}) VALUES ");
    for row in 0..rows {
        sql.push_str(if row > 0 { ",(" } else { "(" });
        placeholders(backend, &mut sql, row * width + 1, width);
        sql.push(')');
    }
    sql.push_str(" ON CONFLICT DO NOTHING");
    Statement::from_sql_and_values(backend, sql, values)
}

/// `?,?,…` or `$1,$2,…`. SQLite reads the second too, but looks for each name among all that came before.
fn placeholders(backend: DbBackend, sql: &mut String, first: usize, count: usize) {
    use std::fmt::Write;

    for n in first..first + count {
        sql.push_str(if n > first { "," } else { "" });
        match backend {
            // Writing to a text cannot fail.
            DbBackend::Postgres => _ = write!(sql, "${n}"),
            _ => sql.push('?'),
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::UserId;

    use super::*;
    use crate::store::{now_ms, sample, scratch::Scratch};

    fn settlement(user: UserId, cost_nano: i64, charge: Charge) -> Settlement {
        Settlement { record: RequestRecord { cost_nano, ..sample::record(user, now_ms()) }, charge }
    }

    async fn check(scratch: &Scratch, user: UserId, granted: i64, charged: i64, free: i32) {
        let store = &scratch.store;
        let records = store.requests(user).await.unwrap();
        assert_eq!(records.iter().map(|record| record.cost_nano).sum::<i64>(), charged);
        assert_eq!(store.ledger_sum(user).await.unwrap(), granted - charged);
        let balance = store.balance(user).await.unwrap().unwrap();
        assert_eq!((balance.balance_nano, balance.free_requests_left), (granted - charged, free));
        let kid = "0123456789ab".parse().unwrap();
        assert_eq!(store.spent(kid, now_ms()).await.unwrap().total, charged);
    }

    #[tokio::test]
    async fn a_settlement_counts_once_however_often_it_is_written() {
        let scratch = Scratch::new().await;
        let ada = scratch.store.add_user("ada").await.unwrap().id;
        scratch.store.grant(ada, 1000, "g").await.unwrap();
        let mut batch: Vec<_> = (0..600).map(|_| settlement(ada, 1, Charge::Credits)).collect();
        batch.push(settlement(ada, 99, Charge::Free));
        batch.push(settlement(ada, 99, Charge::Nothing));
        batch.push(settlement(ada, -5, Charge::Credits));
        assert_eq!(scratch.store.write_settlements(&batch[..10]).await.unwrap(), BTreeSet::new());
        for _ in 0..2 {
            assert_eq!(scratch.store.write_settlements(&batch).await.unwrap(), BTreeSet::new());
            check(&scratch, ada, 1000, 600, 19).await;
        }
        // Twice in one batch, as a journal that was torn might tell it.
        let twice = settlement(ada, 3, Charge::Credits);
        scratch.store.write_settlements(&[twice.clone(), twice]).await.unwrap();
        check(&scratch, ada, 1000, 603, 19).await;
    }

    #[tokio::test]
    async fn nobody_pays_more_than_they_have() {
        let scratch = Scratch::new().await;
        let ada = scratch.store.add_user("ada").await.unwrap().id;
        scratch.store.grant(ada, 10, "g").await.unwrap();
        let mut batch: Vec<_> = [4, 4, 4, 4].map(|nano| settlement(ada, nano, Charge::Credits)).into();
        batch.extend((0..21).map(|_| settlement(ada, 0, Charge::Free)));
        let lowered = scratch.store.write_settlements(&batch).await.unwrap();
        assert_eq!(lowered, BTreeSet::from([ada.to_string()]));
        check(&scratch, ada, 10, 10, 0).await;
        let records = scratch.store.requests(ada).await.unwrap();
        let cost = |settlement: &Settlement| records.iter().find(|record| record.id == settlement.record.id).unwrap().cost_nano;
        let costs: Vec<i64> = batch[..4].iter().map(cost).collect();
        assert_eq!(costs, [4, 4, 2, 0]);
    }

    #[tokio::test]
    async fn old_requests_are_forgotten_and_what_they_cost_is_not() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let ada = store.add_user("ada").await.unwrap().id;
        store.grant(ada, 10, "g").await.unwrap();
        let mut old = settlement(ada, 3, Charge::Credits);
        old.record.time -= 1000;
        let new = settlement(ada, 4, Charge::Credits);
        store.write_settlements(&[old.clone(), new.clone()]).await.unwrap();
        assert_eq!(store.purge_requests(new.record.time).await.unwrap(), 1);
        let kept: Vec<_> = store.ledger(ada, None, 10).await.unwrap().into_iter().map(|e| (e.amount_nano, e.request)).collect();
        assert_eq!(kept, [(-4, Some(new.record.id)), (-3, None), (10, None)]);
        // A journal that is read again after so long charges nobody twice.
        store.write_settlements(&[old]).await.unwrap();
        assert_eq!(store.ledger_sum(ada).await.unwrap(), 3);
        assert_eq!(store.balance(ada).await.unwrap().unwrap().balance_nano, 3);
    }

    #[tokio::test]
    async fn a_record_is_small() {
        use sea_orm::ConnectionTrait;

        let scratch = Scratch::new().await;
        let ada = scratch.store.add_user("ada").await.unwrap().id;
        // As large as one can get: only workstations have models of such names, and they have neither provider nor prices. Numbers
        // count as eight bytes.
        let record = RequestRecord {
            model: "m".repeat(wire::ModelName::MAX_LEN),
            operation: "o".repeat(32),
            prices: None,
            input_tokens: Some(i64::MAX),
            output_tokens: Some(i64::MAX),
            ..sample::record(ada, now_ms())
        };
        let typical = sample::record(ada, now_ms());
        for (record, most) in [(typical, 256), (record, 512)] {
            scratch.store.write_settlements(&[sample::settled(&record)]).await.unwrap();
            let columns = "id time model operation device provider input_tokens output_tokens cost_nano user project key latency_ms \
                           first_token_ms stream status outcome estimated prices";
            let size: Vec<_> = columns
                .split_whitespace()
                .map(|c| format!("CASE typeof(\"{c}\") WHEN 'text' THEN length(\"{c}\") WHEN 'integer' THEN 8 ELSE 0 END"))
                .collect();
            let sql = format!("SELECT {} FROM requests WHERE id = '{}'", size.join(" + "), record.id);
            let row = scratch.store.db.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap().unwrap();
            let bytes: i64 = row.try_get_by_index(0).unwrap();
            assert!(bytes <= most, "{bytes}");
        }
    }
}
