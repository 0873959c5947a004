//! Init's last system calls, written down as data for [`crate::sys::stub`] to make.
//!
//! What is written here is only what must come after husk's own code has left the process: limits that husk itself would
//! hit, the wait for `start`, the seccomp filter, the closing of descriptors, the exec.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::capability::Masks;
use super::protocol::{LISTENER_LENGTH, LISTENER_NUMBER_OFFSET};
use crate::seccomp::Program;
use crate::sys::process::CStringArray;
use crate::sys::stub::{CALL_LENGTH, DATA_ADDRESS, END, FRAME_LENGTH, PASSES_FAILURE, REAP, REAP_LENGTH};
use crate::sys::{calls, stub};

/// Most calls that [`Tape::fork`] makes.
pub(super) const FORK_CALLS: usize = 13;

/// What `ps` calls a container's init: docker's name for it.
const INIT_NAME: &CStr = c"docker-init";

/// What a call of the tape is for; sent back when it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Step {
    /// The name that `ps` shows.
    Name = 1,
    /// A label of a security module.
    Label,
    /// The Landlock ruleset.
    Landlock,
    /// The clone of the process that others are to see, and the word of it.
    Appear,
    /// The session, its terminal, and that it ends with the parent.
    Session,
    /// A resource limit.
    Limit,
    /// The word that only the exec is left.
    Ready,
    /// The wait in `exec.fifo`.
    Wait,
    /// The mark on descriptors that close on exec.
    CloseDescriptors,
    /// The seccomp filter.
    Seccomp,
    /// The listener of the filter, and the word that it has arrived.
    Listener,
    /// The capability that the filter wanted, and that goes again.
    Capabilities,
    /// The workload.
    Exec,
    /// The clone of the workload by its init.
    Fork,
}

impl Step {
    /// Reads a step back.
    pub(super) fn from_raw(raw: u32) -> Option<Self> {
        [
            Self::Name,
            Self::Label,
            Self::Landlock,
            Self::Appear,
            Self::Session,
            Self::Limit,
            Self::Ready,
            Self::Wait,
            Self::CloseDescriptors,
            Self::Seccomp,
            Self::Listener,
            Self::Capabilities,
            Self::Exec,
            Self::Fork,
        ]
        .into_iter()
        .find(|step| *step as u32 == raw)
    }

    /// Says what was being done.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Name => "name the process",
            Self::Label => "write a label",
            Self::Landlock => "restrict the process by Landlock",
            Self::Appear => "clone into the container's PID namespace",
            Self::Session => "start a session",
            Self::Limit => "set resource limits",
            Self::Ready => "say that the workload is ready",
            Self::Wait => "wait in exec.fifo",
            Self::CloseDescriptors => "close descriptors",
            Self::Seccomp => "load the seccomp filter",
            Self::Listener => "hand over the seccomp listener",
            Self::Capabilities => "drop capabilities",
            Self::Exec => "exec",
            Self::Fork => "start the init's child",
        }
    }
}

/// Whether the tape goes on after a call has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Ends,
    IsPassedOver,
}

struct Call {
    number: u64,
    arguments: [u64; 6],
    step: Step,
    failure: Failure,
    /// Where the low half of the answer goes; 0 is nowhere.
    answer_to: u64,
    /// How many of the next calls are left out if the answer is 0.
    skipped_at_zero: u32,
}

/// A tape being written. Strings and arrays are laid behind the table, whose length is fixed when the tape is begun.
pub(super) struct Tape {
    calls: Vec<Call>,
    capacity: usize,
    data: Vec<u8>,
    report_to: RawFd,
    report_tag: u8,
}

impl Tape {
    /// Begins a tape of at most `capacity` calls, whose failure is reported to `channel` under `tag`.
    pub(super) fn new(capacity: usize, channel: BorrowedFd<'_>, tag: u8) -> Self {
        Self {
            calls: Vec::with_capacity(capacity),
            capacity,
            data: Vec::with_capacity(4096),
            report_to: channel.as_raw_fd(),
            report_tag: tag,
        }
    }

    /// Sets the process's name.
    pub(super) fn name(&mut self, name: &CStr) {
        let name = self.put_string(name);
        self.push(calls::PRCTL, &[calls::PR_SET_NAME, name], Step::Name, Failure::IsPassedOver);
    }

    /// Becomes undumpable again, which an exec takes back: nobody in a shared PID namespace looks into the process.
    pub(super) fn become_undumpable(&mut self) {
        self.push(calls::PRCTL, &[calls::PR_SET_DUMPABLE, 0], Step::Name, Failure::Ends);
    }

    /// Writes a file below `directory`, which no symlink or mount in between may lead astray.
    pub(super) fn write_file(&mut self, directory: BorrowedFd<'_>, path: &CStr, text: &[u8], step: Step) {
        let directory = directory.as_raw_fd().unsigned_abs().into();
        let path = self.put_string(path);
        let mut how = [0; calls::OPEN_HOW_LENGTH];
        how[..8].copy_from_slice(&calls::WRITE_ONLY_CLOEXEC.to_le_bytes());
        how[16..].copy_from_slice(&calls::RESOLVE_BELOW.to_le_bytes());
        let how = self.put(&how, 8);
        self.push(calls::OPENAT2, &[directory, path, how, calls::OPEN_HOW_LENGTH as u64], step, Failure::Ends);
        self.answer_into(self.argument_of_next(0));
        let length = text.len() as u64;
        let text = self.put(text, 1);
        self.push(calls::WRITE, &[0, text, length], step, Failure::Ends);
    }

    /// Restricts the process by a Landlock ruleset.
    pub(super) fn landlock(&mut self, ruleset: BorrowedFd<'_>, flags: u32) {
        let ruleset = ruleset.as_raw_fd().unsigned_abs().into();
        self.push(calls::LANDLOCK_RESTRICT_SELF, &[ruleset, flags.into()], Step::Landlock, Failure::Ends);
    }

    /// Closes a descriptor.
    pub(super) fn close(&mut self, fd: BorrowedFd<'_>) {
        let number = fd.as_raw_fd().unsigned_abs().into();
        self.push(calls::CLOSE_RANGE, &[number, number, 0], Step::CloseDescriptors, Failure::Ends);
    }

    /// Clones a sibling, which plays the rest once the parent has answered; tells the parent of it, and ends.
    ///
    /// It is the first that is seen in a PID namespace entered before. Older clone(2), for filters that are on by then.
    pub(super) fn appear(&mut self, tag: u8) {
        let mut control = [0; (calls::CMSG_FD_LENGTH).next_multiple_of(8)];
        control[..8].copy_from_slice(&(calls::CMSG_FD_LENGTH as u64).to_le_bytes());
        for (place, word) in control[8..].chunks_exact_mut(4).zip(calls::CMSG_FDS) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let control_length = control.len() as u64;
        let control = self.put(&control, 8);
        // As `Channel::send_init` has it; the kernel and the stub fill in who it is.
        let message = self.put(&[tag, 0, 0, 0, 0], 1);
        let part = self.put_words(&[message, 5]);
        let header: [u64; calls::MSGHDR_WORDS] = [0, 0, part, 1, control, control_length, 0];
        let header = self.put_words(&header);
        let pidfd = control + calls::CMSG_FD_OFFSET as u64;
        self.push(calls::CLONE, &[calls::CLONE_SIBLING, 0, pidfd], Step::Appear, Failure::Ends);
        self.answer_into(message + 1);
        self.calls.last_mut().expect("a call was pushed").skipped_at_zero = 2;
        self.push(calls::SENDMSG, &[self.report_to(), header, calls::MSG_NOSIGNAL], Step::Appear, Failure::Ends);
        self.push(calls::EXIT_GROUP, &[0], Step::Appear, Failure::Ends);
        // The parent's answer. From one that was killed there is none, and the word that comes next ends in SIGPIPE.
        let answer = self.put(&[0; 8], 8);
        self.push(calls::READ, &[self.report_to(), answer, 8], Step::Appear, Failure::Ends);
    }

    /// Says whether [`Self::appear`] may come behind a filter, and with it all that follows.
    pub(super) fn may_appear(filter: &Program) -> bool {
        // Descriptors and addresses are not known yet; no profile has rules about those.
        [
            (calls::CAPSET, [DATA_ADDRESS, DATA_ADDRESS, 0, 0, 0, 0]),
            (calls::CLONE, [calls::CLONE_SIBLING, 0, DATA_ADDRESS, 0, 0, 0]),
            (calls::SENDMSG, [3, DATA_ADDRESS, calls::MSG_NOSIGNAL, 0, 0, 0]),
            (calls::EXIT_GROUP, [0; 6]),
            (calls::READ, [3, DATA_ADDRESS, 8, 0, 0, 0]),
            (calls::PRCTL, [calls::PR_SET_PDEATHSIG, calls::SIGKILL, 0, 0, 0, 0]),
            (calls::SETSID, [0; 6]),
            (calls::IOCTL, [0, calls::TIOCSCTTY, 0, 0, 0, 0]),
            (calls::PRLIMIT64, [0, 0, DATA_ADDRESS, 0, 0, 0]),
            (calls::WRITE, [3, DATA_ADDRESS, 1, 0, 0, 0]),
        ]
        .into_iter()
        .all(|(number, arguments)| filter.allows(number, arguments))
    }

    /// Ends with the parent from now on.
    pub(super) fn die_with_parent(&mut self) {
        self.push(calls::PRCTL, &[calls::PR_SET_PDEATHSIG, calls::SIGKILL], Step::Session, Failure::Ends);
    }

    /// Leads a session, whose terminal standard input is if it has one.
    pub(super) fn lead_session(&mut self, has_terminal: bool) {
        self.push(calls::SETSID, &[], Step::Session, Failure::Ends);
        if has_terminal {
            self.push(calls::IOCTL, &[0, calls::TIOCSCTTY, 0], Step::Session, Failure::Ends);
        }
    }

    /// Says over the channel that only the exec is left.
    pub(super) fn say_ready(&mut self, tag: u8) {
        let message = self.put(&[tag], 1);
        self.push(calls::WRITE, &[self.report_to(), message, 1], Step::Ready, Failure::Ends);
    }

    /// Says over the channel which descriptor the call before has answered with, and waits for a word in return.
    ///
    /// The filter is in place by now. The message is written by write(2), which no filter may hand to the listener; the
    /// wait may well be handed to it, since then it is where it belongs.
    pub(super) fn send_listener(&mut self, tag: u8) {
        let mut message = [0; LISTENER_LENGTH];
        message[0] = tag;
        let message = self.put(&message, 8);
        self.answer_into(message + LISTENER_NUMBER_OFFSET as u64);
        self.push(calls::WRITE, &[self.report_to(), message, LISTENER_LENGTH as u64], Step::Listener, Failure::Ends);
        let answer = self.put(&[0; 8], 8);
        self.push(calls::READ, &[self.report_to(), answer, 8], Step::Listener, Failure::Ends);
    }

    /// Sets a resource limit.
    pub(super) fn limit(&mut self, resource: u32, soft: u64, hard: u64) {
        let mut limit = [0; 16];
        limit[..8].copy_from_slice(&soft.to_le_bytes());
        limit[8..].copy_from_slice(&hard.to_le_bytes());
        let limit = self.put(&limit, 8);
        self.push(calls::PRLIMIT64, &[0, resource.into(), limit, 0], Step::Limit, Failure::Ends);
    }

    /// Sets the capabilities, of which there may only be fewer. Ambient ones that are lost to the other sets go with them.
    pub(super) fn capabilities(&mut self, masks: &Masks) {
        let header = self.put(&u64::from(calls::CAPABILITY_VERSION).to_le_bytes(), 8);
        let mut sets = [0; 24];
        for (half, shift) in [(0, 0), (12, 32)] {
            for (place, mask) in [masks.effective, masks.permitted, masks.inheritable].into_iter().enumerate() {
                let at = half + place * 4;
                sets[at..at + 4]
                    .copy_from_slice(&u32::try_from((mask >> shift) & 0xffff_ffff).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        let sets = self.put(&sets, 8);
        self.push(calls::CAPSET, &[header, sets], Step::Capabilities, Failure::Ends);
    }

    /// Ends at a signal, also as the first process of a PID namespace, to which the kernel sends none that has no handler.
    pub(super) fn end_at(&mut self, signal: i32) {
        let handler = stub::end_at_signal();
        // As the kernel has it: handler, flags, restorer, mask. The handler never returns.
        let mut action = [0; 32];
        for (place, word) in [handler, calls::SA_RESTORER, handler].into_iter().enumerate() {
            action[place * 8..place * 8 + 8].copy_from_slice(&word.to_le_bytes());
        }
        let action = self.put(&action, 8);
        let arguments = [signal.unsigned_abs().into(), action, 0, calls::SIGNAL_MASK_LENGTH];
        self.push(calls::RT_SIGACTION, &arguments, Step::Wait, Failure::IsPassedOver);
    }

    /// Reads one byte from a fifo, and waits for it.
    pub(super) fn wait_in_fifo(&mut self, fifo: BorrowedFd<'_>) {
        let byte = self.put(b"0", 1);
        let fifo = fifo.as_raw_fd().unsigned_abs().into();
        self.push(calls::READ, &[fifo, byte, 1], Step::Wait, Failure::Ends);
    }

    /// Closes every descriptor from `first` on at the exec.
    pub(super) fn close_from(&mut self, first: u32) {
        let arguments = [first.into(), u32::MAX.into(), calls::CLOSE_RANGE_CLOEXEC];
        self.push(calls::CLOSE_RANGE, &arguments, Step::CloseDescriptors, Failure::Ends);
    }

    /// Loads a seccomp filter, given as the bytes of its instructions.
    pub(super) fn seccomp(&mut self, instructions: &[u8], flags: u32) {
        let count = instructions.len() / 8;
        let filter = self.put(instructions, 8);
        let mut program = [0; 16];
        program[..2].copy_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
        program[8..].copy_from_slice(&filter.to_le_bytes());
        let program = self.put(&program, 8);
        let arguments = [calls::SECCOMP_SET_MODE_FILTER, flags.into(), program];
        self.push(calls::SECCOMP, &arguments, Step::Seccomp, Failure::Ends);
    }

    /// Stays as the init of a child that plays the rest. [`FORK_CALLS`] calls.
    ///
    /// The parent does all that an init does and no more: it can be looked into as any other process of the container
    /// (`/proc/1/fd/1` is where many an image has its log), and holds nothing but the standard streams. The child leads a
    /// process group of its own, in the terminal's foreground: what is typed there is for it alone.
    pub(super) fn fork(&mut self, has_terminal: bool) {
        let fork = |tape: &mut Self, number, arguments: &[u64]| {
            tape.push(number, arguments, Step::Fork, Failure::Ends);
        };
        let mut room = [0; REAP_LENGTH];
        room[..8].fill(0xff);
        let room = self.put(&room, 8);
        // Until the child has another mind, none may end it or be lost.
        let mask = [calls::SIG_SETMASK, room, 0, calls::SIGNAL_MASK_LENGTH];
        fork(self, calls::RT_SIGPROCMASK, &mask);
        // Where the PID namespace is another's, its first process would get the orphans.
        fork(self, calls::PRCTL, &[calls::PR_SET_CHILD_SUBREAPER, 1]);
        fork(self, calls::CLONE, &[calls::CLONE_FORK]);
        self.answer_into(room + 8);
        self.calls.last_mut().expect("a call was pushed").skipped_at_zero = 4;
        fork(self, calls::CLOSE_RANGE, &[3, u32::MAX.into(), 0]);
        fork(self, calls::PRCTL, &[calls::PR_SET_DUMPABLE, 1]);
        let name = self.put_string(INIT_NAME);
        fork(self, calls::PRCTL, &[calls::PR_SET_NAME, name]);
        fork(self, REAP, &[room]);

        // The child, which has a copy of the room. What the workload sees of its init is there from its first moment.
        fork(self, calls::PRCTL, &[calls::PR_SET_PDEATHSIG, calls::SIGKILL]);
        let ready = self.put(&(1u64 << (calls::SIGCONT - 1)).to_le_bytes(), 8);
        fork(self, calls::RT_SIGTIMEDWAIT, &[ready, 0, 0, calls::SIGNAL_MASK_LENGTH]);
        fork(self, calls::SETPGID, &[0, 0]);
        if has_terminal {
            fork(self, calls::GETPID, &[]);
            self.answer_into(room + 8);
            fork(self, calls::IOCTL, &[0, calls::TIOCSPGRP, room + 8]);
        }
        let none = self.put(&[0; 8], 8);
        fork(self, calls::RT_SIGPROCMASK, &[calls::SIG_SETMASK, none, 0, calls::SIGNAL_MASK_LENGTH]);
    }

    /// Becomes the workload.
    pub(super) fn exec(&mut self, path: &CStr, argv: &CStringArray, envp: &CStringArray) {
        let path = self.put_string(path);
        let (argv, envp) = (self.put_array(argv), self.put_array(envp));
        self.push(calls::EXECVE, &[path, argv, envp], Step::Exec, Failure::Ends);
    }

    /// Gives the data for the stub.
    pub(super) fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data_offset() + self.data.len());
        for word in [u32::from(self.report_tag), 0, 0, self.report_to.unsigned_abs()] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for call in &self.calls {
            out.extend_from_slice(&call.number.to_le_bytes());
            for argument in call.arguments {
                out.extend_from_slice(&argument.to_le_bytes());
            }
            out.extend_from_slice(&(call.step as u32).to_le_bytes());
            let passes = if call.failure == Failure::IsPassedOver { PASSES_FAILURE } else { 0 };
            out.extend_from_slice(&(call.skipped_at_zero << 1 | passes).to_le_bytes());
            out.extend_from_slice(&call.answer_to.to_le_bytes());
        }
        out.extend_from_slice(&END.to_le_bytes());
        out.resize(self.data_offset(), 0);
        out.extend_from_slice(&self.data);
        out
    }

    fn push(&mut self, number: u64, arguments: &[u64], step: Step, failure: Failure) {
        assert!(self.calls.len() < self.capacity, "the table's length was fixed when the tape was begun");
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        self.calls.push(Call { number, arguments: all, step, failure, answer_to: 0, skipped_at_zero: 0 });
    }

    /// Has the answer of the last call written to an address.
    fn answer_into(&mut self, address: u64) {
        self.calls.last_mut().expect("a call was pushed").answer_to = address;
    }

    /// Gives the address of an argument of the call that comes next.
    fn argument_of_next(&self, index: usize) -> u64 {
        DATA_ADDRESS + (FRAME_LENGTH + self.calls.len() * CALL_LENGTH + (1 + index) * 8) as u64
    }

    fn report_to(&self) -> u64 {
        self.report_to.unsigned_abs().into()
    }

    fn data_offset(&self) -> usize {
        FRAME_LENGTH + (self.capacity + 1) * CALL_LENGTH
    }

    /// Lays bytes behind the table and gives the address they will have.
    fn put(&mut self, bytes: &[u8], alignment: usize) -> u64 {
        let start = (self.data_offset() + self.data.len()).next_multiple_of(alignment);
        self.data.resize(start - self.data_offset(), 0);
        self.data.extend_from_slice(bytes);
        DATA_ADDRESS + start as u64
    }

    fn put_words(&mut self, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(&bytes, 8)
    }

    fn put_string(&mut self, string: &CStr) -> u64 {
        self.put(string.to_bytes_with_nul(), 1)
    }

    fn put_array(&mut self, array: &CStringArray) -> u64 {
        let mut pointers = Vec::with_capacity((array.strings().len() + 1) * 8);
        for string in array.strings() {
            let address = self.put_string(string);
            pointers.extend_from_slice(&address.to_le_bytes());
        }
        pointers.extend_from_slice(&0u64.to_le_bytes());
        self.put(&pointers, 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn answers_lead_to_where_they_are_wanted() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut tape = Tape::new(5, null.as_fd(), 9);
        tape.write_file(null.as_fd(), c"x", b"text", Step::Label);
        tape.seccomp(&[0; 8], 0);
        tape.send_listener(7);
        let data = tape.finish();
        let word = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
        let call = |index: usize| FRAME_LENGTH + index * CALL_LENGTH;
        assert_eq!(word(call(0)), calls::OPENAT2);
        assert_eq!(
            word(call(0) + 64),
            DATA_ADDRESS + call(1) as u64 + 8,
            "the descriptor becomes write's first argument"
        );
        assert_eq!((word(call(1)), word(call(1) + 64)), (calls::WRITE, 0));
        assert_eq!(word(call(2)), calls::SECCOMP);
        assert_eq!(word(call(3)), calls::WRITE);
        assert_eq!(
            word(call(2) + 64),
            word(call(3) + 16) + LISTENER_NUMBER_OFFSET as u64,
            "and the listener a message"
        );
        assert_eq!(data[usize::try_from(word(call(3) + 16) - DATA_ADDRESS).unwrap()], 7);
    }

    #[test]
    fn pointers_lead_to_what_was_put() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut tape = Tape::new(2, null.as_fd(), 9);
        let argv = CStringArray::new(vec![c"one".to_owned(), c"two".to_owned()]);
        tape.exec(c"/bin/x", &argv, &CStringArray::new(Vec::new()));
        let data = tape.finish();
        let word = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
        let string = |address: u64| {
            CStr::from_bytes_until_nul(&data[usize::try_from(address - DATA_ADDRESS).unwrap()..]).unwrap()
        };
        assert_eq!(word(FRAME_LENGTH), calls::EXECVE);
        assert_eq!(string(word(FRAME_LENGTH + 8)), c"/bin/x");
        let argv = usize::try_from(word(FRAME_LENGTH + 16) - DATA_ADDRESS).unwrap();
        assert_eq!(argv % 8, 0);
        assert_eq!((string(word(argv)), string(word(argv + 8)), word(argv + 16)), (c"one", c"two", 0));
        assert_eq!(word(FRAME_LENGTH + CALL_LENGTH), END);
    }
}
