//! Row 6: what requests cost is the same in the ledger, in the records and in the balance, to the nano-credit, and no answered
//! request is without its record, however often the Lab is killed; and when its disk is full, it lets nobody in rather than lose one.

mod books;
mod crowd;
mod menu;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use journeys::{
    fake_provider::FakeProvider,
    programs::{Lab, Machine, PATIENCE, test_dir, until},
};
use lab_server::{
    Config,
    store::{Store, User},
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use books::{Books, Tally};
use crowd::{Crowd, End};
use menu::{Dice, Guest, SECRETS};

/// Clients at once.
const CLIENTS: usize = 32;
/// What the one who pays is given, in nano-credits.
const GIVEN: i64 = 1_000 * 1_000_000_000;

/// A Lab with providers, two people and their keys.
struct House {
    lab: Lab,
    keys: HashMap<Guest, String>,
    /// Where the data is, if not on the test's own disk. It goes before the folder that it is mounted in.
    disk: Option<Disk>,
    dir: TempDir,
    _fake: FakeProvider,
}

impl House {
    /// `limit` is what the keys with a limit may spend, in credits.
    fn open(limit: &str, disk: impl FnOnce(&Path) -> Option<Disk>) -> Self {
        let dir = test_dir();
        let fake = FakeProvider::start_forgetful(([127, 0, 0, 1], 0).into(), None, None, 2).expect("the fake providers");
        let machine = Machine::new(dir.path().join("lab"));
        for (name, kind) in SECRETS {
            machine.write_private(&format!(".config/1k4-lab/{name}.secret"), &fake.key(kind));
        }
        machine.write(".config/1k4-lab/1k4-lab.toml", &menu::configuration(&fake));
        let disk = disk(&data_dir(&machine));
        let lab = Lab::serve(machine, ([127, 0, 0, 1], 0).into(), "https://localhost");
        for words in [
            "users add ada",
            "users add eve",
            "projects add work --user ada",
            "projects add exact --user ada",
            "projects update exact --user ada --exact-usage on",
            "projects add trial --user eve",
            "credits grant 1000 --user ada",
        ] {
            lab.admin(&words.split(' ').collect::<Vec<_>>());
        }
        let of = [
            (Guest::Plain, "--user ada --project work".to_owned()),
            (Guest::Exact, "--user ada --project exact".to_owned()),
            (Guest::Daily, format!("--user ada --project work --spend-day {limit}")),
            (Guest::Limited, format!("--user ada --project work --spend-total {limit}")),
            (Guest::Narrow, "--user ada --project work --model claude-*".to_owned()),
            (Guest::Trial, "--user eve --project trial".to_owned()),
            (Guest::Reader, "--user ada --project work --scope usage".to_owned()),
            (Guest::Revoked, "--user ada --project work".to_owned()),
        ];
        let keys: HashMap<Guest, String> =
            of.into_iter().map(|(guest, words)| (guest, lab.create_key_with(&words.split(' ').collect::<Vec<_>>()))).collect();
        let kid = keys[&Guest::Revoked].split('_').nth(2).expect("a key's id");
        lab.admin(&["keys", "revoke", kid]);
        Self { lab, keys, disk, dir, _fake: fake }
    }

    fn crowd(&self) -> Arc<Crowd> {
        let caller = self.lab.caller(&self.keys[&Guest::Plain]);
        Crowd::new(caller, self.keys.clone(), 0)
    }

    /// Kills the Lab and starts it again, in the same place and on the same data.
    fn kill_and_restart(&mut self) -> Duration {
        self.lab.service().kill();
        let begun = Instant::now();
        self.lab = Lab::serve(self.lab.machine.clone(), self.lab.addr, "https://localhost");
        begun.elapsed()
    }

    /// Stops the Lab in order, and checks what it wrote against itself and against what the clients saw.
    async fn close(self, crowd: &Crowd) -> (Books, Tally) {
        self.lab.service().signal(Signal::TERM);
        assert_eq!(self.lab.service().wait(), Some(0), "{}", self.lab.service().err());
        let store = Store::of(&Config::in_dir(data_dir(&self.lab.machine))).await.expect("the database");
        let mut people: Vec<(User, i64)> = Vec::new();
        for user in store.users().await.expect("the people") {
            let given = if user.name == "ada" { GIVEN } else { 0 };
            people.push((user, given));
        }
        let books = Books::read(&store, &people).await;
        store.close().await.expect("the database closes");
        let visits = std::mem::take(&mut *crowd.visits.lock().expect("the visits"));
        let tally = books.check(&visits);
        let headless = visits.iter().filter(|visit| visit.head.is_none()).count();
        println!(
            "{} visits, {headless} without a head, {} records, {} entries: {tally:?}",
            visits.len(),
            books.records(),
            books.entries()
        );
        // Whoever saw no head may have been let in or not; there are no other records than theirs.
        assert!(tally.unseen <= headless, "{} records of nobody's requests", tally.unseen - headless);
        let journal = data_dir(&self.lab.machine).join("journal");
        let left: u64 =
            fs::read_dir(&journal).expect("the journal").flatten().map(|entry| entry.metadata().expect("a file").len()).sum();
        println!("{left} bytes are left of the journal in {}", self.dir.path().display());
        (books, tally)
    }
}

fn data_dir(machine: &Machine) -> PathBuf {
    machine.home().join(".local/share/1k4-lab")
}

async fn all(clients: Vec<JoinHandle<()>>) {
    for client in clients {
        client.await.expect("a client to its end");
    }
}

/// So many requests, and five kills while they run.
async fn storm(requests: u64, limit: &'static str) {
    const KILLS: u64 = 5;
    let mut house = tokio::task::spawn_blocking(move || House::open(limit, |_| None)).await.expect("a Lab");
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).expect("randomness");
    let seed = u64::from_le_bytes(seed);
    println!("the kills' seed is {seed}");
    let mut dice = Dice::new(seed);
    let crowd = house.crowd();
    let begun = Instant::now();
    let clients = crowd.ask(CLIENTS, requests);
    let mut down = Duration::ZERO;
    for kill in 0..KILLS {
        let part = requests / KILLS;
        let at = kill * part + part / 10 + dice.roll(part * 8 / 10);
        while crowd.begun() < at {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        house = tokio::task::spawn_blocking(move || {
            let took = house.kill_and_restart();
            println!("killed after {at} requests, back after {took:?}");
            (house, took)
        })
        .await
        .map(|(house, took)| {
            down += took;
            house
        })
        .expect("the Lab starts again");
    }
    all(clients).await;
    let took = begun.elapsed();
    let visits = crowd.visits.lock().expect("the visits").len();
    println!("{visits} requests in {took:?}, {:.0}/s while the Lab ran", visits as f64 / (took - down).as_secs_f64());
    let (books, tally) = house.close(&crowd).await;
    println!("sum of the records: {} nano-credits", books.cost());

    let share = |part: usize| part as f64 / requests as f64;
    assert_eq!(visits as u64, requests);
    assert!(share(tally.exact) > 0.5, "most answers were whole and exact: {tally:?}");
    assert!(tally.free > 0 && tally.estimated > 0 && tally.refused > 0 && tally.outside > 0 && tally.hung_up > 0, "{tally:?}");
    assert!(tally.interrupted > 0, "no kill interrupted anything: {tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the release programs: cargo xtask test"]
async fn sums_are_equal_after_five_kills() {
    storm(4_000, "0.004").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: cargo xtask test --full"]
async fn full_sums_are_equal_after_five_kills() {
    storm(100_000, "0.1").await;
}

/// A file system of its own, so small that it can be filled.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Self {
        fs::create_dir_all(at).expect("the folder");
        let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs"]).arg(at).status();
        assert!(mounted.is_ok_and(|status| status.success()), "only root can mount a small disk: run `cargo xtask test` as root");
        Self(at.to_owned())
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).expect("a file");
        for size in [1 << 16, 1 << 12, 1 << 8, 1] {
            while ballast.write(&vec![0; size]).is_ok_and(|written| written > 0) {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.ballast()).expect("the file goes");
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is still used stays until the machine goes; the test has failed by then.
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and the release programs: cargo xtask test"]
async fn a_full_disk_lets_nobody_in_and_loses_nothing() {
    let house = House::open("1", |data_dir| Some(Disk::mount(data_dir)));
    let operator = house.lab.operator().expect("the operator's listener");
    let crowd = house.crowd();
    let refused = |crowd: &Crowd, from: u64| {
        let visits = crowd.visits.lock().expect("the visits");
        let head = |visit: &&crowd::Visit| visit.number >= from && visit.end == End::Whole;
        let of: Vec<_> = visits.iter().filter(head).filter_map(|visit| visit.head.as_ref()).collect();
        let unavailable = of.iter().filter(|head| head.code.as_deref() == Some("unavailable"));
        assert!(unavailable.clone().all(|head| head.status == 503));
        (unavailable.count(), of.len())
    };
    all(crowd.ask(CLIENTS, 600)).await;
    assert_eq!(refused(&crowd, 0).0, 0);

    // Some run while the disk fills up under them.
    let running = crowd.ask(CLIENTS, 600);
    house.disk.as_ref().expect("mounted").fill();
    all(running).await;
    let full = crowd.begun();
    all(crowd.ask(CLIENTS, 400)).await;
    let (unavailable, of) = refused(&crowd, full);
    println!("with a full disk {unavailable} of {of} were told that the Lab is unavailable");
    assert!(unavailable * 2 > of, "{unavailable} of {of}");
    assert!(
        ask(operator, "/readyz").is_ok_and(|answer| answer.contains("503") && answer.contains("\"journal\"")),
        "unready, for the journal"
    );

    house.disk.as_ref().expect("mounted").empty();
    let begun = Instant::now();
    until("the Lab to be ready again", || ask(operator, "/readyz").ok().filter(|answer| answer.starts_with("HTTP/1.1 200")));
    println!("ready {:?} after there was room again", begun.elapsed());
    let again = crowd.begun();
    all(crowd.ask(CLIENTS, 400)).await;
    assert_eq!(refused(&crowd, again).0, 0, "nobody is refused any more");
    let (books, _) = house.close(&crowd).await;
    assert!(books.cost() > 0);
}

/// `GET` of the operator's listener.
fn ask(addr: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
