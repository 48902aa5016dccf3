//! `1k4-lab check`, as its owner runs it.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

struct Folder(PathBuf);

impl Folder {
    fn new(config: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("1k4-check-{}", wire::RequestId::random()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("1k4-lab.toml"), config).unwrap();
        Self(folder)
    }

    /// Runs the program in the folder; what it prints, what it complains of, and its exit code.
    async fn check(&self, args: &[&str]) -> (i32, String, String) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_1k4-lab"));
        program.arg("check").args(args).current_dir(&self.0).env("ONEK4_TEST_SECRET", "sk-CANARY").env_remove("ONEK4_UNSET");
        let Output { status, stdout, stderr } = tokio::task::spawn_blocking(move || program.output()).await.unwrap().unwrap();
        let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert!(!stdout.contains("CANARY") && !stderr.contains("CANARY"), "{stdout}{stderr}");
        (status.code().unwrap(), stdout, stderr)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn openai(settings: &str) -> String {
    format!("[[providers]]\nname = \"openai\"\n[[providers.channels]]\nname = \"openai-1\"\n{settings}\n")
}

#[tokio::test]
async fn every_mistake_is_said_at_once() {
    let folder = Folder::new(&format!("listen = 1\n{}trial = 2\n", openai("secret = \"sk-CANARY\"\nweight = 0")));
    let expected = "1k4-lab: 1k4-lab.toml:1: listen must be a text in quotes\n\
                    1k4-lab: 1k4-lab.toml:6: a secret does not stand in this file; say where it lies: { env = \"ONEK4_…\" }, \
                    { file = \"path\" } or { keyring = \"account\" }, and change the secret if this file was ever shared\n\
                    1k4-lab: 1k4-lab.toml:7: weight must be a whole number from 1 to 1000\n\
                    1k4-lab: 1k4-lab.toml:8: unknown field `trial` in channels, expected one of name, kind, base_url, secret, priority, \
                    weight, models, deployments, api_version\n";
    let (code, stdout, stderr) = folder.check(&[]).await;
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (78, "", expected));
    let (code, stdout, _) = folder.check(&["--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["ok"], report["mistakes"].as_array().unwrap().len()), (78, &false.into(), 4));
    assert_eq!(report["mistakes"][0], serde_json::json!({ "line": 1, "problem": "listen must be a text in quotes" }));
}

#[tokio::test]
async fn a_secret_that_is_missing_is_found_before_a_caller_is_refused() {
    let good = Folder::new(&openai("secret = { env = \"ONEK4_TEST_SECRET\" }"));
    let (code, stdout, stderr) = good.check(&[]).await;
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.ends_with("the configuration is valid; 1 channel\n"), "{stdout}");
    let report: serde_json::Value = serde_json::from_str(&good.check(&["--json"]).await.1).unwrap();
    assert_eq!(
        (&report["ok"], &report["channels"][0]["secret"], &report["channels"][0]["probe"]),
        (&true.into(), &"ok".into(), &serde_json::Value::Null)
    );
    assert!(report["channels"][0]["models"].as_u64().unwrap() > 10, "{report}");

    let unset = Folder::new(&openai("secret = { env = \"ONEK4_UNSET\" }"));
    let (code, stdout, _) = unset.check(&["--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 78);
    assert_eq!(
        report["problems"],
        serde_json::json!([
            "the channel openai-1 has no secret: the environment variable ONEK4_UNSET is not set; set it for the process that runs 1k4-lab"
        ])
    );
}

#[tokio::test]
async fn the_secrets_of_signing_in_and_of_mail_are_looked_for_too() {
    let config = |secret: &str| {
        format!(
            "[[sign_in.providers]]\nname = \"acme\"\nkind = \"google\"\nclient_id = \"lab\"\nclient_secret = {secret}\n\
             [[sign_in.providers]]\nname = \"hub\"\nkind = \"github\"\nclient_id = \"lab\"\nclient_secret = {secret}\n\
             [mail]\nfrom = \"lab@example.com\"\n[mail.http]\nurl = \"https://mail.example.com/send\"\nsecret = {secret}\n"
        )
    };
    let good = Folder::new(&config("{ env = \"ONEK4_TEST_SECRET\" }"));
    let (code, stdout, stderr) = good.check(&[]).await;
    assert_eq!((code, stdout.lines().last(), stderr.as_str()), (0, Some("the configuration is valid; 0 channels"), ""));
    let unset = Folder::new(&config("{ env = \"ONEK4_UNSET\" }"));
    let (code, stdout, _) = unset.check(&["--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let why = "the environment variable ONEK4_UNSET is not set; set it for the process that runs 1k4-lab";
    let problems = ["acme", "hub", "mail"].map(|whose| format!("the way of signing in {whose} has no secret: {why}"));
    assert_eq!((code, &report["problems"]), (78, &serde_json::json!(problems)));
}

#[tokio::test]
async fn a_probe_tells_who_answers_and_who_refuses() {
    let provider = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = provider.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut seen = Vec::new();
        // One channel comes with its secret and the other without.
        for _ in 0..2 {
            let (mut tcp, _) = provider.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                tcp.read_buf(&mut head).await.unwrap();
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let status = if head.contains("authorization: bearer sk-canary") { "200 OK" } else { "401 Unauthorized" };
            tcp.write_all(
                format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}").as_bytes(),
            )
            .await
            .unwrap();
            seen.push(head.lines().next().unwrap().to_owned());
        }
        seen
    });
    let channel = |name: &str, url: &str, secret: &str| {
        format!("[[providers.channels]]\nname = \"{name}\"\nbase_url = \"{url}\"\n{secret}\n")
    };
    let here = format!("http://{address}");
    let folder = Folder::new(&format!(
        "[[providers]]\nname = \"openai\"\nkind = \"openai-compatible\"\n{}{}{}",
        channel("good", &here, "secret = { env = \"ONEK4_TEST_SECRET\" }"),
        channel("bad", &here, ""),
        channel("gone", "http://127.0.0.1:1", ""),
    ));
    let (code, stdout, _) = folder.check(&["--probe", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let probes: Vec<&str> =
        report["channels"].as_array().unwrap().iter().map(|channel| channel["probe"].as_str().unwrap()).collect();
    assert_eq!(
        probes,
        [
            "ok",
            "refuses the secret; check that it is this provider's and still valid",
            "cannot be reached; check base_url, the network and ca_file"
        ]
    );
    assert_eq!((code, report["problems"].as_array().unwrap().len()), (78, 2));
    assert_eq!(serving.await.unwrap(), ["get /v1/models http/1.1", "get /v1/models http/1.1"]);
}
