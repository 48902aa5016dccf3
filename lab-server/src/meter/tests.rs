use std::{
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, atomic::AtomicUsize},
};

use api_proxy::{Catalogue, Endpoint, KeyId, Meter as _, Model, PresentedKey as Shown};
use wire::{ModelName, UserId};

use super::*;
use crate::{
    account::{
        api_key::{Environment, NewKey},
        create_key,
    },
    store::{KeyTerms, RequestFilter, Scopes, Spending, scratch::Scratch},
};

const CHAT: Surface = Surface::Model(Endpoint::OpenaiChat);
const LISTING: Surface = Surface::Listing(api_proxy::Listing::Models);

/// A Lab's meter with one person, one project and one key.
struct World {
    meter: Meter,
    scratch: Scratch,
    user: UserId,
    project: ProjectId,
    key: NewKey,
}

impl World {
    async fn new() -> Self {
        Self::with(KeyTerms::default()).await
    }

    async fn with(terms: KeyTerms) -> Self {
        let scratch = Scratch::new().await;
        let user = scratch.store.add_user("ada").await.unwrap().id;
        let project = scratch.store.add_project(user, "default").await.unwrap().id;
        let (key, _) = create_key(&scratch.store, project, "test", terms).await.unwrap();
        let meter = start(&scratch).await;
        Self { meter, scratch, user, project, key }
    }

    fn store(&self) -> &Store {
        &self.scratch.store
    }

    /// Ends without a last word, as by kill -9, and begins again from the same folder.
    async fn crash(mut self) -> Self {
        let Self { meter, scratch, .. } = self;
        drop(meter);
        self.meter = start(&scratch).await;
        self.scratch = scratch;
        self
    }

    /// What is free is used up, and so much is given.
    async fn only_credits(&self, nano: i64) {
        use sea_orm::ConnectionTrait;

        let db = sea_orm::Database::connect(format!("sqlite:{}", self.scratch.dir.join("lab.sqlite").display())).await.unwrap();
        db.execute_unprepared("UPDATE balances SET free_requests_left = 0").await.unwrap();
        db.close().await.unwrap();
        if nano > 0 {
            self.store().grant(self.user, nano, "first").await.unwrap();
        }
    }

    async fn admit(&self) -> Result<Caller, NotAdmitted> {
        self.meter.admit(Shown::new(self.key.reveal()), CHAT).await.map(|admitted| admitted.caller)
    }

    /// One whole request, up to its settlement.
    async fn reserve(&self, most_nano: i64) -> Result<Running, NotReserved> {
        let caller = self.admit().await.unwrap();
        let running = Running::new(caller);
        let ask = running.ask(most_nano, 0);
        match self.meter.reserve(&caller, Ask { model: AskedModel::Cloud(&model()), ..ask }).await {
            Ok(reservation) => Ok(Running { reservation: Some(reservation), ..running }),
            Err(refused) => {
                self.meter.settle(running.record(0, RecordOutcome::Failed("refused")), None);
                Err(refused)
            }
        }
    }

    fn settle(&self, running: &Running, cost_nano: i64, outcome: RecordOutcome) {
        self.meter.settle(running.record(cost_nano, outcome), running.reservation);
    }

    /// What must always be: the ledger, the records and the balance say the same.
    async fn check_sums(&self, granted: i64) -> i64 {
        let store = self.store();
        let cost: i64 = store.requests(self.user).await.unwrap().iter().map(|record| record.cost_nano).sum();
        assert_eq!(store.ledger_sum(self.user).await.unwrap(), granted - cost);
        assert_eq!(store.balance(self.user).await.unwrap().unwrap().balance_nano, granted - cost);
        assert_eq!(store.spent(self.key.kid(), now_ms()).await.unwrap().total, cost);
        cost
    }

    /// Nothing is set aside and nobody counts as running.
    fn check_idle(&self) {
        assert_eq!(self.meter.load(), Load { running: 0, unwritten: 0 });
        assert_eq!(self.meter.0.in_flight.available_permits(), IN_FLIGHT);
    }
}

async fn start(scratch: &Scratch) -> Meter {
    let revocations = Revocations::follow(scratch.store.clone()).await.unwrap();
    try_start(scratch, revocations).await.unwrap()
}

async fn try_start(scratch: &Scratch, revocations: Revocations) -> Result<Meter, JournalError> {
    Meter::start(scratch.store.clone(), revocations, &journal(scratch), DefaultRates::default(), |_| ()).await
}

fn journal(scratch: &Scratch) -> PathBuf {
    scratch.dir.join("journal")
}

fn model() -> Arc<Model> {
    static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| Catalogue::embedded().unwrap());
    Arc::clone(CATALOGUE.find("gpt-5-mini").unwrap())
}

/// A request that was admitted.
#[derive(Clone, Copy)]
struct Running {
    request: RequestId,
    caller: Caller,
    reservation: Option<Reservation>,
}

impl Running {
    fn new(caller: Caller) -> Self {
        Self { request: RequestId::random(), caller, reservation: None }
    }

    fn ask<'a>(&self, most_nano: i64, most_tokens: u64) -> Ask<'a> {
        static LOCAL: LazyLock<ModelName> = LazyLock::new(|| "tiny".parse().unwrap());
        Ask {
            request: self.request,
            time: SystemTime::now(),
            surface: CHAT,
            model: AskedModel::Local(&LOCAL),
            most_nano,
            most_tokens,
            stream: true,
        }
    }

    fn record(&self, cost_nano: i64, outcome: RecordOutcome) -> Record {
        let answered = outcome == RecordOutcome::Complete;
        Record {
            request: self.request,
            time: SystemTime::now(),
            model: Some("gpt-5-mini".into()),
            operation: CHAT,
            device: None,
            provider: None,
            input_tokens: Some(7),
            output_tokens: answered.then_some(3),
            estimated: false,
            cost_nano,
            prices: None,
            user: self.caller.user,
            project: self.caller.project,
            key: self.caller.key,
            latency_ms: 1,
            first_byte_ms: None,
            stream: true,
            status: 200,
            outcome,
        }
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_though_it_was_believed() {
    let world = World::new().await;
    let text = world.key.reveal().to_owned();
    let caller = world.admit().await.unwrap();
    assert_eq!((caller.project, caller.key), (world.project, KeyId::from(world.key.kid())));
    assert_eq!(world.admit().await, Ok(caller));
    let refused = async |text: &str| world.meter.admit(Shown::new(text), CHAT).await.map(|_| ()).unwrap_err();
    assert_eq!(refused(&text[..70]).await, NotAdmitted::Malformed);
    assert_eq!(refused(NewKey::generate(Environment::Live).reveal()).await, NotAdmitted::Unknown);
    world.meter.0.revocations.revoke_key(world.key.kid()).await.unwrap();
    assert_eq!(refused(&text).await, NotAdmitted::Unknown);
    assert_eq!(world.meter.load().running, 2);
}

#[tokio::test]
async fn nobody_is_admitted_after_the_revocation_and_what_runs_is_cut_off() {
    let world = Arc::new(World::new().await);
    let revoked = Arc::new(AtomicBool::new(false));
    let (late, admitted) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (world, revoked, late, admitted) = (world.clone(), revoked.clone(), late.clone(), admitted.clone());
            tokio::spawn(async move {
                loop {
                    let after = revoked.load(Ordering::SeqCst);
                    match world.meter.admit(Shown::new(world.key.reveal()), CHAT).await {
                        Ok(got) if after => {
                            late.fetch_add(1, Ordering::SeqCst);
                            drop(got);
                        }
                        Ok(got) => {
                            admitted.lock().unwrap().push(got.leash.clone());
                            world.settle(&Running::new(got.caller), 0, RecordOutcome::Complete);
                        }
                        Err(refused) => {
                            assert_eq!(refused, NotAdmitted::Unknown);
                            return;
                        }
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let kept = world.meter.admit(Shown::new(world.key.reveal()), CHAT).await.unwrap();
    while admitted.lock().unwrap().len() < 1000 {
        tokio::task::yield_now().await;
    }
    world.meter.0.revocations.revoke_key(world.key.kid()).await.unwrap();
    revoked.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(late.load(Ordering::SeqCst), 0);
    tokio::time::timeout(Duration::from_secs(1), kept.leash.cancelled()).await.unwrap();
    world.settle(&Running::new(kept.caller), 0, RecordOutcome::Cancelled);
    world.meter.flush().await;
    world.check_idle();
}

#[tokio::test]
async fn a_key_that_is_revoked_while_it_is_looked_up_is_refused() {
    loop {
        let world = World::new().await;
        let mut looked_up = std::pin::pin!(world.admit());
        // The database is asked, and the answer not taken yet; unless it was faster than this thread, which proves nothing.
        if futures_util::poll!(looked_up.as_mut()).is_ready() {
            continue;
        }
        world.meter.0.revocations.revoke_key(world.key.kid()).await.unwrap();
        assert_eq!(looked_up.await, Err(NotAdmitted::Unknown));
        assert_eq!(world.meter.load().running, 0);
        return;
    }
}

#[tokio::test]
async fn a_key_is_cut_off_by_other_processes_by_its_projects_end_and_by_its_expiry() {
    let cut = async |terms: KeyTerms, end: fn(Store, UserId, ProjectId, NewKey) -> tokio::task::JoinHandle<()>| {
        let world = World::with(terms).await;
        let admitted = world.meter.admit(Shown::new(world.key.reveal()), CHAT).await.unwrap();
        assert!(!admitted.leash.is_cancelled());
        // A connection of its own, as another process would have.
        let elsewhere = Scratch::open(&world.scratch.dir).await;
        let text = world.key.reveal().to_owned();
        end(elsewhere, world.user, world.project, world.key).await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), admitted.leash.cancelled()).await.unwrap();
        assert_eq!(world.meter.admit(Shown::new(&text), CHAT).await.map(|_| ()), Err(NotAdmitted::Unknown));
    };
    cut(KeyTerms::default(), |store, _, _, key| tokio::spawn(async move { store.revoke_key(key.kid()).await.map(drop).unwrap() }))
        .await;
    cut(KeyTerms::default(), |store, user, project, _| {
        tokio::spawn(async move { store.delete_project(user, project).await.map(drop).unwrap() })
    })
    .await;
    let soon = KeyTerms { expires_at: Some(now_ms() + 700), ..KeyTerms::default() };
    cut(soon, |_, _, _, _| tokio::spawn(async {})).await;
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_and_patterns_say() {
    let usage = KeyTerms { scopes: [Scope::Usage].into_iter().collect::<Scopes>(), ..KeyTerms::default() };
    let world = World::with(usage).await;
    for surface in [CHAT, LISTING] {
        let refused = world.meter.admit(Shown::new(world.key.reveal()), surface).await.map(|_| ());
        assert_eq!(refused, Err(NotAdmitted::Scope));
    }
    assert_eq!(world.meter.load().running, 0);

    let patterns = ["local/t*", "gpt-5"].map(|pattern| pattern.parse().unwrap()).to_vec();
    let world = World::with(KeyTerms { models: Some(patterns), ..KeyTerms::default() }).await;
    assert_eq!(world.reserve(1).await.map(|_| ()), Err(NotReserved::ModelNotAllowed));
    let caller = world.admit().await.unwrap();
    let running = Running::new(caller);
    assert!(world.meter.reserve(&caller, running.ask(0, 0)).await.is_ok());
    let other: ModelName = "other".parse().unwrap();
    let ask = Ask { model: AskedModel::Local(&other), ..running.ask(0, 0) };
    assert_eq!(world.meter.reserve(&caller, ask).await, Err(NotReserved::ModelNotAllowed));
    // The owner lets it have all.
    world.meter.0.revocations.update_key(world.user, world.key.kid(), |_, terms| terms.models = None).await.unwrap();
    assert!(world.reserve(1).await.is_ok());
}

#[tokio::test]
async fn limits_hold_for_the_key_and_come_back_with_the_settlement() {
    let rates = Rates {
        requests_per_minute: NonZeroU32::new(100),
        tokens_per_minute: NonZeroU32::new(1000),
        concurrent: NonZeroU32::new(2),
    };
    let world = World::with(KeyTerms { rates, ..KeyTerms::default() }).await;
    let admitted = world.meter.admit(Shown::new(world.key.reveal()), CHAT).await.unwrap();
    let quota = admitted.allowance.unwrap().requests.unwrap();
    assert_eq!((quota.limit, quota.remaining), (100, 99));
    let running = Running::new(admitted.caller);
    let reservation = world.meter.reserve(&admitted.caller, running.ask(0, 900)).await.unwrap();
    assert_eq!(reservation.allowance.unwrap().tokens.unwrap().remaining, 100);
    let second = Running::new(world.admit().await.unwrap());
    let too_much = world.meter.reserve(&second.caller, second.ask(0, 200)).await;
    assert!(matches!(too_much, Err(NotReserved::RateLimited { retry_after, .. }) if retry_after <= Duration::from_secs(6)));
    assert!(matches!(world.admit().await, Err(NotAdmitted::RateLimited { .. })));
    // Ten tokens were used.
    world.settle(&Running { reservation: Some(reservation), ..running }, 0, RecordOutcome::Complete);
    let again = world.meter.reserve(&second.caller, second.ask(0, 200)).await.unwrap();
    assert!((790..=800).contains(&again.allowance.unwrap().tokens.unwrap().remaining));
    world.settle(&Running { reservation: Some(again), ..second }, 0, RecordOutcome::Complete);
    world.meter.flush().await;
    world.check_idle();
}

#[tokio::test]
async fn every_record_is_written_once_and_found_before_that() {
    let world = World::new().await;
    let mut last = None;
    for _ in 0..200 {
        let running = Running::new(world.admit().await.unwrap());
        world.settle(&running, 0, RecordOutcome::Failed("bridge_offline"));
        let record = world.meter.record(world.project, running.request).await.unwrap().unwrap();
        assert_eq!((record.id, record.outcome.as_str()), (running.request.to_string(), "bridge_offline"));
        assert_eq!(world.meter.record(ProjectId::random(), running.request).await.unwrap(), None);
        last = Some(running.request);
    }
    world.meter.flush().await;
    world.check_idle();
    let records = world.store().requests(world.user).await.unwrap();
    assert_eq!(records.len(), 200);
    assert_eq!((records[0].input_tokens, records[0].output_tokens), (Some(7), None));
    assert!(world.meter.record(world.project, last.unwrap()).await.unwrap().is_some());
}

#[tokio::test]
async fn of_21_first_requests_at_once_20_are_free() {
    let world = World::new().await;
    let mut running = Vec::new();
    let mut refused = Vec::new();
    for outcome in futures_util::future::join_all((0..21).map(|_| world.reserve(5_000))).await {
        match outcome {
            Ok(request) => running.push(request),
            Err(error) => refused.push(error),
        }
    }
    assert_eq!((running.len(), refused), (20, vec![NotReserved::InFlight { retry_after_s: 1 }]));
    assert!(running.iter().all(|request| request.reservation.is_some_and(|held| held.free && held.nano == 0)));
    // One comes to nothing, and was none.
    let nothing = running.pop().unwrap();
    world.settle(&nothing, 0, RecordOutcome::Failed("upstream_error"));
    running.push(world.reserve(5_000).await.unwrap());
    for request in &running {
        world.settle(request, 4_000, RecordOutcome::Complete);
    }
    assert_eq!(world.reserve(5_000).await.map(|_| ()), Err(NotReserved::TrialExhausted));
    world.meter.flush().await;
    world.check_idle();
    assert_eq!(world.check_sums(0).await, 0);
    let free = world.store().ledger(world.user, None, 100).await.unwrap();
    assert_eq!((free.len(), free.iter().all(|entry| entry.kind == crate::store::EntryKind::Free)), (20, true));
    // Another process gives credits: the next request goes through without waiting for anything.
    tokio::time::sleep(Duration::from_millis(251)).await;
    world.store().grant(world.user, 5_000, "order").await.unwrap();
    let request = world.reserve(5_000).await.unwrap();
    assert_eq!(request.reservation.map(|held| (held.nano, held.free)), Some((5_000, false)));
    world.settle(&request, 4_000, RecordOutcome::Complete);
    assert_eq!(world.reserve(5_000).await.map(|_| ()), Err(NotReserved::InsufficientCredits));
    world.meter.flush().await;
    assert_eq!(world.check_sums(5_000).await, 4_000);
}

#[tokio::test]
async fn a_cent_holds_against_200_at_once() {
    let cent = 10_000_000;
    let spending = Spending { day: Some(cent), ..Spending::default() };
    let world = World::with(KeyTerms { spending, ..KeyTerms::default() }).await;
    world.only_credits(100 * cent).await;
    let most = cent / 4;
    let outcomes = futures_util::future::join_all((0..200).map(|_| world.reserve(most))).await;
    let running: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(running.len(), 4);
    let in_flight = |outcome: &&Result<Running, NotReserved>| matches!(outcome, Err(NotReserved::InFlight { .. }));
    assert_eq!(outcomes.iter().filter(in_flight).count(), 196);
    for request in &running {
        // Each costs more than was thought.
        world.settle(request, most * 3, RecordOutcome::Complete);
    }
    assert_eq!(world.reserve(1).await.map(|_| ()), Err(NotReserved::KeySpendLimit));
    world.meter.flush().await;
    assert_eq!(world.check_sums(100 * cent).await, cent);
    world.check_idle();
    // The window is kept through a restart.
    let world = world.crash().await;
    assert_eq!(world.reserve(1).await.map(|_| ()), Err(NotReserved::KeySpendLimit));
}

#[tokio::test]
async fn a_key_and_the_one_in_its_place_share_their_limits() {
    let rates = Rates { requests_per_minute: NonZeroU32::new(3), ..Rates::default() };
    let spending = Spending { total: Some(100), ..Spending::default() };
    let mut world = World::with(KeyTerms { spending, rates, ..KeyTerms::default() }).await;
    world.only_credits(1_000).await;
    let first = world.reserve(60).await.unwrap();
    let overlap = Duration::from_secs(3600);
    let (new, _) = world.meter.0.revocations.rotate_key(world.user, world.key.kid(), overlap).await.unwrap();
    let old = std::mem::replace(&mut world.key, new);
    // What the old one has set aside is not there for the new one, and what it has spent neither.
    assert_eq!(world.reserve(60).await.map(|_| ()), Err(NotReserved::InFlight { retry_after_s: WHEN_IN_FLIGHT_S }));
    world.settle(&first, 60, RecordOutcome::Complete);
    assert_eq!(world.reserve(60).await.map(|_| ()), Err(NotReserved::KeySpendLimit));
    world.meter.flush().await;
    assert_eq!(world.check_sums(1_000).await, 60);
    // Nor are three requests a minute six.
    for key in [&old, &world.key] {
        let refused = world.meter.admit(Shown::new(key.reveal()), CHAT).await.map(|_| ());
        assert!(matches!(refused, Err(NotAdmitted::RateLimited { .. })));
    }
}

#[tokio::test]
async fn more_tokens_than_any_model_takes_are_not_believed() {
    let world = World::new().await;
    let running = Running::new(world.admit().await.unwrap());
    let claim =
        Record { input_tokens: Some(u64::MAX), output_tokens: Some(u64::MAX), ..running.record(0, RecordOutcome::Complete) };
    world.meter.settle(claim, None);
    let record = world.meter.record(world.project, running.request).await.unwrap().unwrap();
    assert_eq!((record.input_tokens, record.output_tokens), (Some(1 << 32), Some(1 << 32)));
    assert_eq!(world.meter.record(ProjectId::random(), running.request).await.unwrap(), None);
    world.meter.flush().await;
    assert_eq!(world.meter.record(world.project, running.request).await.unwrap(), Some(record));
    world.check_idle();
}

#[tokio::test]
async fn credits_that_are_taken_away_behind_a_request_are_not_charged() {
    let world = World::new().await;
    world.only_credits(1_000).await;
    let request = world.reserve(900).await.unwrap();
    world.store().adjust(world.user, -800, "back").await.unwrap();
    world.settle(&request, 900, RecordOutcome::Complete);
    world.meter.flush().await;
    assert_eq!(world.check_sums(200).await, 200);
    assert_eq!(world.reserve(1).await.map(|_| ()), Err(NotReserved::InsufficientCredits));
}

/// A small generator of repeatable numbers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_sums_are_equal_whatever_happens_and_whenever_it_ends() {
    const GRANTED: i64 = 3_000_000;
    let mut world = World::new().await;
    world.only_credits(GRANTED).await;
    let mut settled = std::collections::BTreeSet::new();
    let mut left_open = std::collections::BTreeSet::new();
    for life in 1..=4_u64 {
        let shared = Arc::new(world);
        let tasks: Vec<_> = (1..=32_u64)
            .map(|task| {
                let world = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut dice = Dice(life * 1000 + task);
                    let (mut settled, mut open) = (Vec::new(), Vec::new());
                    for _ in 0..25 {
                        let Ok(request) = world.reserve(i64::try_from(dice.roll(5_000)).unwrap()).await else { continue };
                        if dice.roll(3) == 0 {
                            tokio::task::yield_now().await;
                        }
                        let cost = i64::try_from(dice.roll(6_000)).unwrap();
                        match dice.roll(5) {
                            0 => world.settle(&request, cost, RecordOutcome::Cancelled),
                            1 => world.settle(&request, 0, RecordOutcome::Failed("upstream_error")),
                            2 if dice.roll(8) == 0 => {
                                open.push(request.request.to_string());
                                continue;
                            }
                            _ => world.settle(&request, cost, RecordOutcome::Complete),
                        }
                        settled.push(request.request.to_string());
                    }
                    (settled, open)
                })
            })
            .collect();
        for task in tasks {
            let (closed, open) = task.await.unwrap();
            settled.extend(closed);
            left_open.extend(open);
        }
        world = Arc::into_inner(shared).unwrap().crash().await;
        let cost = world.check_sums(GRANTED).await;
        assert!(cost > 0 && cost <= GRANTED);
    }
    assert!(!left_open.is_empty());
    let filter = RequestFilter { user: Some(world.user), ..RequestFilter::default() };
    let (records, _) = world.store().requests_page(&filter, None, 100_000).await.unwrap();
    let of = |interrupted: bool| {
        let meant = records.iter().filter(|record| (record.outcome == "interrupted") == interrupted && record.outcome != "refused");
        meant.map(|record| record.id.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(of(true), left_open);
    assert!(records.iter().filter(|record| record.outcome == "interrupted").all(|record| record.cost_nano == 0));
    let refused_is_failed = records.iter().filter(|record| record.outcome == "refused").count();
    assert_eq!(of(false), settled);
    assert_eq!(records.len(), settled.len() + left_open.len() + refused_is_failed);
    // What the interrupted ones had set aside is there again.
    let all = GRANTED - world.check_sums(GRANTED).await;
    if all > 0 {
        let request = world.reserve(all).await.unwrap();
        world.settle(&request, all, RecordOutcome::Complete);
        world.meter.flush().await;
        assert_eq!(world.check_sums(GRANTED).await, GRANTED);
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_refused() {
    let world = World::new().await;
    let running = Running::new(world.admit().await.unwrap());
    world.meter.reserve(&running.caller, running.ask(0, 0)).await.unwrap();
    let World { meter, scratch, .. } = world;
    drop(meter);
    let file = std::fs::read_dir(journal(&scratch)).unwrap().map(|file| file.unwrap().path());
    let file = file.filter(|path| path.extension().is_some_and(|extension| extension == "journal")).max().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"reserved\"", "\"reversed\"")).unwrap();
    let revocations = Revocations::follow(scratch.store.clone()).await.unwrap();
    let error = try_start(&scratch, revocations.clone()).await.unwrap_err();
    let sentence = format!(
        "the journal {} is damaged in line 2; restore it from a backup, or move it away to lose what it holds",
        file.display()
    );
    assert_eq!(error.to_string(), sentence);
    std::fs::write(&file, text).unwrap();
    try_start(&scratch, revocations).await.unwrap();
    assert_eq!(scratch.store.requests(running.caller.user).await.unwrap()[0].outcome, "interrupted");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nobody_is_admitted_while_the_disk_is_full_and_nothing_is_lost() {
    let world = World::new().await;
    world.only_credits(10).await;
    let request = world.reserve(10).await.unwrap();
    world.meter.0.journal.fill_disk();
    // What runs still comes to its end, though the journal does not take it.
    world.settle(&request, 4, RecordOutcome::Complete);
    assert_eq!(world.admit().await, Err(NotAdmitted::Unavailable));
    world.meter.flush().await;
    assert_eq!(world.check_sums(10).await, 4);
    // By itself it recovers. When the disk is full again between admission and reservation, nothing stays set aside.
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    while world.admit().await.map(|caller| world.settle(&Running::new(caller), 0, RecordOutcome::Complete)).is_err() {
        turns.tick().await;
    }
    world.meter.0.journal.fill_disk();
    assert_eq!(world.reserve(6).await.map(|_| ()), Err(NotReserved::Unavailable));
    while world.admit().await.map(|caller| world.settle(&Running::new(caller), 0, RecordOutcome::Complete)).is_err() {
        turns.tick().await;
    }
    let request = world.reserve(6).await.unwrap();
    world.settle(&request, 6, RecordOutcome::Complete);
    world.meter.flush().await;
    assert_eq!(world.check_sums(10).await, 10);
    world.check_idle();
}

#[tokio::test]
async fn a_record_is_seen_once_by_whoever_counts() {
    let scratch = Scratch::new().await;
    let user = scratch.store.add_user("ada").await.unwrap().id;
    let project = scratch.store.add_project(user, "default").await.unwrap().id;
    let (key, _) = create_key(&scratch.store, project, "test", KeyTerms::default()).await.unwrap();
    let revocations = Revocations::follow(scratch.store.clone()).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let count = Arc::clone(&seen);
    let on_record = move |record: &Record| count.lock().unwrap().push((record.request, record.cost_nano));
    let meter =
        Meter::start(scratch.store.clone(), revocations, &journal(&scratch), DefaultRates::default(), on_record).await.unwrap();
    let admitted = meter.admit(Shown::new(key.reveal()), CHAT).await.unwrap();
    let running = Running::new(admitted.caller);
    // Nothing was set aside, so that nothing is charged.
    meter.settle(running.record(99, RecordOutcome::Complete), None);
    assert_eq!(*seen.lock().unwrap(), [(running.request, 0)]);
}
