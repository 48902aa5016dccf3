//! `1k4-lab admin` against a Lab that runs.

use clap::Parser;
use lab_server::{
    admin::{self, Admin, AdminError},
    gateway::pairing::Terms,
    store::Store,
};

use crate::client::TestLab;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    admin: Admin,
}

/// Does the verb through a connection of its own, as another process would.
async fn admin(lab: &TestLab, args: &str) -> Result<String, AdminError> {
    let store = Store::open(&lab.dir.join("lab.sqlite")).await.unwrap();
    let cli = Cli::try_parse_from(std::iter::once("admin").chain(args.split(' '))).unwrap();
    let mut out = Vec::new();
    admin::run(&store, cli.admin, Terms::default(), &mut out).await?;
    store.close().await.unwrap();
    Ok(String::from_utf8(out).unwrap())
}

async fn refusal(lab: &TestLab, args: &str) -> String {
    admin(lab, args).await.unwrap_err().to_string()
}

#[tokio::test]
async fn an_empty_lab_says_what_to_do_and_a_key_is_shown_once() {
    let lab = TestLab::start().await;
    assert_eq!(refusal(&lab, "keys create").await, "there is no user yet; add one with `1k4-lab admin users add NAME`");
    admin(&lab, "users add ada").await.unwrap();
    assert_eq!(refusal(&lab, "users add ada").await, "there is already a user of that name; choose another name");
    assert_eq!(refusal(&lab, "keys create").await, "ada has no project yet; add one with `1k4-lab admin projects add NAME`");
    let project: serde_json::Value = serde_json::from_str(&admin(&lab, "projects add home --json").await.unwrap()).unwrap();
    assert_eq!(project["name"], "home");

    let key = admin(&lab, "keys create").await.unwrap();
    let key = key.trim();
    assert_eq!(key.len(), 71);
    let kid = &key[9..21];
    let created: serde_json::Value = serde_json::from_str(&admin(&lab, "keys create --name b --json").await.unwrap()).unwrap();
    assert_eq!(created["key"].as_str().unwrap().len(), 71);
    let list = admin(&lab, "keys list").await.unwrap();
    assert!(list.contains(kid) && !list.contains(&key[22..65]), "{list}");

    let mut epoch = lab.lab.revocations.watch();
    epoch.mark_unchanged();
    admin(&lab, &format!("keys revoke {kid}")).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(5), epoch.changed()).await.unwrap().unwrap();
    assert_eq!(
        refusal(&lab, "keys revoke 000000000000").await,
        "there is no key 000000000000; `1k4-lab admin keys list` shows them"
    );
    // A whole key where its id belongs is refused and not repeated.
    assert!(!refusal(&lab, &format!("keys revoke {key}")).await.contains(&key[22..]));

    admin(&lab, "users add bob").await.unwrap();
    assert_eq!(refusal(&lab, "keys create").await, "there are several users; say which with --user NAME");
    admin(&lab, "keys create --user ada").await.unwrap();
    assert_eq!(refusal(&lab, "devices approve BCDF-GHJK --user ada").await, AdminError::UnknownCode.to_string());
    assert_eq!(refusal(&lab, "devices approve AEIOU --user ada").await, AdminError::InvalidCode.to_string());
    assert_eq!(refusal(&lab, "devices revoke box").await, "there is no device box in use; `1k4-lab admin devices list` shows them");
}
