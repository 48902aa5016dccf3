//! `1k4-lab admin` against a Lab that runs.

use clap::Parser;
use lab_server::{
    Config,
    admin::{self, Admin, AdminError},
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
    let store = Store::of(&Config::in_dir(&lab.dir)).await.unwrap();
    let cli = Cli::try_parse_from(std::iter::once("admin").chain(args.split(' '))).unwrap();
    let mut out = Vec::new();
    admin::run(&store, cli.admin, &Config::in_dir(&lab.dir), &mut out).await?;
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

#[tokio::test]
async fn terms_credits_and_usage_go_in_and_out_as_people_write_them() {
    let lab = TestLab::start().await;
    admin(&lab, "users add ada").await.unwrap();
    admin(&lab, "projects add home").await.unwrap();
    let create = "keys create --test --scope inference --spend-day 0.01 --spend-total 5 --rpm 60 --concurrent 2 --model gpt-5* \
                  --model local/* --expires 2100-03-01 --json";
    let created: serde_json::Value = serde_json::from_str(&admin(&lab, create).await.unwrap()).unwrap();
    let kid = created["kid"].as_str().unwrap();
    assert!(created["key"].as_str().unwrap().starts_with("1k4_test_"));
    assert_eq!(created["spending"], serde_json::json!({ "day": "0.01", "month": null, "total": "5" }));
    assert_eq!(created["rates"], serde_json::json!({ "requests_per_minute": 60, "tokens_per_minute": null, "concurrent": 2 }));
    assert_eq!(created["expires_at"], 47_541_i64 * 86_400_000);
    let list = admin(&lab, "keys list").await.unwrap();
    let terms = "test, inference, 0.01 credits a day, 5 credits in all, 60 requests/min, 2 at once, models gpt-5* local/*, until 2100-03-01";
    assert!(list.contains(terms), "{list}");
    let changed = admin(&lab, &format!("keys update {kid} --spend-day none --model none --scope usage --expires none --rpm none"))
        .await
        .unwrap();
    assert_eq!(changed, format!("changed {kid}: test, usage, 5 credits in all, 2 at once\n"));
    let new = admin(&lab, &format!("keys rotate {kid} --overlap 1h")).await.unwrap();
    assert_eq!(new.trim().len(), 71);
    assert_eq!(
        refusal(&lab, &format!("keys rotate {kid}")).await,
        format!("the key {kid} was revoked, has expired or was replaced; make a new one with `1k4-lab admin keys create`")
    );

    assert_eq!(admin(&lab, "credits grant 0.5 --once invoice-7").await.unwrap(), "0.5 credits given to ada, who has 0.5 now\n");
    let again = admin(&lab, "credits grant 0.5 --once invoice-7").await.unwrap();
    assert_eq!(again, "0.5 credits had been given before to ada, who has 0.5 now\n");
    assert_eq!(
        refusal(&lab, "credits grant 0.6 --once invoice-7").await,
        "something else was done once for this text; give another one with --once"
    );
    assert_eq!(admin(&lab, "credits adjust -0.25").await.unwrap(), "ada has 0.25 credits now\n");
    let holdings: serde_json::Value = serde_json::from_str(&admin(&lab, "credits show --json").await.unwrap()).unwrap();
    assert_eq!((&holdings[0]["balance"], &holdings[0]["free_requests_left"]), (&serde_json::json!("0.25"), &serde_json::json!(20)));
    let ledger = admin(&lab, "credits ledger").await.unwrap();
    assert!(ledger.contains("adjustment  -0.25") && ledger.contains("grant       0.5"), "{ledger}");

    assert_eq!(admin(&lab, "usage --by model --json").await.unwrap(), "[]\n");
    assert_eq!(refusal(&lab, "usage --from yesterday").await, "--from must be a UTC day such as 2026-11-20");
    admin(&lab, "projects update home --exact-usage on --tpm 1000 --name work").await.unwrap();
    let projects: serde_json::Value = serde_json::from_str(&admin(&lab, "projects list --json").await.unwrap()).unwrap();
    assert_eq!((&projects[0]["name"], &projects[0]["exact_usage"]), (&serde_json::json!("work"), &serde_json::json!(true)));
    admin(&lab, "users limits ada --rpm 10").await.unwrap();
    assert!(admin(&lab, "projects delete work").await.unwrap().contains("its keys have ended"));
    assert_eq!(admin(&lab, "projects list --json").await.unwrap(), "[]\n");
}
