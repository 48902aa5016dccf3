//! The program from the outside: what it prints, how it exits, what it opens and what it leaves behind.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_1k4-bridge");
/// A port that is given to nobody: what is dialled there is refused at once.
const NOBODY: &str = "127.0.0.1:1";
const LIMIT: Duration = Duration::from_secs(30);

/// A home of one test's own, removed with it.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("1k4-cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        let home = Self(path);
        home.settings("credential_store = \"insecure-file\"\n");
        home
    }

    fn settings(&self, text: &str) {
        fs::write(self.0.join("config.toml"), text).unwrap();
    }

    /// A pairing with a Lab that is not there.
    fn pair(&self) {
        let state = self.0.join("state");
        make_private(&state);
        let device = "dev_00000000000000000000000000";
        fs::write(state.join("device.toml"), format!("lab = \"https://{NOBODY}\"\ndevice = \"{device}\"\nowner = \"Ada\"\n"))
            .unwrap();
        let key = state.join("device-key");
        fs::write(&key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").unwrap();
        set_mode(&key, 0o600);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.0)
            .env("ONEK4_CONFIG", self.0.join("config.toml"))
            .env("ONEK4_STATE_DIR", self.0.join("state"))
            .env("OLLAMA_HOST", NOBODY)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What `arguments --json` prints, as one document.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts the bridge and waits until it has said `line`.
    fn bridge(&self, line: &str) -> Bridge {
        let bridge = Bridge::start(&mut self.command(&["run"]));
        bridge.wait_for_line(line);
        bridge
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What a failed test leaves is not worth a second panic.
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Bridge {
    child: Child,
    /// What it says on standard error, line by line.
    lines: mpsc::Receiver<String>,
}

impl Bridge {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (said, lines) = mpsc::channel();
        // A test that has ended listens no more.
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
        Self { child, lines }
    }

    fn wait_for_line(&self, part: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("the bridge did not say {part:?}"));
            if line.contains(part) {
                return;
            }
        }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Its exit code and the rest of what it said, once it has ended.
    fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + LIMIT;
        let mut rest = String::new();
        // The lines end with the process.
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            rest.push_str(&line);
            rest.push('\n');
        }
        assert!(Instant::now() < deadline, "the bridge did not end: {rest}");
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Gone already where the test got to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn make_private(path: &std::path::Path) {
    fs::create_dir_all(path).unwrap();
    set_mode(path, 0o700);
}

fn stderr_json(output: &Output) -> Value {
    serde_json::from_slice::<Value>(&output.stderr).unwrap_or_else(|_| panic!("{output:?}"))["error"].take()
}

#[test]
fn every_verb_explains_itself() {
    let home = Home::new();
    let verbs: [&[&str]; 31] = [
        &[],
        &["login"],
        &["logout"],
        &["run"],
        &["status"],
        &["pause"],
        &["resume"],
        &["models"],
        &["models", "list"],
        &["models", "pull"],
        &["models", "rm"],
        &["models", "unload"],
        &["policy"],
        &["policy", "show"],
        &["policy", "set"],
        &["policy", "allow"],
        &["policy", "deny"],
        &["activity"],
        &["logs"],
        &["retry"],
        &["doctor"],
        &["service"],
        &["service", "install"],
        &["service", "uninstall"],
        &["service", "status"],
        &["completions"],
        // The same verbs in another order of words.
        &["--json", "status"],
        &["--json", "models", "list"],
        &["--system", "status"],
        &["--json", "doctor"],
        &["--json", "logs"],
    ];
    for verb in verbs {
        let output = home.run(&[verb, &["--help"]].concat());
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(output.status.code(), Some(0), "{verb:?}");
        assert!(text.contains("Usage: 1k4-bridge") && text.contains("--json"), "{verb:?}: {text}");
        assert!(!text.contains('\x1b'), "{verb:?} is coloured though nobody sees it");
    }
    let help = String::from_utf8(home.run(&["--help"]).stdout).unwrap();
    for line in ["   0  done", "   3  the bridge is not running", "  75  not now", "  78  the configuration has to change"] {
        assert!(help.contains(line), "{line:?} in {help}");
    }
}

#[test]
fn exit_codes_say_what_happened() {
    let home = Home::new();
    let check = |arguments: &[&str], exit: i32, code: &str| {
        let output = home.run(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {output:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        assert_eq!(stderr_json(&output)["code"], code, "{arguments:?}");
    };
    for verb in ["status", "resume", "models", "policy", "activity", "logs", "retry", "pause"] {
        check(&[verb], 3, "not_running");
    }
    check(&["logout"], 4, "not_paired");
    check(&["login", &format!("https://{NOBODY}")], 75, "unreachable");
    for usage in
        [vec!["bogus"], vec!["pause", "--for", "5"], vec!["login", "http://lab.example.com"], vec!["models", "pull", "a b"], vec![]]
    {
        assert_eq!(home.run(&usage).status.code(), Some(2), "{usage:?}");
    }
    home.settings("labb = \"https://lab.example.com\"\n");
    check(&["status"], 78, "config");
    let doctor = home.run(&["doctor", "--json"]);
    assert_eq!(doctor.status.code(), Some(6));
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(
        (&report["ok"], &report["checks"][0]["check"], &report["checks"][0]["state"]),
        (&json!(false), &json!("configuration"), &json!("fail"))
    );
    assert!(report["checks"][0]["detail"].as_str().unwrap().contains("config.toml:1"), "{report}");
}

#[test]
fn people_get_one_sentence() {
    let home = Home::new();
    let output = home.run(&["status"]);
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "1k4-bridge: the bridge is not running; start it with `1k4-bridge run`, or `1k4-bridge service install` to have it always on\n"
    );
}

#[test]
fn a_login_that_comes_to_nothing_leaves_nothing() {
    let home = Home::new();
    let output = home.run(&["login", &format!("https://{NOBODY}"), "--insecure-file-store"]);
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let left: Vec<_> = fs::read_dir(home.0.join("state"))
        .map_or_else(|_| Vec::new(), |files| files.map(|file| file.unwrap().file_name()).collect());
    assert_eq!(left, Vec::<std::ffi::OsString>::new());
}

#[test]
fn completions_know_the_verbs() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = home.run(&["completions", shell]);
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("1k4-bridge") && script.contains("doctor") && script.contains("unload"), "{shell}");
    }
    assert_eq!(home.run(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn a_running_bridge_answers_every_verb_in_json() {
    let home = Home::new();
    let bridge = home.bridge("Not paired with a Lab");
    assert_eq!(home.json(&["status"])["link"], json!({"state": "unpaired"}));
    assert_eq!(home.json(&["pause", "--for", "1h"]), json!({"ok": true}));
    assert_eq!(home.json(&["status"])["pause"]["state"], "paused");
    assert_eq!(home.json(&["resume"]), json!({"ok": true}));
    assert_eq!(home.json(&["status"])["pause"], json!({"state": "serving"}));
    assert_eq!(home.json(&["models"])["models"], json!([]));
    assert_eq!(home.json(&["activity"]), json!({"activity": []}));
    assert_eq!(home.json(&["retry"]), json!({"ok": true}));
    assert_eq!(home.json(&["policy", "set", "max_concurrent", "2"])["max_concurrent"], 2);
    assert_eq!(home.json(&["policy", "deny", "llama3.2"])["denied"], json!(["llama3.2"]));
    assert_eq!(home.json(&["policy", "allow", "llama3.2"])["denied"], json!([]));
    assert_eq!(home.json(&["policy"])["max_concurrent"], 2);
    let refused = home.run(&["policy", "set", "max_concurrent", "0", "--json"]);
    assert_eq!((refused.status.code(), stderr_json(&refused)["code"].clone()), (Some(1), json!("invalid_policy")));
    let logs = String::from_utf8(home.run(&["logs", "--json"]).stdout).unwrap();
    let first: Value = serde_json::from_str(logs.lines().next().unwrap()).unwrap();
    assert_eq!(first["level"], "warn", "{logs}");
    let second = home.run(&["run", "--json"]);
    assert_eq!((second.status.code(), stderr_json(&second)["code"].clone()), (Some(1), json!("already_running")));

    bridge.signal("TERM");
    let (code, rest) = bridge.end();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("asked to stop"), "{rest}");
    assert!(!home.0.join("state/bridge.sock").exists());
    assert_eq!(home.run(&["status"]).status.code(), Some(3));
}

#[test]
fn the_state_is_told_in_words_first() {
    let home = Home::new();
    let _bridge = home.bridge("Not paired with a Lab");
    let text = String::from_utf8(home.run(&["status"]).stdout).unwrap();
    assert!(text.starts_with("● Not paired with a Lab\n  Pair it with `1k4-bridge login https://your-lab`.\n"), "{text}");
    let mut watching = home.command(&["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["pause"], json!({"state": "serving"}));
    assert!(home.run(&["pause"]).status.success());
    let paused = lines
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find(|status| status["pause"]["state"] == "paused");
    assert_eq!(paused.unwrap()["pause"], json!({"state": "paused", "until_ms": null}));
    watching.kill().unwrap();
    watching.wait().unwrap();
}

/// Row 14: `ss` lists no TCP listener of the bridge. That it would is shown by a listener of this test's own.
#[test]
fn no_tcp_port_is_opened() {
    let home = Home::new();
    home.pair();
    let bridge = home.bridge("No link to");
    let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = Command::new("ss").args(["-H", "-l", "-n", "-t", "-u", "-p"]).output().expect("ss is there (package iproute2)");
    let listeners = String::from_utf8(output.stdout).unwrap();
    assert!(listeners.contains(&format!("pid={},", std::process::id())), "{listeners}");
    assert!(!listeners.contains(&format!("pid={},", bridge.child.id())), "{listeners}");
    drop(own);
    bridge.signal("INT");
    assert_eq!(bridge.end().0, Some(0));
}

#[test]
fn secrets_are_neither_arguments_nor_environment() {
    let home = Home::new();
    home.pair();
    let bridge = home.bridge("No link to");
    let proc = PathBuf::from(format!("/proc/{}", bridge.child.id()));
    for file in ["cmdline", "environ"] {
        // Not readable for others than root: the process is not dumpable.
        let Ok(text) = fs::read(proc.join(file)) else { continue };
        assert!(!text.windows(12).any(|part| part == b"BwcHBwcHBwcH"), "{file}");
    }
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
}

#[test]
fn a_service_manager_is_told_when_it_is_up_how_it_is_and_that_it_lives() {
    let home = Home::new();
    home.pair();
    let address = home.0.join("notify");
    let socket = UnixDatagram::bind(&address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let bridge = Bridge::start(home.command(&["run"]).env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "200000"));
    let receive = || {
        let mut buffer = [0; 4096];
        let count = socket.recv(&mut buffer).expect("the bridge says something in time");
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    };
    let mut heard = Vec::new();
    let wanted = ["READY=1", &format!("STATUS=No link to https://{NOBODY}"), "WATCHDOG=1"];
    while !wanted.iter().all(|wanted| heard.iter().any(|line| line == wanted)) {
        heard.extend(receive().lines().map(str::to_owned));
    }
    bridge.signal("TERM");
    while !heard.iter().any(|line| line == "STOPPING=1") {
        heard.extend(receive().lines().map(str::to_owned));
    }
    assert_eq!(bridge.end().0, Some(0));
}

#[test]
fn an_unpaired_service_ends_with_78_and_is_not_restarted() {
    let home = Home::new();
    let address = home.0.join("notify");
    let _socket = UnixDatagram::bind(&address).unwrap();
    let output = home.command(&["run", "--json"]).env("NOTIFY_SOCKET", &address).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().last().unwrap().starts_with("{\"error\":{\"code\":\"not_paired\""), "{said}");
}

#[test]
fn the_doctor_names_cause_and_cure() {
    let home = Home::new();
    home.pair();
    let output = home.command(&["doctor", "--json"]).env("PATH", "/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = |check: &str| {
        report["checks"].as_array().unwrap().iter().find(|row| row["check"] == check).unwrap_or_else(|| panic!("{check}: {report}"))
    };
    for (check, state, detail) in [
        ("configuration", "pass", "config.toml"),
        ("ollama", "fail", "not installed"),
        ("ollama version", "skip", ""),
        ("pairing", "pass", "for Ada"),
        ("device key", "warn", "device-key"),
        ("network", "fail", "no connection to 127.0.0.1:1"),
        ("tls", "skip", ""),
        ("clock", "skip", ""),
        ("link", "warn", "not running"),
    ] {
        assert_eq!(row(check)["state"], state, "{report}");
        assert!(row(check)["detail"].as_str().unwrap().contains(detail), "{report}");
        assert_eq!(row(check)["action"].is_string(), matches!(state, "fail" | "warn"), "{report}");
    }
}

/// Without systemd as the first process there is a sentence, and nothing is written.
#[test]
fn a_service_without_systemd_is_refused_with_a_reason() {
    let home = Home::new();
    let output = home.command(&["service", "install", "--json"]).env("PATH", "/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(stderr_json(&output)["code"], "no_systemd");
    assert!(!home.0.join(".config/systemd").exists());
}
