//! What the Lab wrote down, compared with itself and with what its clients saw.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use lab_server::store::{EntryKind, LedgerEntry, RequestRecord, SpendingWindow, Store, User};

use super::{
    crowd::{End, Head, Visit},
    menu::{Expected, course},
};

/// Everything of one Lab's database.
pub(super) struct Books {
    records: HashMap<String, RequestRecord>,
    ledger: Vec<LedgerEntry>,
    free: BTreeSet<String>,
}

/// How many there were of what.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Answers that came whole and cost exactly what they must.
    pub(super) exact: usize,
    /// Of these, free ones of a new account.
    pub(super) free: usize,
    /// Answers whose tokens the Lab counted.
    pub(super) estimated: usize,
    /// Refusals with a record.
    pub(super) refused: usize,
    /// Refusals without.
    pub(super) outside: usize,
    /// Answers that their clients gave up.
    pub(super) hung_up: usize,
    /// Answers that broke off under their clients' eyes.
    pub(super) broken: usize,
    /// Records of requests that a kill interrupted.
    pub(super) interrupted: usize,
    /// Records of requests of which no client saw a head.
    pub(super) unseen: usize,
}

impl Books {
    /// Reads the database of a Lab that has ended, and checks its sums against one another, for each person who was given so much.
    pub(super) async fn read(store: &Store, people: &[(User, i64)]) -> Self {
        let mut books = Self { records: HashMap::new(), ledger: Vec::new(), free: BTreeSet::new() };
        for (user, given) in people {
            let records = store.requests(user.id).await.unwrap();
            let ledger = store.ledger(user.id, None, u64::from(u32::MAX)).await.unwrap();
            let balance = store.balance(user.id).await.unwrap().unwrap();
            let sum =
                |kind: EntryKind| ledger.iter().filter(|entry| entry.kind == kind).map(|entry| entry.amount_nano).sum::<i64>();
            let cost: i64 = records.iter().map(|record| record.cost_nano).sum();
            println!("{}: {} records cost {cost}, {} entries, {balance:?}", user.name, records.len(), ledger.len());
            assert_eq!(sum(EntryKind::Grant), *given, "{}: what was given", user.name);
            assert_eq!(sum(EntryKind::Usage), -cost, "{}: the ledger's usage is the records' cost", user.name);
            assert_eq!(given - cost, balance.balance_nano, "{}: the balance is what was given less what it cost", user.name);
            assert_eq!(store.ledger_sum(user.id).await.unwrap(), balance.balance_nano, "{}", user.name);
            let free: BTreeSet<String> =
                ledger.iter().filter(|entry| entry.kind == EntryKind::Free).filter_map(|entry| entry.request.clone()).collect();
            assert_eq!(free.len() as i32, lab_server::store::FREE_REQUESTS - balance.free_requests_left, "{}", user.name);
            check_entries(&records, &ledger);
            check_spending(store, &records).await;
            for record in records {
                let other = books.records.insert(record.id.clone(), record);
                assert_eq!(other, None, "a record stands there twice");
            }
            books.free.extend(free);
            books.ledger.extend(ledger);
        }
        books
    }

    /// Checks what the clients saw against the records.
    pub(super) fn check(&self, visits: &[Visit]) -> Tally {
        let mut tally = Tally::default();
        let mut seen = BTreeSet::new();
        for visit in visits {
            let course = course(visit.number);
            let Some(head) = &visit.head else { continue };
            assert!(seen.insert(head.id.as_str()), "the id {} was given twice", head.id);
            let record = self.records.get(&head.id);
            if is_outside(head) {
                assert_eq!(record, None, "{visit:?} was not let in");
                tally.outside += 1;
                continue;
            }
            if head.code.as_deref() == Some("unavailable") && record.is_none() {
                // Whether it was let in before the Lab found out that it cannot write is not to be seen from outside.
                tally.outside += 1;
                continue;
            }
            let record = record.unwrap_or_else(|| panic!("no record of {visit:?} {course:?}"));
            if record.outcome == "interrupted" {
                assert_ne!(visit.end, End::Whole, "{visit:?} was answered whole: {record:?}");
                continue;
            }
            match visit.end {
                End::HungUp => tally.hung_up += 1,
                End::Broken => tally.broken += 1,
                End::Whole => self.check_whole(visit, head, record, &mut tally),
            }
            assert_eq!(i32::from(head.status), record.status, "{visit:?} {record:?}");
        }
        for record in self.records.values() {
            tally.unseen += usize::from(!seen.contains(record.id.as_str()));
            if record.outcome == "interrupted" {
                let counts = (record.cost_nano, record.status, record.input_tokens, record.output_tokens);
                assert_eq!(counts, (0, 499, None, None), "{record:?}");
                tally.interrupted += 1;
            }
        }
        tally
    }

    fn check_whole(&self, visit: &Visit, head: &Head, record: &RequestRecord, tally: &mut Tally) {
        let course = course(visit.number);
        let what = || format!("{visit:?} {course:?} {record:?}");
        if let Some(code) = &head.code {
            assert_eq!((record.outcome.as_str(), record.cost_nano), (code.as_str(), 0), "{}", what());
            let money = ["key_spend_limit", "trial_exhausted", "in_flight_budget_exhausted"];
            let is_expected = match course.expected {
                Expected::Refused(expected) => code == expected,
                Expected::Odd => !money.contains(&code.as_str()),
                _ => money.contains(&code.as_str()) || code == "unavailable",
            };
            assert!(is_expected, "{}", what());
            tally.refused += 1;
            return;
        }
        match course.expected {
            Expected::Exact(tokens, cost) => {
                let counts = (record.input_tokens, record.output_tokens, record.estimated, record.outcome.as_str());
                // An embedding has no answer's tokens to count.
                let output = Some(tokens.output()).filter(|output| *output > 0);
                assert_eq!(counts, (Some(tokens.input()), output, false, "complete"), "{}", what());
                assert_eq!(record.cost_nano, if self.free.contains(&record.id) { 0 } else { cost }, "{}", what());
                tally.exact += 1;
                tally.free += usize::from(self.free.contains(&record.id));
            }
            Expected::Estimated(price) => {
                let (Some(input), Some(output)) = (record.input_tokens, record.output_tokens) else { panic!("{}", what()) };
                let cost = if self.free.contains(&record.id) { 0 } else { price.of_counts(input, output) };
                assert_eq!((record.estimated, record.outcome.as_str(), record.cost_nano), (true, "complete", cost), "{}", what());
                assert!(input > 0 && output > 0, "{}", what());
                tally.estimated += 1;
            }
            Expected::Free => assert_eq!((record.cost_nano, record.outcome.as_str()), (0, "complete"), "{}", what()),
            Expected::Odd => {}
            Expected::Refused(_) | Expected::Outside => panic!("it was answered: {}", what()),
        }
    }

    /// What all of them cost.
    pub(super) fn cost(&self) -> i64 {
        self.records.values().map(|record| record.cost_nano).sum()
    }

    /// How many records there are.
    pub(super) fn records(&self) -> usize {
        self.records.len()
    }

    /// How many entries the ledger has.
    pub(super) fn entries(&self) -> usize {
        self.ledger.len()
    }
}

/// Whether a request was not let in, so that there is nobody for whom a record could be kept.
fn is_outside(head: &Head) -> bool {
    matches!(head.code.as_deref(), Some("missing_api_key" | "invalid_api_key" | "key_scope"))
}

/// Each entry is for one request, once, and says what its record says.
fn check_entries(records: &[RequestRecord], ledger: &[LedgerEntry]) {
    let by_id: HashMap<&str, &RequestRecord> = records.iter().map(|record| (record.id.as_str(), record)).collect();
    assert_eq!(by_id.len(), records.len(), "each record once");
    let mut charged = BTreeSet::new();
    for entry in ledger.iter().filter(|entry| matches!(entry.kind, EntryKind::Usage | EntryKind::Free)) {
        let request = entry.request.as_deref().unwrap_or_else(|| panic!("{entry:?}"));
        let record = by_id.get(request).unwrap_or_else(|| panic!("an entry without a record: {entry:?}"));
        assert!(charged.insert(request), "charged twice: {entry:?}");
        assert_eq!(entry.amount_nano, -record.cost_nano, "{entry:?} {record:?}");
        assert_eq!((entry.key.as_deref(), entry.project.as_deref()), (Some(&*record.key), Some(&*record.project)));
        assert_eq!(entry.amount_nano == 0, entry.kind == EntryKind::Free, "{entry:?}");
    }
    let costly = records.iter().filter(|record| record.cost_nano != 0);
    assert!(
        costly.clone().all(|record| record.cost_nano > 0 && charged.contains(record.id.as_str())),
        "charged and not in the ledger"
    );
}

/// What each key has spent in each window is the sum of its records there.
async fn check_spending(store: &Store, records: &[RequestRecord]) {
    let mut spent: BTreeMap<(&str, SpendingWindow, String), (i64, i64)> = BTreeMap::new();
    for record in records {
        for window in SpendingWindow::ALL {
            let sum = spent.entry((&record.key, window, window.bucket(record.time))).or_insert((0, record.time));
            sum.0 += record.cost_nano;
        }
    }
    for ((key, window, bucket), (sum, time)) in spent {
        let stored = store.spent(key.parse().unwrap(), time).await.unwrap();
        let stored = match window {
            SpendingWindow::Day => stored.day,
            SpendingWindow::Month => stored.month,
            SpendingWindow::Total => stored.total,
        };
        assert_eq!(stored, sum, "{key} in its {window:?} {bucket}");
    }
}
