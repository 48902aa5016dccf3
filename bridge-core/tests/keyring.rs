//! The device's key in a real GNOME Keyring: unlocked, locked, absent, and one that never answers.
//!
//! Each case runs this program once more, under a session bus, a home and a keyring of its own, so that the keyring of whoever runs
//! the tests is never touched. The inner halves are `#[ignore]`d: alone they would meet just that one.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests say what they expect by failing")]

use std::{
    env, fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use bridge_core::{
    config::Origin,
    credentials::{Credentials, Error, Store, new_key},
};

/// What the issue gives a locked or silent keyring until there is a typed error.
const LIMIT: Duration = Duration::from_secs(5);
/// Set for the inner halves.
const INSIDE: &str = "ONEK4_TEST_INSIDE_A_SESSION";

#[test]
fn an_unlocked_keyring_keeps_the_key() {
    inside_a_session("unlocked");
}

#[test]
fn a_locked_keyring_is_a_typed_error() {
    inside_a_session("locked");
}

#[test]
fn a_session_without_a_keyring_is_a_typed_error() {
    inside("absent", |home| {
        let mut test = Command::new(env::current_exe().unwrap());
        test.args(inner("absent")).env_remove("DBUS_SESSION_BUS_ADDRESS").env("XDG_RUNTIME_DIR", home.join("run"));
        test
    });
}

#[test]
fn a_keyring_that_never_answers_is_given_up() {
    inside("silent", |home| {
        let mut test = Command::new(env::current_exe().unwrap());
        test.args(inner("silent")).env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", home.join("silent.sock").display()));
        test
    });
}

#[tokio::test]
#[ignore = "run by an_unlocked_keyring_keeps_the_key"]
async fn unlocked() {
    let credentials = keyring("https://lab.example.com");
    assert_eq!(credentials.load().await.err(), Some(Error::NoEntry));
    credentials.delete().await.unwrap();

    let (first, second) = (new_key().unwrap(), new_key().unwrap());
    credentials.save(&first).await.unwrap();
    assert_eq!(credentials.load().await.unwrap().to_bytes(), first.to_bytes());
    credentials.save(&second).await.unwrap();
    assert_eq!(keyring("https://lab.example.com").load().await.unwrap().to_bytes(), second.to_bytes(), "read by another process");

    let other_lab = keyring("https://other.example.com");
    assert_eq!(other_lab.load().await.err(), Some(Error::NoEntry), "each Lab has a key of its own");
    other_lab.save(&first).await.unwrap();
    other_lab.delete().await.unwrap();
    assert_eq!(credentials.load().await.unwrap().to_bytes(), second.to_bytes());

    let attributes = run("secret-tool", &["search", "service", "1k4-bridge"]);
    let listed = String::from_utf8_lossy(&attributes.stdout).into_owned() + &String::from_utf8_lossy(&attributes.stderr);
    assert!(listed.contains("1K4 Bridge: key of this device"), "a person finds it by its name");

    credentials.delete().await.unwrap();
    assert_eq!(credentials.load().await.err(), Some(Error::NoEntry));
}

#[tokio::test]
#[ignore = "run by a_locked_keyring_is_a_typed_error"]
async fn locked() {
    let credentials = keyring("https://lab.example.com");
    let key = new_key().unwrap();
    credentials.save(&key).await.unwrap();
    let lock = [
        "call",
        "--session",
        "--dest=org.freedesktop.secrets",
        "--object-path=/org/freedesktop/secrets",
        "--method=org.freedesktop.Secret.Service.Lock",
        "['/org/freedesktop/secrets/collection/login']",
    ];
    let output = run("gdbus", &lock);
    assert!(output.status.success(), "{output:?}");

    let started = Instant::now();
    assert_eq!(credentials.load().await.err(), Some(Error::Locked));
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    assert_eq!(credentials.save(&key).await, Err(Error::Locked));
    assert_eq!(credentials.delete().await, Err(Error::Locked));
}

#[tokio::test]
#[ignore = "run by a_session_without_a_keyring_is_a_typed_error"]
async fn absent() {
    let credentials = keyring("https://lab.example.com");
    let started = Instant::now();
    assert_eq!(credentials.load().await.err(), Some(Error::Absent));
    assert_eq!(credentials.save(&new_key().unwrap()).await, Err(Error::Absent));
    assert_eq!(credentials.delete().await, Err(Error::Absent));
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
}

#[tokio::test]
#[ignore = "run by a_keyring_that_never_answers_is_given_up"]
async fn silent() {
    // A bus that takes the connection and says nothing.
    let bus = UnixListener::bind(home().join("silent.sock")).unwrap();
    let credentials = keyring("https://lab.example.com");
    let started = Instant::now();
    assert_eq!(credentials.load().await.err(), Some(Error::TimedOut));
    assert!(started.elapsed() < LIMIT, "{:?}", started.elapsed());
    let mut connection = bus.accept().unwrap().0;
    let mut first = [0];
    std::io::Read::read_exact(&mut connection, &mut first).unwrap();
    // The call is still stuck in its thread, and this test ends all the same.
}

fn keyring(lab: &str) -> Credentials {
    assert!(env::var_os(INSIDE).is_some(), "this test would use your own keyring: it is run by another one");
    Credentials::open(Store::Keyring, &lab.parse::<Origin>().unwrap()).unwrap()
}

/// Runs the inner test `name` under a session bus with a fresh, unlocked keyring.
fn inside_a_session(name: &str) {
    for (program, package) in [
        ("dbus-run-session", "dbus"),
        ("gnome-keyring-daemon", "gnome-keyring"),
        ("secret-tool", "libsecret-tools"),
        ("gdbus", "libglib2.0-bin"),
    ] {
        assert!(is_installed(program), "this test needs the program {program}: install the package {package}");
    }
    inside(name, |_| {
        // `exec` keeps the test's own exit status; the keyring ends with the bus.
        let script = "printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null && exec \"$@\"";
        let mut session = Command::new("dbus-run-session");
        session.args(["--", "sh", "-c", script, "sh"]).arg(env::current_exe().unwrap()).args(inner(name));
        session
    });
}

/// Runs `command` in a home of its own and checks that it passed and left no key in a file.
fn inside(name: &str, command: impl FnOnce(&Path) -> Command) {
    let home = env::temp_dir().join(format!("1k4-keyring-{name}-{}", std::process::id()));
    let run = home.join("run");
    fs::create_dir_all(&run).unwrap();
    for directory in [&home, &run] {
        fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
    let started = Instant::now();
    let mut command = command(&home);
    command.env(INSIDE, "1").env("HOME", &home).env("XDG_RUNTIME_DIR", &run);
    for elsewhere in ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "DISPLAY", "WAYLAND_DISPLAY", "GNOME_KEYRING_CONTROL"] {
        command.env_remove(elsewhere);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "the inner test did not run: {text}");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    // GNOME Keyring's own encrypted store and the sockets are all there may be.
    for file in files_under(&home) {
        let is_keyring = file.starts_with(home.join(".local/share/keyrings")) || file.starts_with(home.join(".cache"));
        assert!(is_keyring || file.starts_with(&run) || file.ends_with("silent.sock"), "an unexpected file: {}", file.display());
    }
    fs::remove_dir_all(&home).unwrap();
}

fn inner(name: &str) -> [&str; 4] {
    ["--exact", name, "--ignored", "--nocapture"]
}

fn home() -> PathBuf {
    PathBuf::from(env::var_os("HOME").unwrap())
}

fn is_installed(program: &str) -> bool {
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|directory| directory.join(program).is_file())
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

fn files_under(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| if entry.file_type().unwrap().is_dir() { files_under(&entry.path()) } else { vec![entry.path()] })
        .collect()
}
