//! Records on their way to somebody who may be slow: the journal, or the [`writer`](super::writer) of the files. Never waits,
//! but for a moment at the end.
//!
//! In blocking mode one record waits, and with it the workload. In non-blocking mode as many wait as have room, and what
//! comes on top is dropped and counted; the next that has room is preceded by how many.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::writer::Writer;
use super::{Format, LogOptions, Stream};
use crate::support::journal::Journal;

pub(super) struct Queue<'a> {
    outlet: Outlet<'a>,
    format: Format,
    attributes: &'a [u8],
    /// How many bytes may wait; none where the workload does.
    most: Option<u64>,
    records: VecDeque<Vec<u8>>,
    bytes: u64,
    /// Lines that had no room, or that nobody took.
    lost: u64,
}

enum Outlet<'a> {
    Journal(Option<Journal>),
    Writer(Writer<'a>),
}

/// How long the end of a run waits for what is still on its way.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

impl<'a> Queue<'a> {
    pub(super) fn to_journal(options: LogOptions, attributes: &'a [u8]) -> Self {
        Self::new(Outlet::Journal(None), options, attributes)
    }

    /// To files, by way of a process of its own.
    pub(super) fn to_writer(directory: BorrowedFd<'a>, options: LogOptions, attributes: &'a [u8]) -> Self {
        Self::new(Outlet::Writer(Writer::new(directory, options)), options, attributes)
    }

    fn new(outlet: Outlet<'a>, options: LogOptions, attributes: &'a [u8]) -> Self {
        let LogOptions { format, buffer_bytes: most, .. } = options;
        Self { outlet, format, attributes, most, records: VecDeque::new(), bytes: 0, lost: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.most.is_none() && !self.records.is_empty()
    }

    pub(super) fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        if self.records.is_empty() {
            return None;
        }
        match &self.outlet {
            Outlet::Journal(journal) => journal.as_ref().map(AsFd::as_fd),
            Outlet::Writer(writer) => writer.socket(),
        }
    }

    /// Takes the record of a line.
    pub(super) fn push(&mut self, record: &[u8]) {
        self.flush();
        self.tell_lost(record.len());
        if self.lost > 0 || !self.has_room_for(record.len()) || !self.put(record.to_vec()) {
            self.lost += 1;
        }
    }

    /// Says what was lost, once there is room for that and for so much more.
    fn tell_lost(&mut self, length: usize) {
        if self.lost == 0 {
            return;
        }
        let mut notice = Vec::new();
        let text = format!("husk: {} lines were lost: the log was too slow, or not there\n", self.lost);
        let now = jiff::Timestamp::now();
        self.format.write(&mut notice, now, Stream::Errors, text.as_bytes(), self.attributes);
        if self.has_room_for(notice.len() + length) && self.put(notice) {
            self.lost = 0;
        }
    }

    fn has_room_for(&self, length: usize) -> bool {
        self.records.is_empty() || self.most.is_none_or(|most| self.bytes + length as u64 <= most)
    }

    /// Sends a record, or has it wait; `false` where nobody takes it.
    fn put(&mut self, record: Vec<u8>) -> bool {
        if self.records.is_empty() {
            match self.outlet.send(&record) {
                Err(Errno::AGAIN) => {}
                answer => return answer.is_ok(),
            }
        }
        self.bytes += record.len() as u64;
        self.records.push_back(record);
        true
    }

    /// Sends what waits, as far as it is taken.
    pub(super) fn flush(&mut self) {
        while let Some(record) = self.records.front() {
            match self.outlet.send(record) {
                Err(Errno::AGAIN) => return,
                Ok(()) => {}
                Err(_) => self.lost += 1,
            }
            self.bytes -= record.len() as u64;
            self.records.pop_front();
        }
        // Nothing is kept of a burst.
        self.records = VecDeque::new();
        // There may be no other line.
        self.tell_lost(0);
    }

    /// Sees that what was taken arrives, unless that takes long.
    pub(super) fn finish(&mut self) {
        let end = Instant::now() + LAST_PATIENCE;
        loop {
            self.flush();
            let left = end.saturating_duration_since(Instant::now());
            let Some(outlet) = self.waits_for().filter(|_| !left.is_zero()) else { break };
            let mut fds = [PollFd::from_borrowed_fd(outlet, PollFlags::OUT)];
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        }
        self.lost += self.records.len() as u64;
        (self.records, self.bytes) = (VecDeque::new(), 0);
        if let Outlet::Writer(writer) = &mut self.outlet {
            writer.finish(end.saturating_duration_since(Instant::now()));
        }
    }
}

impl Outlet<'_> {
    fn send(&mut self, record: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Journal(journal) => {
                if let Some(known) = journal {
                    match known.send(record) {
                        // It has been started anew.
                        Err(Errno::CONNREFUSED | Errno::CONNRESET | Errno::NOTCONN | Errno::PIPE) => {}
                        answer => return answer,
                    }
                }
                *journal = None;
                journal.insert(Journal::connect()?).send(record)
            }
            Self::Writer(writer) => writer.send(record),
        }
    }
}
