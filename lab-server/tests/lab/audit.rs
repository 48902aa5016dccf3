//! `1k4-lab audit verify` beside a Lab that runs, and what people do with projects and keys in the log that it checks.

use http::StatusCode;
use lab_server::{
    lab::{
        content::Actor,
        operations::{Action, Operation, Part, Recorded},
    },
    store::Scope,
};
use sea_orm::{ConnectionTrait, Database};
use serde_json::{Value, json};

use crate::{
    client::TestLab,
    vault::{Folder, run},
};

/// What the command says as JSON, and its exit code.
async fn verify(lab: &TestLab, here: &Folder, more: &[&str]) -> (i32, Value) {
    let words = [&["--data-dir", lab.dir.to_str().unwrap(), "audit", "verify", "--json"], more].concat();
    let (code, stdout, stderr) = run(&here.0, &words).await;
    (code, serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}")))
}

async fn in_database(lab: &TestLab, sql: &str) {
    let db = Database::connect(format!("sqlite:{}", lab.dir.join("lab.sqlite").display())).await.unwrap();
    db.execute_unprepared(sql).await.unwrap();
}

#[tokio::test]
async fn the_command_names_the_first_bad_line_and_a_deleted_project_is_none() {
    let (lab, here) = (TestLab::start().await, Folder::new("audit"));
    let ada = lab.sign_in("ada").await;
    let made = ada.ask("POST", "/api/projects", Some(json!({ "name": "plans" }))).await.json();
    let second = made["id"].as_str().unwrap();
    for n in 0..5 {
        let operation = Operation::by_person(Action::TaskChanged, Some("t".into()), json!({ "n": n }));
        lab.lab.log.record(ada.user, ada.project, operation).await.unwrap();
    }
    lab.lab.log.sign_heads().await.unwrap();
    let (code, report) = verify(&lab, &here, &[]).await;
    assert_eq!((code, &report["sound"], report["logs"].as_array().unwrap().len()), (0, &json!(true), 2), "{report}");

    // Its lines stay, and nobody reads them.
    assert_eq!(ada.ask("DELETE", &format!("/api/projects/{second}"), None).await.status, StatusCode::NO_CONTENT);
    lab.lab.log.sign_heads().await.unwrap();
    let (code, report) = verify(&lab, &here, &["--project", second]).await;
    let log = &report["logs"][0];
    assert_eq!(
        (code, &log["rows"], &log["opened"], &log["signed_to"], &log["ended"]),
        (0, &json!(2), &json!(0), &json!(2), &json!(false))
    );
    assert_eq!(verify(&lab, &here, &[]).await.0, 0);

    in_database(&lab, &format!("UPDATE operations SET time = time + 1 WHERE seq = 3 AND project_id = '{}'", ada.project)).await;
    let (code, report) = verify(&lab, &here, &[]).await;
    let finding = json!({ "project": ada.project, "line": 3, "until": null, "problem": "changed" });
    assert_eq!((code, &report["sound"], &report["findings"]), (65, &json!(false), &json!([finding])));
    let (code, stdout, _) = run(&here.0, &["--data-dir", lab.dir.to_str().unwrap(), "audit", "verify"]).await;
    assert!(code == 65 && stdout.starts_with(&format!("{} line 3: it is not as it was written\n", ada.project)), "{stdout}");
    assert_eq!(verify(&lab, &here, &["--project", second]).await.0, 0);

    // A line that a head speaks for is gone, and all that follow; or the data are older than the heads.
    in_database(&lab, "DELETE FROM operations WHERE seq >= 3").await;
    let (code, report) = verify(&lab, &here, &[]).await;
    assert_eq!((code, &report["findings"][0]["problem"], &report["findings"][0]["line"]), (65, &json!("cut_off"), &json!(3)));
    let (_, stdout, _) = run(&here.0, &["--data-dir", lab.dir.to_str().unwrap(), "audit", "verify"]).await;
    assert!(stdout.contains("\nafter a restore: keep the file of heads under another name"), "{stdout}");
    // A file that was named must be there.
    let (code, _, stderr) = run(&here.0, &["--data-dir", lab.dir.to_str().unwrap(), "audit", "verify", "--heads", "none"]).await;
    assert_eq!((code, stderr.contains("cannot use the file of signed heads")), (1, true), "{stderr}");
}

#[tokio::test]
async fn the_owner_of_the_lab_deletes_an_account_beside_it() {
    let (lab, here) = (TestLab::start().await, Folder::new("delete"));
    let (ada, eve) = (lab.sign_in("ada").await, lab.sign_in("eve").await);
    let key = lab.key(ada.project, &Scope::ALL).await;
    let operation = || Operation::by_person(Action::TaskCreated, Some("t".into()), json!(null));
    for person in [&ada, &eve] {
        lab.lab.log.record(person.user, person.project, operation()).await.unwrap();
    }
    lab.lab.log.sign_heads().await.unwrap();
    let held = lab.lab.store.vault().key(lab_server::vault::Scope::User(ada.user)).await.unwrap();
    let delete = ["--data-dir", lab.dir.to_str().unwrap(), "admin", "users", "delete", "ada", "--confirm"];
    let (code, _, stderr) = run(&here.0, &[&delete[..], &["eve"]].concat()).await;
    assert!(code != 0 && !stderr.is_empty());
    assert_eq!(ada.ask("GET", "/api/account", None).await.status, StatusCode::OK);
    let (code, stdout, stderr) = run(&here.0, &[&delete[..], &["ada"]].concat()).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("deleted ada ("), "{stdout}");
    let since = std::time::Instant::now();
    while !held.is_gone() {
        assert!(since.elapsed() < std::time::Duration::from_secs(1), "a key that was deleted stays open here");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(ada.ask("GET", "/api/account", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(lab.ask(&key, "GET", "/api/account", None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(eve.ask("GET", "/api/account", None).await.status, StatusCode::OK);
    let (code, report) = verify(&lab, &here, &[]).await;
    let ended =
        |project| report["logs"].as_array().unwrap().iter().find(|log| log["project"] == json!(project)).unwrap()["ended"].clone();
    assert_eq!((code, ended(ada.project), ended(eve.project)), (0, json!(true), json!(false)), "{report}");
}

#[tokio::test]
async fn what_is_done_with_projects_and_keys_is_in_the_log_with_who_did_it() {
    let lab = TestLab::start().await;
    let ada = lab.sign_in("ada").await;
    let program = lab.key(ada.project, &[Scope::Manage]).await;
    let made = ada.ask("POST", "/api/projects", Some(json!({ "name": "plans" }))).await.json();
    let project = made["id"].as_str().unwrap();
    let renamed = lab.ask(&program, "PATCH", &format!("/api/projects/{project}"), Some(json!({ "name": "travels" }))).await;
    assert_eq!(renamed.status, StatusCode::OK);
    let new = ada.ask("POST", &format!("/api/projects/{project}/keys"), Some(json!({ "name": "ci" }))).await.json();
    let kid = new["kid"].as_str().unwrap();
    let changed = ada.ask("PATCH", &format!("/api/keys/{kid}"), Some(json!({ "name": "ci2" }))).await;
    assert_eq!(changed.status, StatusCode::OK);
    let next = lab.ask(&program, "POST", &format!("/api/keys/{kid}/rotate"), Some(json!({ "overlap_s": 60 }))).await.json();
    let next_kid = next["kid"].as_str().unwrap();
    for _ in 0..2 {
        assert_eq!(ada.ask("DELETE", &format!("/api/keys/{next_kid}"), None).await.status, StatusCode::NO_CONTENT);
    }
    let rows = lab.lab.log.read(ada.user, project.parse().unwrap(), Part::After(0), 100).await.unwrap();
    let by_key = Actor::Program { key: program[9..21].to_owned() };
    let said = |row: &Recorded| (row.operation.action, row.operation.actor.clone(), row.operation.target.clone().unwrap());
    assert_eq!(
        rows.iter().map(said).collect::<Vec<_>>(),
        [
            (Action::ProjectCreated, Actor::Person, project.to_owned()),
            (Action::ProjectChanged, by_key.clone(), project.to_owned()),
            (Action::KeyCreated, Actor::Person, kid.to_owned()),
            (Action::KeyChanged, Actor::Person, kid.to_owned()),
            (Action::KeyChanged, by_key, kid.to_owned()),
            (Action::KeyRevoked, Actor::Person, next_kid.to_owned()),
        ]
    );
    assert_eq!(rows[1].operation.arguments["name"], "travels");
    assert_eq!(rows[4].operation.arguments, json!({ "replaced_by": next_kid, "overlap_s": 60 }));
    let all = format!("{rows:?}");
    for key in [&new["key"], &next["key"]] {
        assert!(!all.contains(&key.as_str().unwrap()[22..65]));
    }
    assert_eq!(lab.ask(&program, "DELETE", &format!("/api/projects/{project}"), None).await.status, StatusCode::NO_CONTENT);
    assert!(lab.lab.log.verify(project.parse().unwrap()).await.unwrap().sound);
}
