//! What was set aside and what was settled, on disk before anybody hears of it.
//!
//! A folder of segments, each a text file: a first line that names the format, then one line for each event, with a checksum. A line
//! is one `write` to a file that only grows, so that what was written survives this process's sudden end with the system's page cache
//! (not a power cut, against which the database does not hold out either). It is written where it comes up, as a web server writes its
//! access log: it takes a few microseconds, less than handing it to somebody else and waiting for their word. A segment is deleted once everything in it is in the
//! database. On start what is left is read again: settled requests are written to the database, which takes each only once, and
//! requests that were set aside for and never settled become records of their interruption, which cost nothing.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api_proxy::{Name, Record};
use serde::{Deserialize, Serialize};
use wire::{DeviceId, ProjectId, RequestId, UserId};

use crate::store::{Charge, RequestRecord, Settlement, StoreError, make_private_dir};

/// The first line of every segment.
const FORMAT: &str = "1k4-journal 1";
/// When a segment is followed by the next one; some 8,000 requests.
const SEGMENT: u64 = 8 << 20;
/// No line is longer: the longest model name, doubled by escapes, and 20 short fields stay far below it.
const MAX_LINE: usize = 16 << 10;
/// How long a journal that another process uses is waited for: as long as one that leaves needs for its last step.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The journal of one running Lab.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    state: Mutex<State>,
    /// Held as long as this lives: two processes must not read each other's running requests as interrupted ones.
    _lock: File,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Its files cannot be used.
    #[error("cannot use the journal {}: {source}; check the path and its permissions", path.display())]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the journal {} is in use by another 1k4-lab; stop that one first", path.display())]
    InUse {
        /// Its folder.
        path: PathBuf,
    },
    /// It holds what this program did not write.
    #[error("the journal {} is damaged in line {line}; restore it from a backup, or move it away to lose what it holds", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// What it holds cannot be written to the database.
    #[error("cannot write the journal to the database: {0}")]
    Store(#[from] StoreError),
}

/// What a journal held when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Replay {
    /// What was settled and may not be in the database yet.
    pub(super) settled: Vec<Settlement>,
    /// What was set aside for and not settled.
    pub(super) interrupted: Vec<Settlement>,
    segments: Vec<u64>,
}

/// In which segments a request has lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    reserved: Option<u64>,
    settled: Option<u64>,
}

#[derive(Debug)]
struct State {
    /// `None` after a write failed: what follows half a line would be lost with it.
    active: Option<Active>,
    next: u64,
    /// Lines of each segment whose request is not in the database yet.
    waiting: BTreeMap<u64, usize>,
    /// Where running requests were set aside for.
    reserved: HashMap<RequestId, u64>,
}

#[derive(Debug)]
struct Active {
    number: u64,
    file: File,
    size: u64,
}

/// A request for which something is set aside: what its record would say if this process ended before it does. Everything is
/// borrowed, because it is written for each request and almost never read.
#[derive(Serialize)]
pub(super) struct Reserved<'a> {
    pub(super) id: &'a RequestId,
    /// Milliseconds since 1970.
    pub(super) time: i64,
    pub(super) model: &'a str,
    pub(super) operation: &'static str,
    pub(super) provider: Option<&'a str>,
    pub(super) user: &'a UserId,
    pub(super) project: &'a ProjectId,
    pub(super) key: &'a str,
    pub(super) stream: bool,
}

/// The same, as it is read.
#[derive(Deserialize)]
struct OwnedReserved {
    id: String,
    time: i64,
    model: String,
    operation: String,
    provider: Option<String>,
    user: String,
    project: String,
    key: String,
    stream: bool,
}

/// The status of a record whose request never got to its answer; nobody got to see it.
const INTERRUPTED_STATUS: i32 = 499;

impl OwnedReserved {
    fn interrupted(self) -> RequestRecord {
        let Self { id, time, model, operation, provider, user, project, key, stream } = self;
        RequestRecord {
            id,
            time,
            model,
            operation,
            device: None,
            provider,
            input_tokens: None,
            output_tokens: None,
            cost_nano: 0,
            user,
            project,
            key,
            latency_ms: 0,
            first_token_ms: None,
            stream,
            status: INTERRUPTED_STATUS,
            outcome: "interrupted".to_owned(),
            estimated: false,
            prices: None,
        }
    }
}

/// A [`Settlement`] as it is written, borrowed like [`Reserved`] and for the same reason.
#[derive(Serialize)]
struct Settled<'a> {
    record: SettledRecord<'a>,
    charge: Charge,
}

/// A [`RequestRecord`] as it is written; see [`super::row`].
#[derive(Serialize)]
struct SettledRecord<'a> {
    id: &'a RequestId,
    time: i64,
    model: &'a str,
    operation: &'static str,
    device: Option<&'a DeviceId>,
    provider: Option<&'a str>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cost_nano: i64,
    user: &'a UserId,
    project: &'a ProjectId,
    key: &'a str,
    latency_ms: u64,
    first_token_ms: Option<u64>,
    stream: bool,
    status: u16,
    outcome: &'static str,
    estimated: bool,
    prices: Option<String>,
}

impl<'a> SettledRecord<'a> {
    fn of(record: &'a Record) -> Self {
        Self {
            id: &record.request,
            time: super::millis(record.time),
            model: record.model.as_deref().unwrap_or_default(),
            operation: record.operation.as_str(),
            device: record.device.as_ref(),
            provider: record.provider.as_ref().map(Name::as_str),
            input_tokens: record.input_tokens,
            output_tokens: record.output_tokens,
            cost_nano: record.cost_nano,
            user: &record.user,
            project: &record.project,
            key: record.key.as_str(),
            latency_ms: record.latency_ms,
            first_token_ms: record.first_byte_ms,
            stream: record.stream,
            status: record.status,
            outcome: super::outcome(record),
            estimated: record.estimated,
            prices: record.prices.map(|prices| prices.to_string()),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    Reserved(&'a Reserved<'a>),
    Settled(&'a Settled<'a>),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OwnedLine {
    Reserved(OwnedReserved),
    Settled(Settlement),
}

impl Journal {
    /// Opens a journal's folder, making it where it is missing, and reads what is there.
    pub(super) async fn open(dir: &Path) -> Result<(Self, Replay), JournalError> {
        let in_dir = |source| JournalError::File { path: dir.to_owned(), source };
        make_private_dir(dir).map_err(in_dir)?;
        let lock = lock(dir).await?;
        let mut segments = segments(dir).map_err(in_dir)?;
        segments.sort_unstable();
        let next = segments.last().map_or(0, |last| last + 1);
        let replay = replay(dir, segments)?;
        let state = State { active: None, next, waiting: BTreeMap::new(), reserved: HashMap::new() };
        let journal = Self { dir: dir.to_owned(), state: Mutex::new(state), _lock: lock };
        journal.state().start_segment(dir).map_err(in_dir)?;
        Ok((journal, replay))
    }

    /// Deletes what was read on opening; it is in the database now.
    pub(super) fn forget(&self, replay: &Replay) -> Result<(), JournalError> {
        for number in &replay.segments {
            let path = path(&self.dir, *number);
            std::fs::remove_file(&path).map_err(|source| JournalError::File { path, source })?;
        }
        Ok(())
    }

    /// Writes that something is set aside for a request.
    pub(super) fn reserve(&self, reserved: &Reserved<'_>) -> io::Result<()> {
        let line = line(&Line::Reserved(reserved))?;
        let mut state = self.state();
        let number = state.append(&self.dir, &line)?;
        state.reserved.insert(*reserved.id, number);
        Ok(())
    }

    /// Writes that a request has ended. Where that fails, the place says that nothing has to be deleted for it.
    pub(super) fn settle(&self, record: &Record, charge: Charge) -> (Place, io::Result<()>) {
        let line = line(&Line::Settled(&Settled { record: SettledRecord::of(record), charge }));
        let mut state = self.state();
        let reserved = state.reserved.remove(&record.request);
        match line.and_then(|line| state.append(&self.dir, &line)) {
            Ok(number) => (Place { reserved, settled: Some(number) }, Ok(())),
            Err(error) => (Place { reserved, settled: None }, Err(error)),
        }
    }

    /// The requests of these places are in the database. Whether there are segments now that nobody needs any more.
    pub(super) fn done(&self, places: impl Iterator<Item = Place>) -> bool {
        let mut state = self.state();
        for number in places.flat_map(|place| [place.reserved, place.settled]).flatten() {
            if let Some(waiting) = state.waiting.get_mut(&number) {
                *waiting = waiting.saturating_sub(1);
            }
        }
        state.unneeded().next().is_some()
    }

    /// Deletes the segments that nobody needs any more. Large files take their time, so nobody who writes waits for it.
    fn delete_unneeded(&self) {
        let unneeded: Vec<u64> = self.state().unneeded().collect();
        for number in unneeded {
            match std::fs::remove_file(path(&self.dir, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, "cannot delete an old part of the journal; it is tried again");
                }
                _ => {
                    self.state().waiting.remove(&number);
                }
            }
        }
    }

    /// Begins a new segment where there is none or the one in use has something in it, so that nothing stays longer than it must.
    pub(super) fn renew(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.active.as_ref().is_none_or(|active| active.size > FORMAT.len() as u64 + 1) {
            state.start_segment(&self.dir)?;
        }
        Ok(())
    }

    /// From here on the segment in use takes nothing, as if the disk were full.
    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn fill_disk(&self) {
        let full = OpenOptions::new().append(true).open("/dev/full");
        if let (Ok(full), Some(active)) = (full, &mut self.state().active) {
            active.file = full;
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes the segments that nobody needs any more, off the runtime.
pub(super) async fn sweep(journal: &Arc<Journal>) {
    let journal = Arc::clone(journal);
    // It does not panic, and where the runtime ends before it, the segments are deleted after the next start.
    let _ = tokio::task::spawn_blocking(move || journal.delete_unneeded()).await;
}

impl State {
    /// Segments that wait for nothing and that nobody writes to.
    fn unneeded(&self) -> impl Iterator<Item = u64> {
        let active = self.active.as_ref().map(|active| active.number);
        self.waiting.iter().filter(move |(number, waiting)| **waiting == 0 && Some(**number) != active).map(|(number, _)| *number)
    }

    fn start_segment(&mut self, dir: &Path) -> io::Result<()> {
        let number = self.next;
        self.next += 1;
        let path = path(dir, number);
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path)?;
        let first = format!("{FORMAT}\n");
        if let Err(error) = write_once(&mut file, first.as_bytes()) {
            // Empty or torn, it would be passed over; it only is in the way.
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        self.active = Some(Active { number, file, size: first.len() as u64 });
        self.waiting.insert(number, 0);
        Ok(())
    }

    fn append(&mut self, dir: &Path, line: &[u8]) -> io::Result<u64> {
        if self.active.as_ref().is_none_or(|active| active.size >= SEGMENT) {
            self.start_segment(dir)?;
        }
        let Some(active) = &mut self.active else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = write_once(&mut active.file, line) {
            self.active = None;
            return Err(error);
        }
        active.size += line.len() as u64;
        let number = active.number;
        *self.waiting.entry(number).or_default() += 1;
        Ok(number)
    }
}

/// All of it with one system call, or an error: half a line is a torn one.
fn write_once(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    loop {
        match file.write(bytes) {
            Ok(written) if written == bytes.len() => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::StorageFull.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// `<CRC-32 of the text> <text>`.
fn line(line: &Line<'_>) -> io::Result<Vec<u8>> {
    const CRC: usize = 9;
    let mut bytes = Vec::with_capacity(1024);
    bytes.extend_from_slice(b"00000000 ");
    serde_json::to_writer(&mut bytes, line)?;
    let crc = crc32fast::hash(&bytes[CRC..]);
    write!(&mut bytes[..CRC - 1], "{crc:08x}")?;
    bytes.push(b'\n');
    if bytes.len() > MAX_LINE { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(bytes) }
}

fn parse(line: &str) -> Option<OwnedLine> {
    let (crc, text) = line.split_once(' ')?;
    (u32::from_str_radix(crc, 16) == Ok(crc32fast::hash(text.as_bytes()))).then(|| serde_json::from_str(text).ok())?
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.journal"))
}

fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".journal"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(numbers)
}

fn replay(dir: &Path, segments: Vec<u64>) -> Result<Replay, JournalError> {
    let mut settled = Vec::new();
    let mut running: HashMap<String, OwnedReserved> = HashMap::new();
    for number in &segments {
        let path = path(dir, *number);
        let text = std::fs::read(&path).map_err(|source| JournalError::File { path: path.clone(), source })?;
        // What stands behind the last line's end is half a line: its write never returned, so nobody was answered.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let damaged = |line| JournalError::Damaged { path: path.clone(), line };
        let text = std::str::from_utf8(&text[..whole]).map_err(|_| damaged(1))?;
        for (n, line) in text.lines().enumerate() {
            match (n, line) {
                (0, FORMAT) => {}
                (0, _) => return Err(damaged(1)),
                _ => match parse(line).ok_or_else(|| damaged(n + 1))? {
                    OwnedLine::Reserved(reserved) => {
                        running.insert(reserved.id.clone(), reserved);
                    }
                    OwnedLine::Settled(settlement) => settled.push(settlement),
                },
            }
        }
    }
    for settlement in &settled {
        running.remove(&settlement.record.id);
    }
    let interrupted =
        running.into_values().map(|reserved| Settlement { record: reserved.interrupted(), charge: Charge::Nothing }).collect();
    Ok(Replay { settled, interrupted, segments })
}

async fn lock(dir: &Path) -> Result<File, JournalError> {
    let path = dir.join("lock");
    let in_file = |source| JournalError::File { path: path.clone(), source };
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).map_err(in_file)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(error)) => return Err(in_file(error)),
        }
    }
    Err(JournalError::InUse { path: dir.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use api_proxy::{Endpoint, RecordOutcome, Surface};

    use super::*;
    use crate::meter::row;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("1k4-journal-{}", RequestId::random())))
        }

        fn files(&self) -> Vec<String> {
            let mut files: Vec<_> =
                std::fs::read_dir(&self.0).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            files.sort();
            files
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn record() -> Record {
        Record {
            request: RequestId::random(),
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_763_664_180_007),
            model: Some("a \"model\"".into()),
            operation: Surface::Model(Endpoint::OpenaiChat),
            device: Some(DeviceId::random()),
            provider: Some("openai".parse().unwrap()),
            input_tokens: Some(7),
            output_tokens: None,
            estimated: true,
            cost_nano: 12,
            prices: Some(api_proxy::Catalogue::embedded().unwrap().snapshot()),
            user: UserId::random(),
            project: ProjectId::random(),
            key: "0123456789ab".parse().unwrap(),
            latency_ms: 12,
            first_byte_ms: Some(3),
            stream: true,
            status: 200,
            outcome: RecordOutcome::Complete,
        }
    }

    fn read_again(record: &Record) -> Settlement {
        Settlement { record: row(record), charge: Charge::Credits }
    }

    fn set_aside(journal: &Journal, record: &Record) -> io::Result<()> {
        journal.reserve(&Reserved {
            id: &record.request,
            time: crate::meter::millis(record.time),
            model: record.model.as_deref().unwrap(),
            operation: record.operation.as_str(),
            provider: record.provider.as_ref().map(Name::as_str),
            user: &record.user,
            project: &record.project,
            key: record.key.as_str(),
            stream: record.stream,
        })
    }

    #[tokio::test]
    async fn what_was_written_is_read_again_until_it_is_forgotten() {
        let folder = Folder::new();
        let (settled, interrupted) = (record(), record());
        let (journal, replay) = Journal::open(&folder.0).await.unwrap();
        assert_eq!(replay, Replay::default());
        for record in [&settled, &interrupted] {
            set_aside(&journal, record).unwrap();
        }
        journal.settle(&settled, Charge::Credits).1.unwrap();
        drop(journal);
        // A line whose write did not come to its end.
        let mut torn = OpenOptions::new().append(true).open(path(&folder.0, 0)).unwrap();
        torn.write_all(b"00000000 {\"reserved").unwrap();

        let record = RequestRecord {
            device: None,
            input_tokens: None,
            cost_nano: 0,
            latency_ms: 0,
            first_token_ms: None,
            status: 499,
            outcome: "interrupted".into(),
            estimated: false,
            prices: None,
            ..row(&interrupted)
        };
        let expected = Settlement { record, charge: Charge::Nothing };
        for _ in 0..2 {
            let (_, replay) = Journal::open(&folder.0).await.unwrap();
            assert_eq!(
                (&replay.settled[..], &replay.interrupted[..]),
                (&[read_again(&settled)][..], std::slice::from_ref(&expected))
            );
        }
        let (journal, replay) = Journal::open(&folder.0).await.unwrap();
        journal.forget(&replay).unwrap();
        drop(journal);
        let (_, replay) = Journal::open(&folder.0).await.unwrap();
        assert_eq!((replay.settled, replay.interrupted), (vec![], vec![]));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;

            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&folder.0), 0o700);
            for file in folder.files() {
                assert_eq!(mode(&folder.0.join(&file)), 0o600, "{file}");
            }
        }
    }

    #[tokio::test]
    async fn a_segment_goes_when_everything_in_it_is_in_the_database() {
        let folder = Folder::new();
        let (journal, _) = Journal::open(&folder.0).await.unwrap();
        let (long, short) = (record(), record());
        set_aside(&journal, &long).unwrap();
        set_aside(&journal, &short).unwrap();
        journal.renew().unwrap();
        let place = journal.settle(&short, Charge::Nothing).0;
        assert_eq!(place, Place { reserved: Some(0), settled: Some(1) });
        assert!(!journal.done([place].into_iter()));
        journal.delete_unneeded();
        // The first segment still has the long one, the second is in use.
        assert_eq!(folder.files(), ["00000000000000000000.journal", "00000000000000000001.journal", "lock"]);
        let place = journal.settle(&long, Charge::Nothing).0;
        assert!(journal.done([place].into_iter()));
        journal.delete_unneeded();
        assert_eq!(folder.files(), ["00000000000000000001.journal", "lock"]);
        for _ in 0..2 {
            journal.renew().unwrap();
            journal.delete_unneeded();
            assert_eq!(folder.files(), ["00000000000000000002.journal", "lock"]);
        }
    }

    #[tokio::test]
    async fn a_damaged_journal_is_refused_by_name() {
        let record = record();
        let settled = Settled { record: SettledRecord::of(&record), charge: Charge::Nothing };
        let good = String::from_utf8(line(&Line::Settled(&settled)).unwrap()).unwrap();
        let bad = good.replace("complete", "completf");
        for (text, line) in [(format!("{FORMAT}\n{good}{bad}{good}"), 3), (good.clone(), 1), (format!("{FORMAT} \n"), 1)] {
            let folder = Folder::new();
            make_private_dir(&folder.0).unwrap();
            std::fs::write(path(&folder.0, 7), text).unwrap();
            let error = Journal::open(&folder.0).await.unwrap_err();
            assert!(matches!(error, JournalError::Damaged { line: at, .. } if at == line), "{error}");
        }
        let folder = Folder::new();
        make_private_dir(&folder.0).unwrap();
        std::fs::write(path(&folder.0, 7), format!("{FORMAT}\n{good}{}", &bad[..30])).unwrap();
        assert_eq!(Journal::open(&folder.0).await.unwrap().1.settled.len(), 1);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_full_disk_is_an_error_and_no_loss_of_what_follows() {
        let folder = Folder::new();
        let (journal, _) = Journal::open(&folder.0).await.unwrap();
        let (first, second) = (record(), record());
        journal.settle(&first, Charge::Credits).1.unwrap();
        journal.fill_disk();
        let refused = set_aside(&journal, &second).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert!(journal.state().active.is_none());
        journal.renew().unwrap();
        journal.settle(&second, Charge::Credits).1.unwrap();
        drop(journal);
        let (_, replay) = Journal::open(&folder.0).await.unwrap();
        assert_eq!(replay.settled, [read_again(&first), read_again(&second)]);
        assert_eq!(replay.interrupted, []);
    }

    #[tokio::test]
    async fn two_processes_do_not_share_a_journal() {
        let folder = Folder::new();
        let _first = Journal::open(&folder.0).await.unwrap();
        tokio::time::pause();
        assert!(matches!(Journal::open(&folder.0).await, Err(JournalError::InUse { .. })));
    }
}
