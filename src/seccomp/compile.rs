//! Turns a policy into a program: one balanced tree over the numbers of each architecture, whose leaves are actions or
//! tests of arguments. Installs nothing.
//!
//! The kernel walks this once for each number when the filter is installed, to remember which are always allowed (Linux
//! 5.11), and again at each call that isn't. So the number of steps counts twice: runs of numbers with one outcome are one
//! leaf, and a leaf is about eight steps away where a chain of comparisons would take hundreds.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::abi::{Abi, Multiplexer, Width, X32_BIT};
use super::action::{Action, Refusal};
use super::assemble::{Assembler, Label, Question};
use super::interpret::{self, Call};
use super::policy::{Comparison, Policy, Test, UnknownNames};
use super::table::{self, FIRST_PRIVATE_SLOT, Row, SLOTS};
use crate::error::{Error, Result};
use crate::sys::seccomp::{self, Instruction, MAX_INSTRUCTIONS};

// Offsets in struct seccomp_data (linux/seccomp.h).
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;

/// `BPF_RET | BPF_K` (linux/bpf_common.h).
const RETURN_CONSTANT: u16 = 0x06;

/// A filter ready to be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The instructions, at most 4096.
    pub filter: Vec<Instruction>,
    /// The flags of seccomp(2).
    pub flags: u32,
    /// Who gets the notifications, if there are any: then, `flags` asks for a listener.
    pub listener: Option<Listener>,
}

/// Who gets the notifications of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The UNIX socket to hand the listener to. Whoever installs the filter refuses to go on if nothing names one.
    pub path: Option<PathBuf>,
    /// Passed along as it is.
    pub metadata: Option<String>,
    /// Whether sendmsg(2) may be one of the calls that wait for it.
    pub may_ask_for_sendmsg: bool,
}

/// Compiles a profile for this machine.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program> {
    compile_for(profile, Abi::OF_THIS_MACHINE, UnknownNames::Skip)
}

/// Compiles a profile for this machine, and refuses one that names calls which no architecture has.
pub fn compile_strictly(profile: &LinuxSeccomp) -> Result<Program> {
    compile_for(profile, Abi::OF_THIS_MACHINE, UnknownNames::Fail)
}

/// Compiles a profile for a machine whose kernel runs the given ABIs, the native one first.
pub(super) fn compile_for(profile: &LinuxSeccomp, machine_abis: &[Abi], unknown: UnknownNames) -> Result<Program> {
    let policy = Policy::of(profile, machine_abis, unknown)?;
    let filter = Compiler::new(&policy).compile();
    if filter.len() > MAX_INSTRUCTIONS {
        return Err(Error::invalid(format!(
            "linux.seccomp.syscalls: the rules take {} instructions, and the kernel allows {MAX_INSTRUCTIONS}",
            filter.len()
        )));
    }
    Ok(Program::new(filter, policy.notifies, profile_asks_for_sendmsg(profile), Some(profile)))
}

/// Takes a program that somebody else has compiled, as the bytes of the kernel's `struct sock_filter` (crun's
/// `run.oci.seccomp_bpf_data`). Flags and listener are those of `profile`, whose rules do not count then.
pub fn take_program(bytes: &[u8], profile: Option<&LinuxSeccomp>) -> Result<Program> {
    let (instructions, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || instructions.is_empty() || instructions.len() > MAX_INSTRUCTIONS {
        return Err(Error::invalid(format!(
            "{} bytes are not a program of 1 to {MAX_INSTRUCTIONS} instructions of 8 bytes",
            bytes.len()
        )));
    }
    let filter: Vec<Instruction> = instructions
        .iter()
        .map(|[c0, c1, jt, jf, k0, k1, k2, k3]| Instruction {
            code: u16::from_ne_bytes([*c0, *c1]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes([*k0, *k1, *k2, *k3]),
        })
        .collect();
    let notifies =
        filter.iter().any(|instruction| instruction.code == RETURN_CONSTANT && Action::asks_listener(instruction.k));
    // What it asks for is not read.
    Ok(Program::new(filter, notifies, true, profile))
}

impl Program {
    fn new(
        filter: Vec<Instruction>,
        notifies: bool,
        may_ask_for_sendmsg: bool,
        profile: Option<&LinuxSeccomp>,
    ) -> Self {
        let mut flags = flags(profile);
        let mut listener = None;
        if notifies {
            flags |= seccomp::FLAG_NEW_LISTENER;
            listener = Some(Listener {
                // Callers written in Go leave out the difference between an empty path and none.
                path: profile
                    .and_then(|profile| profile.listener_path().clone())
                    .filter(|path| !path.as_os_str().is_empty()),
                metadata: profile.and_then(|profile| profile.listener_metadata().clone()),
                may_ask_for_sendmsg,
            });
        } else {
            // EINVAL without a listener; and without one, nobody waits.
            flags &= !seccomp::FLAG_WAIT_KILLABLE_RECV;
        }
        Self { filter, flags, listener }
    }

    /// Says whether the filter has a call of this machine's own ABI made. One whose instructions are not known here may
    /// say anything, so it does not.
    pub fn allows(&self, number: u64, arguments: [u64; 6]) -> bool {
        let Ok(number) = u32::try_from(number) else { return false };
        let call = Call { number, architecture: Abi::OF_THIS_MACHINE[0].audit_architecture(), arguments };
        interpret::trace(&self.filter, &call).is_some_and(|(answer, _)| Action::is_made(answer))
    }
}

impl Program {
    /// Says what the filter does to a call that it refuses; `None` where it does not, or has instructions that are not
    /// known here.
    pub fn refusal(&self, architecture: u32, number: u32, arguments: [u64; 6]) -> Option<Refusal> {
        let call = Call { number, architecture, arguments };
        interpret::trace(&self.filter, &call).and_then(|(answer, _)| Action::refusal(answer))
    }

    /// Gives the same filter, which asks a listener wherever this one refuses.
    pub fn asking(&self) -> Vec<Instruction> {
        let ask = |instruction: &Instruction| match instruction.code {
            RETURN_CONSTANT if Action::refusal(instruction.k).is_some() => {
                Instruction { k: Action::notify(), ..*instruction }
            }
            _ => *instruction,
        };
        self.filter.iter().map(ask).collect()
    }
}

fn profile_asks_for_sendmsg(profile: &LinuxSeccomp) -> bool {
    let rules = profile.syscalls().iter().flatten();
    { rules }.any(|rule| {
        rule.action() == LinuxSeccompAction::ScmpActNotify && rule.names().iter().any(|name| name == "sendmsg")
    })
}

fn flags(profile: Option<&LinuxSeccomp>) -> u32 {
    let Some(flags) = profile.and_then(|profile| profile.flags().as_ref()) else {
        // As runc and crun: a filter shouldn't cost every indirect load of the workload (Linux before 5.16).
        return seccomp::FLAG_SPEC_ALLOW;
    };
    flags.iter().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => seccomp::FLAG_LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => seccomp::FLAG_SPEC_ALLOW,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => seccomp::FLAG_WAIT_KILLABLE_RECV,
                // Filters are installed by a process with one thread, so there is nothing to synchronise; and the kernel
                // takes the flag beside a listener only since 5.7.
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            }
    })
}

/// The outcome for a number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Return(Action),
    /// The tests of a call, by index into [`Compiler::chains`].
    Tests(usize),
}

/// The numbers from here to the next segment have one outcome.
type Segment = (u32, Leaf);

struct Compiler<'a> {
    policy: &'a Policy,
    assembler: Assembler,
    /// Tests that were written, by call and width. (The tests of two ABIs with arguments of the same size are the same.)
    chains: Vec<(Row, Width, Label)>,
}

impl<'a> Compiler<'a> {
    fn new(policy: &'a Policy) -> Self {
        Self { policy, assembler: Assembler::default(), chains: Vec::new() }
    }

    /// Writes the whole program, from its end.
    fn compile(mut self) -> Vec<Instruction> {
        let mut by_architecture: Vec<(u32, Vec<Segment>)> = Vec::new();
        for abi in &self.policy.abis {
            let segments = self.segments(*abi);
            match by_architecture.iter_mut().find(|(architecture, _)| *architecture == abi.audit_architecture()) {
                Some((_, others)) => others.extend(segments),
                None => by_architecture.push((abi.audit_architecture(), segments)),
            }
        }
        if self.policy.abis[0] == Abi::X86_64 && !self.policy.abis.contains(&Abi::X32) {
            close_x32(&mut by_architecture[0].1);
        }

        // The native architecture is written last, to be the first that is looked for.
        let mut next = self.assembler.give(Action::KILL_PROCESS.value());
        let mut entries = Vec::with_capacity(by_architecture.len());
        for (architecture, mut segments) in by_architecture.into_iter().rev() {
            segments.dedup_by(|later, earlier| later.1 == earlier.1);
            let tree = self.tree(&segments);
            entries.push((architecture, self.assembler.load(NUMBER_OFFSET, tree)));
        }
        for (architecture, entry) in entries {
            next = self.assembler.branch(Question::Is(architecture), entry, next);
        }
        self.assembler.load(ARCHITECTURE_OFFSET, next);
        self.assembler.finish()
    }

    /// Gives the outcomes for all numbers of an ABI, and writes the tests among them.
    fn segments(&mut self, abi: Abi) -> Vec<Segment> {
        let newest = self.newest(abi);
        let beyond =
            if newest.is_some() { Leaf::Return(Action::NO_SYSTEM_CALL) } else { Leaf::Return(self.policy.default) };
        let mut slots = [Leaf::Return(self.policy.default); SLOTS];
        slots[newest.map_or(SLOTS, |slot| slot + 1)..].fill(beyond);

        for (row, call) in self.policy.named() {
            let Some(slot) = row.slot(abi.column()) else { continue };
            slots[slot] = if call.has_tests {
                Leaf::Tests(self.chain(row, abi.width()))
            } else {
                Leaf::Return(call.always.unwrap_or(self.policy.default))
            };
        }
        for multiplexer in abi.multiplexers() {
            self.open_up(abi, multiplexer, &mut slots);
        }

        let mut segments = Vec::with_capacity(SLOTS / 4);
        let mut last = None;
        for (slot, leaf) in slots.into_iter().enumerate() {
            if last != Some(leaf) {
                segments.push((abi.first_number() + table::number_of_slot(slot), leaf));
                last = Some(leaf);
            }
        }
        segments
    }

    /// Gives the newest call that the profile names in an ABI, if later ones are to be unknown.
    fn newest(&self, abi: Abi) -> Option<usize> {
        if !self.policy.new_calls_are_unknown {
            return None;
        }
        let slots = self.policy.named().filter_map(|(row, _)| row.slot(abi.column()));
        // The private calls of arm are a range of their own and say nothing of what is new.
        slots.filter(|slot| *slot < FIRST_PRIVATE_SLOT).max()
    }

    /// Applies the rules of hidden calls to the call that hides them, unless the profile has a rule for that.
    fn open_up(&mut self, abi: Abi, multiplexer: &Multiplexer, slots: &mut [Leaf; SLOTS]) {
        let row = Row::find(multiplexer.name).expect("it is in the table");
        if self.policy.call(row).is_some() {
            return;
        }
        let slot = row.slot(abi.column()).expect("the ABI has it");
        // The default, or ENOSYS where the profile names nothing as new as the multiplexer.
        let Leaf::Return(otherwise) = slots[slot] else { return };
        let hidden = multiplexer.calls.iter().filter_map(|(number, name)| {
            let row = Row::find(name)?;
            let call = self.policy.call(row)?;
            let action = self.policy.strictest(row, call);
            // What nothing shadows and nothing is shadowed by needs no test.
            (action != otherwise).then(|| Test {
                comparisons: vec![Comparison {
                    index: 0,
                    operator: SeccompCmpOp::MaskedEq(multiplexer.mask),
                    value: *number,
                }],
                action,
            })
        });
        let tests: Vec<_> = hidden.collect();
        if !tests.is_empty() {
            slots[slot] = Leaf::Tests(self.write_tests(row, tests.iter(), otherwise, abi.width()));
        }
    }

    /// Gives the chain of a call's tests, written once for each width.
    fn chain(&mut self, row: Row, width: Width) -> usize {
        if let Some(chain) = self.chains.iter().position(|(known, at, _)| *known == row && *at == width) {
            return chain;
        }
        let call = self.policy.call(row).expect("only calls with rules have tests");
        self.write_tests(row, self.policy.tests(row), call.always.unwrap_or(self.policy.default), width)
    }

    /// Writes tests, of which the first that holds decides.
    fn write_tests<'t>(
        &mut self,
        row: Row,
        tests: impl DoubleEndedIterator<Item = &'t Test>,
        otherwise: Action,
        width: Width,
    ) -> usize {
        let mut next = self.assembler.give(otherwise.value());
        for test in tests.rev() {
            // seccompiler's rule falls through if it holds and else skips one instruction.
            self.assembler.fall_through_to(next);
            self.assembler.write_return(test.action.value());
            next = self.assembler.write_block(rule(test, width));
        }
        self.chains.push((row, width, next));
        self.chains.len() - 1
    }

    /// Writes the search for the accumulator's value among segments, which cover all values that can arrive.
    fn tree(&mut self, segments: &[Segment]) -> Label {
        match segments {
            [(_, leaf)] => self.leaf(*leaf),
            // A single number in the middle of others.
            [(_, around), (number, leaf), (after, same)] if around == same && *after == number + 1 => {
                let (yes, no) = (self.leaf(*leaf), self.leaf(*around));
                self.assembler.branch(Question::Is(*number), yes, no)
            }
            _ => {
                // An odd lower half doesn't cut a single number off from what is around it.
                let (low, high) = segments.split_at((segments.len() / 2) | 1);
                let yes = self.tree(high);
                let no = self.tree(low);
                self.assembler.branch(Question::IsAtLeast(high[0].0), yes, no)
            }
        }
    }

    fn leaf(&mut self, leaf: Leaf) -> Label {
        match leaf {
            Leaf::Return(action) => self.assembler.give(action.value()),
            Leaf::Tests(chain) => self.chains[chain].2,
        }
    }
}

/// Closes x32 behind the numbers of x86_64, where it is not filtered.
///
/// Without this, x32 would go by its architecture, which is that of x86_64, and by numbers that no rule is made for. All bits
/// set are no x32 call but none at all (`syscall(-1)`, or one that a tracer skips): the rest of x86_64 decides.
fn close_x32(x86_64: &mut Vec<Segment>) {
    let beyond = x86_64.last().expect("segments cover all numbers").1;
    x86_64.extend([(X32_BIT, Leaf::Return(Action::KILL_PROCESS)), (u32::MAX, beyond)]);
}

/// Gives the instructions that fall through if a test holds, and else skip one instruction.
fn rule(test: &Test, width: Width) -> impl DoubleEndedIterator<Item = Instruction> {
    let length = match width {
        Width::Low32 => SeccompCmpArgLen::Dword,
        Width::All64 => SeccompCmpArgLen::Qword,
    };
    let condition = |comparison: &Comparison| {
        SeccompCondition::new(comparison.index, length.clone(), comparison.operator.clone(), comparison.value)
            .expect("the index is below six")
    };
    let rule = SeccompRule::new(test.comparisons.iter().map(condition).collect()).expect("a test has comparisons");
    // The first two instructions are a jump over a jump out of the rule, for rules that others fall into.
    BpfProgram::from(rule).into_iter().skip(2).map(|instruction| Instruction {
        code: instruction.code,
        jt: instruction.jt,
        jf: instruction.jf,
        k: instruction.k,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use oci_spec::runtime::LinuxSyscall;

    use super::*;
    use crate::sys::seccomp::install;
    use crate::sys::seccomp::testing::{call, in_child};

    fn program(profile: &str) -> Result<Program> {
        compile(&serde_json::from_str(profile).unwrap())
    }

    #[test]
    fn a_profile_holds_in_the_kernel() {
        let program = program(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NATIVE", "SCMP_ARCH_X86"], "syscalls": [
                {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42},
                {"names": ["close"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7,
                    "args": [{"index": 0, "value": 4294967297, "op": "SCMP_CMP_GE"}]},
                {"names": ["getuid"], "action": "SCMP_ACT_KILL_PROCESS"}]}"#,
        )
        .unwrap();
        let status = in_child(|| {
            i32::from(
                install(&program.filter, program.flags).is_err()
                    || call(libc::SYS_getpid, [0; 3]) != -42
                    || call(libc::SYS_getppid, [0; 3]) <= 0
                    || call(libc::SYS_close, [0x1_0000_0000, 0, 0]) != 0
                    || call(libc::SYS_close, [0x1_0000_0001, 0, 0]) != -7,
            )
        });
        assert!(status.success(), "{status}");
        let status = in_child(|| match install(&program.filter, program.flags) {
            Ok(_) => i32::from(call(libc::SYS_getuid, [0; 3]) >= 0),
            Err(_) => 1,
        });
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGSYS), "{status}");
    }

    /// CVE-2026-31431 and its kin: a profile for x86_64 that leaves the other ABIs open isn't one.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn foreign_abis_are_filtered_or_closed() {
        use crate::sys::seccomp::testing::{call_i386, has_i386};
        const GETPID_I386: u32 = 20;
        const SOCKETCALL_I386: u32 = 102;
        let killed = |status: std::process::ExitStatus| {
            std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGSYS)
        };
        let rules = r#""syscalls": [{"names": ["getpid", "socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42}]"#;
        let native = program(&format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", {rules}}}"#)).unwrap();
        let x32_getpid = libc::SYS_getpid | i64::from(X32_BIT);
        let status = in_child(|| match install(&native.filter, native.flags) {
            Ok(_) => i32::from(call(x32_getpid, [0; 3]) != 0),
            Err(_) => 2,
        });
        assert!(killed(status), "x32: {status}");
        let foreign = program(&format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"], {rules}}}"#
        ))
        .unwrap();
        let status =
            in_child(|| i32::from(install(&foreign.filter, foreign.flags).is_err() || call(x32_getpid, [0; 3]) != -42));
        assert!(status.success(), "x32: {status}");

        if !has_i386() {
            #[expect(clippy::print_stderr, reason = "a check that can't run says so")]
            {
                eprintln!("this kernel runs no i386 calls: their filter is not tried");
            }
            return;
        }
        let status = in_child(|| match install(&native.filter, native.flags) {
            Ok(_) => i32::from(call_i386(GETPID_I386, [0; 2]) != 0),
            Err(_) => 2,
        });
        assert!(killed(status), "i386: {status}");
        let status = in_child(|| {
            i32::from(
                install(&foreign.filter, foreign.flags).is_err()
                    || call_i386(GETPID_I386, [0; 2]) != -42
                    || call_i386(SOCKETCALL_I386, [1, 0]) != -42,
            )
        });
        assert!(status.success(), "i386: {status}");
    }

    #[test]
    fn flags_and_listener_are_those_of_the_profile() {
        let notify = r#""syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]"#;
        let wait = r#""flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]"#;
        for (fields, flags, listener) in [
            (String::new(), seccomp::FLAG_SPEC_ALLOW, None),
            (r#", "flags": []"#.to_owned(), 0, None),
            (r#", "flags": ["SECCOMP_FILTER_FLAG_LOG"]"#.to_owned(), seccomp::FLAG_LOG, None),
            (format!(", {wait}"), 0, None),
            (
                format!(r#", {wait}, {notify}, "listenerPath": "/run/agent", "listenerMetadata": "who""#),
                seccomp::FLAG_NEW_LISTENER | seccomp::FLAG_WAIT_KILLABLE_RECV,
                Some(Listener {
                    path: Some("/run/agent".into()),
                    metadata: Some("who".to_owned()),
                    may_ask_for_sendmsg: false,
                }),
            ),
            (
                format!(", {notify}"),
                seccomp::FLAG_NEW_LISTENER | seccomp::FLAG_SPEC_ALLOW,
                Some(Listener { path: None, metadata: None, may_ask_for_sendmsg: false }),
            ),
        ] {
            let program = program(&format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW"{fields}}}"#)).unwrap();
            assert_eq!((program.flags, program.listener), (flags, listener), "{fields}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        for (profile, message) in [
            (
                r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
                "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}"#,
                "linux.seccomp.defaultErrnoRet: 4096 is above 4095",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}"#,
                "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW takes no errno",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"}]}"#,
                "linux.seccomp.syscalls[0]: SCMP_ACT_NOTIFY cannot be used for the write syscall",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [""], "action": "SCMP_ACT_KILL"}]}"#,
                "linux.seccomp.syscalls[0].names: an empty name",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRACE", "errnoRet": 65536}]}"#,
                "linux.seccomp.syscalls[0].errnoRet: 65536 is above 65535",
            ),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL",
                    "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
                "linux.seccomp.syscalls[0].args[0].index: 6: a system call has arguments 0 to 5",
            ),
        ] {
            assert_eq!(program(profile).unwrap_err().report(), message);
        }
    }

    #[test]
    fn names_from_outside_the_specification_are_refused_while_reading() {
        for profile in [
            r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NONE"]}"#,
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}]}]}"#,
        ] {
            assert!(serde_json::from_str::<LinuxSeccomp>(profile).is_err(), "{profile}");
        }
        let names: HashSet<_> = super::super::ARCHITECTURES.into_iter().collect();
        assert_eq!(names.len(), 23);
        for name in names {
            let profile = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["{name}"]}}"#);
            program(&profile).unwrap_or_else(|error| panic!("{name}: {}", error.report()));
        }
    }

    #[test]
    fn unknown_names_fail_where_that_is_asked_for() {
        let compile_names = |names: &str| {
            let profile = format!(
                r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": [{names}], "action": "SCMP_ACT_KILL"}}]}}"#
            );
            compile_strictly(&serde_json::from_str(&profile).unwrap())
        };
        assert_eq!(
            compile_names(r#""read", "raed""#).unwrap_err().report(),
            "linux.seccomp.syscalls[0].names: \"raed\" is no system call of any architecture"
        );
        compile_names(r#""read", "set_tls", "s390_sthyi", "arm_sync_file_range""#).unwrap();
    }

    #[test]
    fn a_foreign_program_is_taken_as_it_is() {
        let ours = program(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}"#,
        )
        .unwrap();
        let profile: LinuxSeccomp = serde_json::from_str(
            r#"{"defaultAction": "SCMP_ACT_KILL", "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/run/x"}"#,
        )
        .unwrap();
        let taken = take_program(&seccomp::to_bytes(&ours.filter), Some(&profile)).unwrap();
        assert_eq!((&taken.filter, taken.flags), (&ours.filter, seccomp::FLAG_LOG | seccomp::FLAG_NEW_LISTENER));
        assert_eq!(
            taken.listener,
            Some(Listener { path: Some("/run/x".into()), metadata: None, may_ask_for_sendmsg: true })
        );
        assert_eq!(take_program(&[6, 0, 0, 0, 0, 0, 0, 0], None).unwrap().flags, seccomp::FLAG_SPEC_ALLOW);
        for bytes in [vec![], vec![0; 7], vec![0; 9], vec![0; 8 * 4097]] {
            let error = take_program(&bytes, None).unwrap_err().report();
            assert!(error.ends_with("are not a program of 1 to 4096 instructions of 8 bytes"), "{error}");
        }
    }

    #[test]
    fn a_program_that_the_kernel_would_not_take_is_refused() {
        let mut rules = Vec::new();
        for value in 0..1000 {
            let rule = format!(
                r#"{{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": {value},
                    "args": [{{"index": 0, "value": {value}, "op": "SCMP_CMP_EQ"}}]}}"#
            );
            rules.push(serde_json::from_str::<LinuxSyscall>(&rule).unwrap());
        }
        let mut profile = LinuxSeccomp::default();
        profile.set_default_action(LinuxSeccompAction::ScmpActAllow).set_syscalls(Some(rules));
        let error = compile(&profile).unwrap_err().report();
        assert!(error.starts_with("linux.seccomp.syscalls: the rules take 5"), "{error}");
    }
}
