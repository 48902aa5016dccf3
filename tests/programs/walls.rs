//! Row 14 and threats T11 and T14: who else on the machine can reach the bridge. Nobody over TCP, no other user through the socket,
//! no browser, nobody through its memory or what is left of it.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        process::ExitStatusExt,
    },
};

use journeys::programs::{Machine, Pair, Said, Service, until};
use rustix::process::Signal;

/// Nobody in particular, and somebody else.
const OWNER: u32 = 65_534;
const STRANGER: u32 = 65_533;

async fn linked() -> Pair {
    assert!(rustix::process::geteuid().is_root(), "only root can be several users: run `cargo xtask test` as root");
    let pair = Pair::paired(&[], |machine| machine.of_user(OWNER)).await;
    pair.workstation.wait_until_linked(0);
    pair
}

/// `GET /v1/status` on the control socket, with these words for curl.
fn ask(machine: &Machine, words: &[&str]) -> Said {
    let socket = machine.runtime_dir().join("1k4/bridge.sock").display().to_string();
    let always = ["--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_code}", "--unix-socket", &socket];
    machine.say_tool("curl", &[&always, words, &["http://1k4-bridge/v1/status"]].concat())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the release programs: cargo xtask test"]
async fn nobody_else_reaches_the_bridge() {
    let pair = linked().await;
    let machine = &pair.workstation.machine;
    let bridge = format!("pid={},", pair.workstation.bridge().id());
    let lab = format!("pid={},", pair.lab.service().id());
    let listeners = machine.used_by(0).say_tool("ss", &["--listening", "--tcp", "--numeric", "--processes"]);
    assert!(listeners.out.contains(&lab), "ss shows who listens: {listeners:?}");
    assert!(!listeners.out.contains(&bridge), "the bridge listens on TCP: {}", listeners.out);
    let listeners = machine.used_by(0).say_tool("ss", &["--listening", "--unix", "--processes"]);
    let sockets: Vec<&str> = listeners.out.lines().filter(|line| line.contains(&bridge)).collect();
    assert!(matches!(sockets[..], [one] if one.contains("/1k4/bridge.sock")), "one socket: {sockets:?}");

    let directory = machine.runtime_dir().join("1k4");
    let socket = directory.join("bridge.sock");
    for (path, mode) in [(&directory, 0o700), (&socket, 0o600)] {
        let found = fs::symlink_metadata(path).expect("it is there");
        assert_eq!((found.uid(), found.mode() & 0o7777), (OWNER, mode), "{}", path.display());
    }
    assert!(fs::symlink_metadata(&socket).expect("it is there").file_type().is_socket());

    let ours = ask(machine, &[]);
    assert!(ours.out.ends_with("\n200") && ours.out.contains("\"state\":\"online\""), "{ours:?}");
    for foreign in [
        "Host: localhost",
        "Host: 127.0.0.1",
        "Host: 1k4-bridge.example.com",
        "Host:",
        "Origin: https://evil.example.com",
        "Origin: null",
        "Origin: http://1k4-bridge",
        "Referer: https://evil.example.com/",
    ] {
        let refused = ask(machine, &["--header", foreign]);
        assert!(refused.out.ends_with("\n403") && !refused.out.contains("online"), "{foreign}: {refused:?}");
    }

    // The first wall: the directory.
    let stranger = ask(&machine.used_by(STRANGER), &[]);
    assert_eq!((stranger.code, stranger.out.as_str()), (7, "\n000"), "{stranger:?}");
    // The last wall: whom the system says the peer is. Root passes the others.
    let root = ask(&machine.used_by(0), &[]);
    assert!(root.out.ends_with("\n000") && root.code != 0, "{root:?}");
    until("the bridge to have noted it", || {
        pair.workstation.bridge().err().contains("another user tried the control socket").then_some(())
    });
    let command = machine.used_by(0).say("1k4-bridge", &["status"]);
    assert_ne!(command.code, 0, "{}", command.out);
    assert_eq!(pair.workstation.status()["link"]["state"], "online", "and it goes on");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and the release programs: cargo xtask test"]
async fn no_prompt_is_left_in_a_core_dump() {
    let mut pair = linked().await;
    drop(pair.workstation.take_bridge());
    let machine = pair.workstation.machine.clone();
    // Whoever started it allows dumps.
    let allowing = |program: &str, words: &[&str]| {
        let line = ["-c", r#"ulimit -c "$(ulimit -H -c)" && exec "$@""#, "sh", program];
        machine.start_tool("sh", &[&line[..], words].concat())
    };
    let bridge = allowing(&machine.program("1k4-bridge").display().to_string(), &["run"]);
    until("the bridge to answer", || (pair.workstation.say(&["status"]).code == 0).then_some(()));
    let control = allowing("sleep", &["600"]);
    until("the other program to run", || fs::read_link(process(&control, "exe")).ok().filter(|path| path.ends_with("sleep")));
    assert_ne!(core_limit(&control), ("0".into(), "0".into()), "this machine allows no dumps at all, which shows nothing");

    // What a process that forbids dumps has under /proc belongs to root: its own user's other programs cannot read its memory.
    let owner_of_memory = |service| fs::metadata(process(service, "mem")).expect("a process").uid();
    assert_eq!((owner_of_memory(&bridge), owner_of_memory(&control)), (0, OWNER));
    for service in [&bridge, pair.lab.service()] {
        assert_eq!(core_limit(service), ("0".into(), "0".into()), "process {}", service.id());
    }
    let memory = format!("/proc/{}/mem", bridge.id());
    let reading = |user| machine.used_by(user).say_tool("head", &["--bytes=0", &memory]);
    assert!(reading(OWNER).err.contains("Permission denied"), "its own user reads its memory");

    let crashed = [(&bridge, false), (pair.lab.service(), false), (&control, true)].map(|(service, dumps)| {
        service.signal(Signal::ABORT);
        let end = service.end();
        assert_eq!(end.signal(), Some(6), "{end}");
        (end.core_dumped(), dumps)
    });
    assert!(crashed.iter().all(|(did, should)| did == should), "{crashed:?}");
    assert!(!pair.lab.machine.home().join("core").exists(), "the Lab left its memory");
}

fn process(service: &Service, file: &str) -> String {
    format!("/proc/{}/{file}", service.id())
}

/// The soft and the hard limit on the size of a dump.
fn core_limit(service: &Service) -> (String, String) {
    let limits = fs::read_to_string(process(service, "limits")).expect("its limits");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("the limit on dumps");
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().expect("the soft limit"), words.next().expect("the hard limit"))
}
