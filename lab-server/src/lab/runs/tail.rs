//! The tail: what runs have said since the database last heard of them, sealed, in files that live for a quarter of a second.
//!
//! ```text
//! frame    = length (4, of what follows) · run id (30) · number of the first event (8) · sealed JSON array of events
//! segment  = frames of all runs, in the order in which they were written: `<20 digits>.tail`
//! ```
//!
//! All runs share a segment, so that however many speak at once one `write` takes all that they have said. A segment is closed when
//! the database is about to hear of everything in it, and deleted when it has. What was given to `write` survives the process; a power
//! cut may cost what the system had not put on the disk yet, as it may cost the database's last commits.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use wire::RunId;

use crate::{
    lab::event::Numbered,
    store::make_private_dir,
    vault::{Key, Place},
};

const RUN: usize = 30;
const FIRST: usize = 8;

/// The segments, of which one at most is written to.
#[derive(Debug)]
pub(super) struct Tail {
    dir: PathBuf,
    /// Of the segment that is written to, or would be.
    number: u64,
    /// The last one that was deleted.
    forgotten: u64,
    open: Option<Segment>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    /// Bytes of whole frames.
    length: u64,
}

/// Frames of a run that a Lab before this one wrote, in the order of their writing.
pub(super) type Left = HashMap<RunId, Vec<(u64, Vec<u8>)>>;

impl Tail {
    /// The folder, made if need be, and what it holds of a Lab before this one.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Left)> {
        make_private_dir(dir)?;
        let mut numbers = segments(dir)?;
        numbers.sort_unstable();
        let mut left = Left::new();
        for number in &numbers {
            for (run, first, sealed) in frames(&std::fs::read(path(dir, *number))?) {
                left.entry(run).or_default().push((first, sealed.to_vec()));
            }
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        Ok((Self { dir: dir.to_owned(), number, forgotten: 0, open: None }, left))
    }

    /// Adds whole frames. When this returns they survive the process.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        let segment = match &mut self.open {
            Some(segment) => segment,
            None => {
                let mut options = OpenOptions::new();
                options.append(true).create_new(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                let file = options.open(path(&self.dir, self.number))?;
                self.open.insert(Segment { file, length: 0 })
            }
        };
        let written = segment.file.write_all(frames);
        match written {
            Ok(()) => segment.length += frames.len() as u64,
            // Half a frame would hide what follows it. A segment that cannot be cut either is left as it is.
            Err(_) if segment.file.set_len(segment.length).is_err() => drop(self.close()),
            Err(_) => {}
        }
        written
    }

    /// Ends the segment that is written to, and gives its number: that of the last one there is.
    pub(super) fn close(&mut self) -> u64 {
        if self.open.take().is_some() {
            self.number += 1;
        }
        self.number - 1
    }

    /// Deletes all segments up to this one.
    pub(super) fn forget(&mut self, last: u64) -> io::Result<()> {
        if last > self.forgotten {
            for number in segments(&self.dir)?.into_iter().filter(|number| *number <= last) {
                std::fs::remove_file(path(&self.dir, number))?;
            }
            self.forgotten = last;
        }
        Ok(())
    }
}

/// Seals events for the tail and puts the frame behind `buffer`.
pub(super) fn put_frame(buffer: &mut Vec<u8>, key: &Key, run: RunId, events: &[impl serde::Serialize], first: u64) {
    let name = run.to_string();
    // Events are plain data: writing them as JSON does not fail.
    let json = serde_json::to_vec(events).unwrap_or_default();
    let sealed = key.seal(place(&name, first), &json);
    let length = u32::try_from(RUN + FIRST + sealed.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(name.as_bytes());
    buffer.extend_from_slice(&first.to_be_bytes());
    buffer.extend_from_slice(&sealed);
}

/// What was said behind `after`: the frames that open, as far as they follow each other.
pub(super) fn read(key: &Key, run: RunId, left: &[(u64, Vec<u8>)], after: u64) -> Vec<Numbered> {
    let mut events: Vec<Numbered> = Vec::new();
    let name = run.to_string();
    for (first, sealed) in left {
        let Ok(opened) = key.open(place(&name, *first), sealed) else { break };
        let Ok(frame) = serde_json::from_slice::<Vec<Numbered>>(&opened) else { break };
        for event in frame {
            let next = events.last().map_or(after, |last| last.seq) + 1;
            // What the database has already heard is here too when the Lab died between the two.
            if event.seq == next {
                events.push(event);
            }
        }
    }
    events
}

/// A frame is of no use where the database's row is, and the other way round.
fn place(run: &str, first: u64) -> Place<'_> {
    Place { table: "run_events", column: "tail", row: run, version: i64::try_from(first).unwrap_or(i64::MAX) }
}

/// Whole frames from the beginning on. The last one may be torn; what is behind it was never told to anybody.
fn frames(mut bytes: &[u8]) -> Vec<(RunId, u64, &[u8])> {
    let mut all = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let Some((frame, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        let Some((run, body)) = frame.split_first_chunk::<RUN>() else { break };
        let Some((first, sealed)) = body.split_first_chunk::<FIRST>() else { break };
        let Some(run) = std::str::from_utf8(run).ok().and_then(|run| run.parse().ok()) else { break };
        all.push((run, u64::from_be_bytes(*first), sealed));
        bytes = rest;
    }
    all
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.tail"))
}

fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".tail")?.parse::<u64>().ok()));
    }
    Ok(numbers)
}
