//! `1k4-lab vault` and `1k4-lab backup` beside a Lab that runs, as its owner runs them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use lab_server::vault::{Place, Scope, VaultError};

use crate::client::TestLab;

const PLACE: Place<'static> = Place { table: "messages", column: "content_sealed", row: "msg_1", version: 0 };

/// Runs the program in a folder; its exit code, what it prints and what it complains of.
pub(crate) async fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_1k4-lab"));
    program.args(args).current_dir(folder).env("CREDENTIALS_DIRECTORY", folder);
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(move || program.output()).await.unwrap().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// What the program prints as JSON when it succeeds.
pub(crate) async fn json(folder: &Path, args: &[&str]) -> serde_json::Value {
    let (code, stdout, stderr) = run(folder, &[args, &["--json"]].concat()).await;
    assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
    serde_json::from_str(&stdout).unwrap()
}

pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("1k4-{name}-{}", wire::RequestId::random()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// A file that only its owner can read.
    pub(crate) fn secret(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.join(name);
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_running_lab_goes_on_while_another_process_rotates_and_hears_of_deletions() {
    let lab = TestLab::start().await;
    let (user, project, key) = lab.user_with_scopes("ada", &[lab_server::store::Scope::Manage]).await;
    let (dir, store) = (lab.dir.clone(), &lab.lab.store);
    let here = Folder::new("vault");
    let data = ["--data-dir", dir.to_str().unwrap()];
    let vault = async |args: &[&str]| json(&here.0, &[&data[..], &["vault"], args].concat()).await;
    let held = store.vault().key(Scope::Project(user.id, project)).await.unwrap();
    let before = held.seal(PLACE, b"x");

    let status = vault(&["status"]).await;
    assert_eq!((&status[0]["at_hand"], &status[0]["wraps"]), (&true.into(), &true.into()), "{status}");
    let (old, keys) = (status[0]["master"].clone(), status[0]["keys"].as_i64().unwrap());
    let new = vault(&["new-master"]).await["name"].clone();
    assert_ne!(new, old);
    assert_eq!(vault(&["rotate-master"]).await["keys"], keys);
    assert_eq!(vault(&["rotate-keys", "--user", "ada"]).await["keys"], 2);
    let status = vault(&["status"]).await;
    assert_eq!((&status[0]["master"], &status[0]["keys"]), (&new, &(keys + 2).into()), "{status}");
    assert_eq!((&status[1]["master"], &status[1]["keys"], &status[1]["wraps"]), (&old, &0.into(), &false.into()));

    // The running Lab has never seen the new master key, and makes new keys under it.
    store.add_user("eve").await.unwrap();
    assert_eq!(*held.open(PLACE, &before).unwrap(), *b"x");
    assert_eq!(lab.ask(&key, "GET", "/api/projects", None).await.status, 200);
    let status = vault(&["status"]).await;
    assert_eq!((&status[0]["keys"], &status[1]["keys"]), (&(keys + 3).into(), &0.into()));

    let mut epoch = lab.lab.revocations.watch();
    epoch.mark_unchanged();
    let project = project.to_string();
    let deleted = json(&here.0, &[&data[..], &["admin", "projects", "delete", &project, "--user", "ada"]].concat()).await;
    assert_eq!(deleted["deleted"], true);
    tokio::time::timeout(Duration::from_secs(5), epoch.changed()).await.unwrap().unwrap();
    assert!(matches!(held.open(PLACE, &before), Err(VaultError::NoKey)));
}

#[tokio::test]
async fn a_master_key_comes_from_where_the_configuration_says_and_nowhere_else() {
    let here = Folder::new("master");
    let config = |master: &str| {
        std::fs::write(here.0.join("1k4-lab.toml"), format!("data_dir = \"data\"\n[vault]\nmaster = {master}\n")).unwrap()
    };
    config("{ file = \"m.key\" }");
    let (code, _, stderr) = run(&here.0, &["vault", "status"]).await;
    assert_eq!((code, stderr.contains("m.key cannot be read")), (1, true), "{stderr}");
    let made = json(&here.0, &["vault", "new-master"]).await["name"].clone();
    let status = json(&here.0, &["vault", "status"]).await;
    assert_eq!(status[0]["master"], made);
    assert!(!here.0.join("data/master.key").exists());
    let text = std::fs::read_to_string(here.0.join("m.key")).unwrap();

    // The same key from elsewhere, and somebody else's.
    config("{ credential = \"lab-master\" }");
    let (code, _, stderr) = run(&here.0, &["vault", "status"]).await;
    assert_eq!((code, stderr.contains("lab-master cannot be read")), (1, true), "{stderr}");
    here.secret("lab-master", &text, 0o400);
    assert_eq!(json(&here.0, &["vault", "status"]).await[0]["master"], made);
    config("{ env_file = \"lab.env\" }");
    here.secret("lab.env", &format!("OTHER=1\nONEK4_MASTER_KEY={text}"), 0o600);
    assert_eq!(json(&here.0, &["vault", "status"]).await[0]["master"], made);
    let told = json(&here.0, &["vault", "new-master"]).await["master_key"].as_str().unwrap().to_owned();
    here.secret("lab.env", &format!("ONEK4_MASTER_KEY={told}"), 0o600);
    let (code, _, stderr) = run(&here.0, &["vault", "status"]).await;
    assert_eq!((code, stderr.contains(&format!("needs the master key {}", made.as_str().unwrap()))), (1, true), "{stderr}");
    assert!(!stderr.contains(&told));
    here.secret("lab.env", &format!("ONEK4_MASTER_KEY=\"{told} {}\"", text.trim()), 0o600);
    assert_eq!(json(&here.0, &["vault", "rotate-master"]).await["keys"], 1);
    assert_eq!(json(&here.0, &["vault", "status"]).await[1]["master"], made);
    #[cfg(unix)]
    {
        here.secret("lab.env", &format!("ONEK4_MASTER_KEY={told}"), 0o640);
        let (code, _, stderr) = run(&here.0, &["vault", "status"]).await;
        assert_eq!((code, stderr.contains("others can read the file")), (1, true), "{stderr}");
    }
}

#[tokio::test]
async fn a_lab_is_backed_up_and_restored_by_its_owner() {
    let here = Folder::new("backup");
    let identity = age::x25519::Identity::generate();
    for folder in ["a", "b"] {
        std::fs::create_dir(here.0.join(folder)).unwrap();
    }
    let config = |rest: &str| std::fs::write(here.0.join("1k4-lab.toml"), format!("data_dir = \"data\"\n{rest}")).unwrap();
    config("");
    let (code, _, stderr) = run(&here.0, &["backup", "create"]).await;
    assert_eq!((code, stderr.starts_with("1k4-lab: no backup is configured; add [backup]")), (1, true), "{stderr}");
    let recipient = identity.to_public();
    config(&format!("[backup]\nrecipients = [\"{recipient}\"]\ndestinations = [\"a\"]\n"));
    assert_eq!(run(&here.0, &["backup", "create"]).await.0, 78);
    config(&format!("[backup]\nrecipients = [\"{recipient}\"]\ndestinations = [\"a\", \"b\"]\n"));
    here.secret("id.txt", &format!("# mine\n{}\n", age::secrecy::ExposeSecret::expose_secret(&identity.to_string())), 0o600);
    for name in ["ada", "eve"] {
        json(&here.0, &["admin", "users", "add", name]).await;
    }
    json(&here.0, &["admin", "projects", "add", "plans", "--user", "ada"]).await;
    assert_eq!(json(&here.0, &["backup", "create"]).await.as_array().unwrap().len(), 4);
    assert_eq!(json(&here.0, &["backup", "list"]).await.as_array().unwrap().len(), 4);
    assert_eq!(json(&here.0, &["backup", "verify", "--identity", "id.txt"]).await["whole"], 4);
    json(&here.0, &["admin", "projects", "delete", "plans", "--user", "ada"]).await;
    let restored = json(&here.0, &["backup", "restore", "--from", "b", "--identity", "id.txt", "--to", "again"]).await;
    assert_eq!(restored["deleted"], 1);
    let (code, _, stderr) = run(&here.0, &["--data-dir", "again", "admin", "users", "list"]).await;
    assert_eq!((code, stderr.contains("master.key cannot be read")), (1, true), "{stderr}");
    std::fs::copy(here.0.join("data/master.key"), here.0.join("again/master.key")).unwrap();
    let again = ["--data-dir", "again"];
    assert_eq!(json(&here.0, &[&again[..], &["admin", "users", "list"]].concat()).await.as_array().unwrap().len(), 2);
    let projects = json(&here.0, &[&again[..], &["admin", "projects", "list"]].concat()).await;
    assert_eq!(projects, serde_json::json!([]));
}
