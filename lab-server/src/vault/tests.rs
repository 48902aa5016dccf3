//! What must never open, counted; and both rotations while everybody writes and reads.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use super::{master::renew, *};

struct Ground {
    dir: PathBuf,
    vault: Vault,
}

impl Ground {
    async fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("1k4-vault-{}", wire::RequestId::random()));
        let vault = open(&dir).await.unwrap();
        Self { dir, vault }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The same files, as another process opens them.
async fn open(dir: &Path) -> Result<Vault, VaultError> {
    Vault::open(&dir.join("keystore.sqlite"), &source(dir)).await
}

fn source(dir: &Path) -> MasterSource {
    MasterSource::Own(dir.join("master.key"))
}

const PLACE: Place<'static> = Place { table: "messages", column: "content_sealed", row: "msg_1", version: 3 };

#[tokio::test]
async fn what_was_changed_moved_or_put_back_does_not_open() {
    let ground = Ground::new().await;
    let vault = &ground.vault;
    let (ada, eve) = (UserId::random(), UserId::random());
    let (project, other) = (ProjectId::random(), ProjectId::random());
    let own = Scope::Project(ada, project);
    let key = vault.create(own).await.unwrap();
    let plain = b"the quick brown fox";
    let sealed = key.seal(PLACE, plain);
    assert_eq!(sealed.len(), plain.len() + OVERHEAD);
    assert_eq!(*key.open(PLACE, &sealed).unwrap(), plain);
    assert!(!sealed.windows(5).any(|window| plain.windows(5).any(|piece| piece == window)));
    assert_ne!(key.seal(PLACE, plain), sealed);

    let (mut tried, mut refused) = (0, 0);
    let mut check = |key: &Key, place: Place<'_>, sealed: &[u8]| {
        tried += 1;
        refused += usize::from(matches!(key.open(place, sealed), Err(VaultError::Broken)));
    };
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1 << bit;
            check(&key, PLACE, &flipped);
        }
        check(&key, PLACE, &sealed[..at]);
        check(&key, PLACE, &sealed[at + 1..]);
        // A byte taken out, and one put in.
        check(&key, PLACE, &[&sealed[..at], &sealed[at + 1..]].concat());
        check(&key, PLACE, &[&sealed[..at], &[0], &sealed[at..]].concat());
    }
    check(&key, PLACE, &[&sealed[..], &[0]].concat());
    check(&key, PLACE, &[&sealed[..], &sealed[..]].concat());
    for place in [
        Place { row: "msg_2", ..PLACE },
        Place { row: "", ..PLACE },
        Place { column: "title_sealed", ..PLACE },
        Place { table: "conversations", ..PLACE },
        Place { version: 2, ..PLACE },
        Place { version: 4, ..PLACE },
        // The same letters, cut elsewhere.
        Place { row: "msg_1c", column: "ontent_sealed", ..PLACE },
        Place { table: "messagesm", row: "sg_1", ..PLACE },
    ] {
        check(&key, place, &sealed);
    }
    for scope in [
        Scope::Lab,
        Scope::User(ada),
        Scope::User(eve),
        Scope::Project(ada, other),
        Scope::Project(eve, other),
        Scope::Conversation(ada, ConversationId::random()),
    ] {
        // Its own key, and the owner's key under the other's name.
        if let Ok(stranger) = vault.create(scope).await {
            check(&stranger, PLACE, &sealed);
        }
        let (generation, bytes) = key.0.sealing();
        let generations = vec![Generation { number: generation, key: bytes, from: 0 }];
        let renamed = Ring { scope, index: random_key(), generations: RwLock::new(Some(generations)) };
        check(&Key(Arc::new(renamed)), PLACE, &sealed);
    }
    // Of a newer generation, and one generation's put under another's number.
    vault.rotate_keys(None).await.unwrap();
    for number in [0, 2, 3, u32::MAX] {
        let mut moved = sealed.clone();
        moved[1..5].copy_from_slice(&number.to_be_bytes());
        check(&vault.key(own).await.unwrap(), PLACE, &moved);
    }
    // 68 bytes: 8 bits and 4 cuts each; 2 longer ones, 8 places, 5 keys of other scopes (eve has no such project), 6 renamed, 4 numbers.
    const ALL: usize = 68 * 12 + 2 + 8 + 5 + 6 + 4;
    assert_eq!((tried, refused, ALL), (ALL, ALL, 841));
}

#[tokio::test]
async fn a_wrapped_key_opens_for_its_scope_owner_and_generation_alone() {
    let ground = Ground::new().await;
    let vault = &ground.vault;
    let (ada, eve, project, other) = (UserId::random(), UserId::random(), ProjectId::random(), ProjectId::random());
    let scopes = [Scope::Lab, Scope::User(ada), Scope::User(eve), Scope::Project(ada, project), Scope::Project(ada, other)];
    for scope in scopes {
        vault.create(scope).await.unwrap();
    }
    let (master, (mut tried, mut refused)) = (vault.0.master.keys(), (0, 0));
    let mut check = |scope: Scope, row: &WrappedKey| {
        tried += 1;
        refused += usize::from(unwrap(&master, scope, row).is_err());
    };
    let rows = vault.0.keystore.keys(&scopes).await.unwrap();
    for (scope, keys) in &rows {
        let [row] = &keys[..] else { panic!("one generation each") };
        assert!(unwrap(&master, *scope, row).is_ok());
        for stranger in scopes.into_iter().chain([Scope::Project(eve, project)]).filter(|stranger| stranger != scope) {
            check(stranger, row);
        }
        for at in 0..row.wrapped.len() {
            for bit in 0..8 {
                let mut flipped = row.clone();
                flipped.wrapped[at] ^= 1 << bit;
                check(*scope, &flipped);
            }
            check(*scope, &WrappedKey { wrapped: row.wrapped[..at].to_vec(), ..row.clone() });
        }
        check(*scope, &WrappedKey { wrapped: [&row.wrapped[..], &[0]].concat(), ..row.clone() });
        check(*scope, &WrappedKey { generation: 2, ..row.clone() });
        check(*scope, &WrappedKey { kek: "mk_000000000000".into(), ..row.clone() });
    }
    const ALL: usize = 5 * (5 + 92 * 9 + 3);
    assert_eq!((tried, refused, ALL), (ALL, ALL, 4_180));

    // Swapped in the file itself, behind the Lab's back.
    let swap = "UPDATE keys SET wrapped = (SELECT wrapped FROM keys AS other WHERE other.scope = ?) WHERE scope = ?";
    let db = sea_orm::Database::connect(format!("sqlite://{}", ground.dir.join("keystore.sqlite").display())).await.unwrap();
    let values = [Scope::User(eve).to_string().into(), Scope::User(ada).to_string().into()];
    let swap = sea_orm::Statement::from_sql_and_values(sea_orm::DbBackend::Sqlite, swap, values);
    sea_orm::ConnectionTrait::execute_raw(&db, swap).await.unwrap();
    let elsewhere = open(&ground.dir).await.unwrap();
    assert!(matches!(elsewhere.key(Scope::User(ada)).await, Err(VaultError::Broken)));
    assert!(elsewhere.key(Scope::User(eve)).await.is_ok());
}

#[tokio::test]
async fn nobody_reaches_or_deletes_somebody_elses_scope() {
    let ground = Ground::new().await;
    let (vault, ada, eve, project) = (&ground.vault, UserId::random(), UserId::random(), ProjectId::random());
    let key = vault.create(Scope::Project(ada, project)).await.unwrap();
    assert!(matches!(vault.key(Scope::Project(eve, project)).await, Err(VaultError::NoKey)));
    vault.shred(Scope::Project(eve, project)).await.unwrap();
    let sealed = key.seal(PLACE, b"x");
    assert_eq!(
        *open(&ground.dir).await.unwrap().key(Scope::Project(ada, project)).await.unwrap().open(PLACE, &sealed).unwrap(),
        b"x"
    );
}

#[tokio::test]
async fn a_deleted_scope_is_gone_for_whoever_holds_its_key_and_stays_deleted() {
    let ground = Ground::new().await;
    let (vault, ada) = (&ground.vault, UserId::random());
    let (own, project) = (Scope::User(ada), Scope::Project(ada, ProjectId::random()));
    let elsewhere = open(&ground.dir).await.unwrap();
    let (mut held, mut sealed) = (Vec::new(), Vec::new());
    for scope in [own, project] {
        let key = vault.create(scope).await.unwrap();
        sealed.push((scope, key.seal(PLACE, b"x")));
        held.extend([key, elsewhere.key(scope).await.unwrap()]);
    }
    // The wrapped bytes as they stand in the file.
    let rows = vault.0.keystore.keys(&[own, project]).await.unwrap();
    let wrapped: Vec<Vec<u8>> = rows.into_iter().flat_map(|(_, rows)| rows).map(|row| row.wrapped).collect();
    assert_eq!(found_in(&ground.dir, &wrapped), 2);

    vault.shred(own).await.unwrap();
    elsewhere.refresh().await.unwrap();
    assert_eq!(found_in(&ground.dir, &wrapped), 0);
    for key in &held {
        for (_, sealed) in &sealed {
            assert!(matches!(key.open(PLACE, sealed), Err(VaultError::NoKey)));
            assert!(matches!(key.open(PLACE, &key.seal(PLACE, b"x")), Err(VaultError::NoKey)));
        }
    }
    for vault in [vault, &elsewhere, &open(&ground.dir).await.unwrap()] {
        for scope in [own, project, Scope::Project(ada, ProjectId::random())] {
            assert!(matches!(vault.key(scope).await, Err(VaultError::NoKey)));
            assert!(matches!(vault.create(scope).await, Err(VaultError::NoKey)));
        }
    }
}

/// How many of these byte strings stand in the keystore's files.
fn found_in(dir: &Path, needles: &[Vec<u8>]) -> usize {
    let files = ["keystore.sqlite", "keystore.sqlite-wal"].map(|name| std::fs::read(dir.join(name)).unwrap_or_default());
    let stands = |needle: &&Vec<u8>| files.iter().any(|file| memchr::memmem::find(file, needle).is_some());
    needles.iter().filter(stands).count()
}

#[tokio::test]
async fn a_keystore_is_opened_with_its_master_key_or_not_at_all() {
    let ground = Ground::new().await;
    let key = ground.vault.create(Scope::User(UserId::random())).await.unwrap();
    let (sealed, scope) = (key.seal(PLACE, b"x"), key.0.scope);
    let path = ground.dir.join("master.key");
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // No other one is made for it.
    assert!(matches!(open(&ground.dir).await, Err(VaultError::Master(MasterError::Unreadable(_)))));
    assert!(!path.exists());
    renew(&source(&ground.dir)).await.unwrap();
    assert!(matches!(open(&ground.dir).await, Err(VaultError::Master(MasterError::Another(_)))));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, kept).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
        let exposed = crate::secret::SecretError::Exposed(path.clone());
        assert_eq!(open(&ground.dir).await.unwrap_err().to_string(), format!("the master key cannot be had: {exposed}"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    }
    assert_eq!(*open(&ground.dir).await.unwrap().key(scope).await.unwrap().open(PLACE, &sealed).unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_keys_are_rotated_while_everybody_writes_and_reads() {
    const SCOPES: usize = 200;
    let ground = Ground::new().await;
    let server = ground.vault.clone();
    let owners: Vec<UserId> = (0..SCOPES).map(|_| UserId::random()).collect();
    for owner in &owners {
        server.create(Scope::User(*owner)).await.unwrap();
    }
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // A second server, which reads what the first one writes.
    let reader = open(&ground.dir).await.unwrap();
    let heartbeats = tokio::spawn({
        let (stop, vaults) = (stop.clone(), [server.clone(), reader.clone()]);
        async move {
            while !stop.load(Ordering::Relaxed) {
                for vault in &vaults {
                    vault.refresh().await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let mut tasks = Vec::new();
    for task in 0..4_usize {
        let (server, reader, owners, stop, done) = (server.clone(), reader.clone(), owners.clone(), stop.clone(), done.clone());
        tasks.push(tokio::spawn(async move {
            let mut kept = Vec::new();
            // One that is held all along, as a run holds its conversation's.
            let (writes, reads) =
                (server.key(Scope::User(owners[task])).await.unwrap(), reader.key(Scope::User(owners[task])).await.unwrap());
            for at in (0..).map(|at: usize| at * 7 + task) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let scope = Scope::User(owners[at % SCOPES]);
                let sealed = server.key(scope).await.unwrap().seal(PLACE, b"x");
                assert_eq!(*reader.key(scope).await.unwrap().open(PLACE, &sealed).unwrap(), b"x");
                assert_eq!(*reads.open(PLACE, &writes.seal(PLACE, b"y")).unwrap(), b"y");
                if at % 50 == 0 {
                    let fresh = Scope::User(UserId::random());
                    kept.push((fresh, server.create(fresh).await.unwrap().seal(PLACE, b"x")));
                }
                kept.push((scope, sealed));
                kept.truncate(20_000);
                done.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
            kept
        }));
    }
    let operator = open(&ground.dir).await.unwrap();
    let first = operator.status().await.unwrap()[0].master.clone();
    for _ in 0..3 {
        renew(&source(&ground.dir)).await.unwrap();
        assert!(operator.rotate_master().await.unwrap().keys >= SCOPES);
        assert!(operator.rotate_keys(None).await.unwrap().keys >= SCOPES);
    }
    // Until the newest generations seal.
    let until = Instant::now() + Duration::from_millis(GRACE_MS as u64 + 300);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    renew(&source(&ground.dir)).await.unwrap();
    operator.rotate_master().await.unwrap();
    stop.store(true, Ordering::Relaxed);
    heartbeats.await.unwrap();
    let mut kept = Vec::new();
    for task in tasks {
        kept.extend(task.await.unwrap());
    }
    assert!(done.load(Ordering::Relaxed) > 1_000);

    let held = operator.status().await.unwrap();
    assert_eq!(held.iter().filter(|held| held.keys > 0).map(|held| held.wraps).collect::<Vec<_>>(), [true]);
    assert_eq!((held.len(), held[4].master.as_str()), (5, first.as_str()));
    // The first master key alone is needed no more.
    let path = ground.dir.join("master.key");
    let newest = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, newest).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o400)).unwrap();
    let later = open(&ground.dir).await.unwrap();
    let mut generations = std::collections::BTreeSet::new();
    for (scope, sealed) in &kept {
        assert_eq!(*later.key(*scope).await.unwrap().open(PLACE, sealed).unwrap(), b"x");
        generations.insert(sealed[4]);
    }
    assert!(generations.contains(&1) && generations.contains(&4), "{generations:?}");
}

#[test]
fn a_master_key_is_read_from_where_its_owner_put_it() {
    let lines = [master::new_line(), master::new_line()];
    let names: Vec<String> = lines.iter().map(|line| master::parse(line).unwrap().first().to_owned()).collect();
    let both = format!("# the newer one\n{}\n  {}", *lines[0], *lines[1]);
    assert_eq!(master::parse(&both).unwrap().names().collect::<Vec<_>>(), names);
    for text in
        ["", "#", "mk1_", "mk1_AAAA", "sk-1", &lines[0][4..], &format!("{}x", lines[0].trim()), &format!("{}sk-1", *lines[0])]
    {
        assert!(matches!(master::parse(text), Err(MasterError::NotAKey)), "{text}");
    }
    let (a, b) = (lines[0].trim(), lines[1].trim());
    for text in [
        format!("A=1\nONEK4_MASTER_KEY={a} {b}\nB=2"),
        format!("export ONEK4_MASTER_KEY=\"{a} {b}\""),
        format!("ONEK4_MASTER_KEY='{a} {b}'\n"),
    ] {
        let found = master::parse(&master::variable(&text).unwrap()).unwrap();
        assert_eq!(found.names().collect::<Vec<_>>(), names, "{text}");
    }
    for text in ["", "A=1", "ONEK4_MASTER_KEY_2=x", &format!("ONEK4_MASTER_KEY={a}\nONEK4_MASTER_KEY={b}")] {
        assert!(matches!(master::variable(text), Err(MasterError::NotAKey)), "{text}");
    }
}

#[tokio::test]
async fn what_is_deleted_is_told_beside_the_backups() {
    let ground = Ground::new().await;
    let (here, away) = (ground.dir.join("a"), ground.dir.join("b"));
    std::fs::create_dir(&here).unwrap();
    let vault = ground.vault.clone().telling(vec![here.clone(), away.clone()]);
    let told = |folder: &Path| Tombstone::in_folder(folder).unwrap().iter().map(|stone| stone.scope().unwrap()).collect::<Vec<_>>();
    let ada = UserId::random();
    let scopes = [Scope::Project(ada, ProjectId::random()), Scope::Conversation(ada, ConversationId::random()), Scope::User(ada)];
    for scope in scopes {
        vault.create(scope).await.unwrap();
        vault.shred(scope).await.unwrap();
        vault.shred(scope).await.unwrap();
    }
    assert_eq!((told(&here), told(&away)), (scopes.to_vec(), vec![]));
    // It comes back, and a power cut had left half a line there.
    std::fs::create_dir(&away).unwrap();
    std::fs::write(away.join(TOMBSTONES), "17000").unwrap();
    vault.tell_again().await.unwrap();
    assert_eq!((told(&here), told(&away)), (scopes.to_vec(), scopes.to_vec()));
    std::fs::write(away.join(TOMBSTONES), "17000 usr_x usr_x\n").unwrap();
    assert!(matches!(Tombstone::in_folder(&away), Err(TombstoneError::Line { line: 1, .. })));
}

/// Figures for whoever changes the vault: `cargo test -p lab-server --lib vault::tests::figures -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures for a minute"]
async fn figures() {
    const MANY: usize = 100_000;
    let ground = Ground::new().await;
    let vault = &ground.vault;
    let key = vault.create(Scope::User(UserId::random())).await.unwrap();
    for (size, rounds) in [(100, 3_000), (64 * 1024, 60)] {
        let plain = vec![7; size];
        let began = Instant::now();
        let sealed: Vec<Vec<u8>> = (0..rounds).map(|_| key.seal(PLACE, &plain)).collect();
        let (seal, began) = (began.elapsed(), Instant::now());
        assert!(sealed.iter().all(|sealed| *key.open(PLACE, sealed).unwrap() == plain));
        println!("{size} B: {:?} to seal, {:?} to open", seal / rounds, began.elapsed() / rounds);
    }
    let began = Instant::now();
    for _ in 0..1_000 {
        vault.create(Scope::Conversation(UserId::random(), ConversationId::random())).await.unwrap();
    }
    println!("{:?} to create a scope", began.elapsed() / 1_000);
    let master = vault.0.master.keys();
    let rows: Vec<(Scope, WrappedKey)> = (0..MANY)
        .map(|_| {
            let scope = Scope::User(UserId::random());
            (scope, wrap(master.named(master.first()).unwrap(), master.first(), scope, 1, &random_key(), &random_key()))
        })
        .collect();
    vault.0.keystore.add_all(&rows).await.unwrap();
    renew(&source(&ground.dir)).await.unwrap();
    let began = Instant::now();
    let rotated = vault.rotate_master().await.unwrap();
    println!("{} keys wrapped anew in {:?}", rotated.keys, began.elapsed());
    assert!(rotated.keys > MANY && began.elapsed() < Duration::from_secs(60));
    let began = Instant::now();
    let rotated = vault.rotate_keys(None).await.unwrap();
    println!("{} keys got a successor in {:?}", rotated.keys, began.elapsed());
    assert!(rotated.keys > MANY);
    let began = Instant::now();
    vault.shred(rows[0].0).await.unwrap();
    println!("{:?} to delete a scope", began.elapsed());
}
