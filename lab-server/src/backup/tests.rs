//! A Lab is copied, changed, and brought back.

use age::x25519::Recipient;

use super::*;
use crate::vault::MasterSource;

struct Ground {
    dir: PathBuf,
    config: Config,
    identity: Identity,
}

impl Ground {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("1k4-backup-{}", wire::RequestId::random()));
        let identity = Identity::generate();
        let destinations = ["a", "b"].map(|name| dir.join(name)).to_vec();
        for folder in &destinations {
            std::fs::create_dir_all(folder).unwrap();
        }
        let recipients: Vec<Recipient> = vec![identity.to_public()];
        let backup = Plan { recipients, destinations, keep_days: 30, keystore_keep_days: 7, every_hours: None };
        let config =
            Config { backup: Some(backup), master: MasterSource::Own(dir.join("master.key")), ..Config::in_dir(dir.join("data")) };
        Self { dir, config, identity }
    }

    fn folder(&self, at: usize) -> PathBuf {
        self.config.backup.as_ref().unwrap().destinations[at].clone()
    }

    /// The Lab that comes of a copy.
    async fn restored(&self, from: &Path, name: &str) -> Result<(Restored, Config), BackupError> {
        let to = self.dir.join(name);
        let restored = restore(from, vec![self.identity.clone()], &to, &[]).await?;
        Ok((restored, Config { master: self.config.master.clone(), ..Config::in_dir(to) }))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// How often a word stands in the files below a folder, in capital letters or not.
fn found_in(dir: &Path, word: &str) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        found += if path.is_dir() {
            found_in(&path, word)
        } else {
            let text = std::fs::read(&path).unwrap().to_ascii_lowercase();
            memchr::memmem::find_iter(&text, word).count() + usize::from(path.to_str().unwrap().contains(word))
        };
    }
    found
}

#[tokio::test]
async fn what_is_deleted_does_not_come_back_with_a_backup_made_before() {
    let ground = Ground::new();
    let store = Store::of(&ground.config).await.unwrap();
    let (ada, eve) = (store.add_user("canary ada").await.unwrap().id, store.add_user("canary eve").await.unwrap().id);
    let kept = store.add_project(eve, "canary kept").await.unwrap().id;
    let dropped = store.add_project(eve, "canary dropped").await.unwrap().id;
    let adas = store.add_project(ada, "canary adas").await.unwrap().id;
    let place = vault::Place { table: "messages", column: "content_sealed", row: "msg_1", version: 0 };
    let scopes =
        [Scope::User(ada), Scope::Project(ada, adas), Scope::Project(eve, dropped), Scope::User(eve), Scope::Project(eve, kept)];
    let mut sealed = Vec::new();
    for scope in scopes {
        sealed.push((scope, store.vault().key(scope).await.unwrap().seal(place, b"canary words")));
    }
    std::fs::create_dir_all(ground.config.blobs.join("prj")).unwrap();
    std::fs::write(ground.config.blobs.join("prj/blob"), &sealed[0].1).unwrap();

    let copies = create(&ground.config, &store).await.unwrap();
    assert_eq!(copies.iter().map(|copy| copy.part).collect::<Vec<_>>(), [Part::Data, Part::Keys, Part::Data, Part::Keys]);
    for copy in &copies {
        assert!(std::fs::read(&copy.path).unwrap().starts_with(b"age-encryption.org/v1\n"));
        assert!(verify(copy, std::slice::from_ref(&ground.identity)).unwrap() > 0);
        assert!(matches!(verify(copy, &[Identity::generate()]), Err(BackupError::Closed(_))));
    }
    assert_eq!(found_in(&ground.dir, "canary"), 0);
    // Nothing of the preparation is left, and the master key is in no copy.
    assert!(
        std::fs::read_dir(&ground.config.data_dir).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .starts_with(TEMPORARY))
    );

    let (before, lab) = ground.restored(&ground.folder(0), "before").await.unwrap();
    assert_eq!(before.deleted, 0);
    let again = Store::of(&lab).await.unwrap();
    for (scope, sealed) in &sealed {
        assert_eq!(*again.vault().key(*scope).await.unwrap().open(place, sealed).unwrap(), b"canary words");
    }
    assert_eq!(std::fs::read(lab.blobs.join("prj/blob")).unwrap(), sealed[0].1);
    assert!(!lab.data_dir.join("master.key").exists());
    again.close().await.unwrap();

    // One destination is away while things are deleted.
    std::fs::rename(ground.folder(1), ground.dir.join("away")).unwrap();
    store.delete_project(eve, dropped).await.unwrap();
    store.vault().shred(Scope::User(ada)).await.unwrap();
    std::fs::rename(ground.dir.join("away"), ground.folder(1)).unwrap();
    store.vault().tell_again().await.unwrap();
    for (at, name) in [(0, "after-a"), (1, "after-b")] {
        let (after, lab) = ground.restored(&ground.folder(at), name).await.unwrap();
        assert_eq!(after.deleted, 2);
        let again = Store::of(&lab).await.unwrap();
        let mut opened = 0;
        for (scope, sealed) in &sealed {
            match again.vault().key(*scope).await {
                Ok(key) => {
                    opened += 1;
                    assert_eq!(*key.open(place, sealed).unwrap(), b"canary words");
                }
                Err(error) => assert!(matches!(error, VaultError::NoKey), "{scope}"),
            }
            if scopes[..3].contains(scope) {
                assert!(matches!(again.vault().create(*scope).await, Err(VaultError::NoKey)));
            }
        }
        assert_eq!(opened, 2);
        assert_eq!(again.users().await.unwrap().into_iter().map(|user| user.id).collect::<Vec<_>>(), [eve]);
        assert_eq!(again.projects(eve).await.unwrap().into_iter().map(|project| project.id).collect::<Vec<_>>(), [kept]);
        again.close().await.unwrap();
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_copy_that_was_changed_or_cut_is_refused_and_leaves_nothing() {
    let ground = Ground::new();
    let store = Store::of(&ground.config).await.unwrap();
    store.add_user("ada").await.unwrap();
    let copies = create(&ground.config, &store).await.unwrap();
    let data = copies.iter().find(|copy| copy.part == Part::Data).unwrap();
    let whole = std::fs::read(&data.path).unwrap();
    let (mut tried, mut refused) = (0, 0);
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        for bytes in [&flipped[..], &whole[..at]] {
            std::fs::write(&data.path, bytes).unwrap();
            tried += 1;
            refused += usize::from(ground.restored(&ground.folder(0), "changed").await.is_err());
            assert!(!ground.dir.join("changed").exists());
        }
    }
    assert_eq!((tried >= 80, tried), (true, refused));
    std::fs::write(&data.path, &whole).unwrap();
    // A list of deletions that cannot be read is no reason to bring everything back.
    std::fs::write(ground.folder(0).join(vault::TOMBSTONES), "nonsense\n").unwrap();
    assert!(matches!(ground.restored(&ground.folder(0), "changed").await, Err(BackupError::Tombstones(_))));
    std::fs::remove_file(ground.folder(0).join(vault::TOMBSTONES)).unwrap();
    ground.restored(&ground.folder(0), "changed").await.unwrap();
    assert!(matches!(ground.restored(&ground.folder(0), "changed").await, Err(BackupError::NotEmpty(_))));
    store.close().await.unwrap();
}

#[tokio::test]
async fn old_copies_go_and_a_destination_that_is_away_is_named() {
    let ground = Ground::new();
    let store = Store::of(&ground.config).await.unwrap();
    let now = now_ms();
    for (days, part) in [(29, Part::Data), (31, Part::Data), (6, Part::Keys), (8, Part::Keys)] {
        std::fs::write(ground.folder(0).join(Named(now - days * DAY_MS, part).to_string()), "").unwrap();
    }
    std::fs::write(ground.folder(0).join("1k4-notes.data.age"), "mine").unwrap();
    std::fs::remove_dir_all(ground.folder(1)).unwrap();
    let error = create(&ground.config, &store).await.unwrap_err();
    assert!(matches!(error, BackupError::Incomplete { failed: 1, of: 2, .. }), "{error}");
    let left: Vec<(i64, Part)> =
        list(&ground.folder(0)).unwrap().iter().map(|copy| ((now - copy.made_at + DAY_MS / 2) / DAY_MS, copy.part)).collect();
    assert_eq!(left, [(29, Part::Data), (6, Part::Keys), (0, Part::Data), (0, Part::Keys)]);
    assert!(ground.folder(0).join("1k4-notes.data.age").exists());
    store.close().await.unwrap();
}
