//! "Prompts are never stored" is a property of what this crate is built from. These tests fail when it no longer is.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
#![expect(clippy::disallowed_types, reason = "it is cargo that is started here, and the proxy is not what starts it")]

use std::{
    collections::{BTreeSet, HashMap},
    process::Command,
};

use serde_json::Value;

/// What could keep or carry off a prompt: databases, caches, a web framework with its file server, an HTTP client that follows
/// redirects and knows proxies. `hyper` is below that: it speaks over sockets that `upstream/dial.rs` opens.
const FORBIDDEN: [&str; 16] = [
    "sqlx",
    "sqlx-core",
    "sea-orm",
    "sea-query",
    "rusqlite",
    "libsqlite3-sys",
    "redis",
    "sled",
    "fjall",
    "heed",
    "rocksdb",
    "moka",
    "axum",
    "tower-http",
    "reqwest",
    "tempfile",
];

#[test]
fn nothing_under_the_proxy_can_store() {
    let tree = dependencies_of("api-proxy");
    assert!(tree.contains("wire") && tree.contains("http-body-util"), "the tree was not read: {tree:?}");
    let found: Vec<_> = FORBIDDEN.iter().filter(|name| tree.contains(**name)).collect();
    assert_eq!(found, Vec::<&&str>::new());
}

#[test]
fn the_test_would_see_a_database() {
    assert!(dependencies_of("lab-server").contains("sea-orm"));
}

/// Names of the packages that `package` is built from, over any number of steps; those of tests and build scripts left out.
fn dependencies_of(package: &str) -> BTreeSet<String> {
    // What was built here is all there is to ask about: without a platform, cargo wants the packages of every other one as well.
    let version = said(Command::new("rustc").arg("-vV"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata: Value = serde_json::from_str(&said(
        Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", host, "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")),
    ))
    .unwrap();

    let list = |value: &Value| value.as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let names: HashMap<_, _> = list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
    let normal = |node: &Value| -> Vec<String> {
        let is_normal = |dep: &&Value| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
        list(&node["deps"]).iter().filter(is_normal).map(|dep| text(&dep["pkg"])).collect()
    };
    let nodes: HashMap<_, _> = list(&metadata["resolve"]["nodes"]).iter().map(|n| (text(&n["id"]), normal(n))).collect();

    let mut open = vec![names.iter().find(|(_, name)| *name == package).unwrap().0.clone()];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id.clone()) {
            open.extend(nodes[&id].iter().cloned());
        }
    }
    seen.iter().map(|id| names[id].clone()).collect()
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
