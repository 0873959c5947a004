//! What the tests hold the compiler to: an interpreter of classic BPF, and a reading of profiles that is as plain as can be.
//!
//! The model shares the table of numbers with the compiler and nothing else: it reads the rules as they are written and
//! compares whole integers.

use std::collections::HashMap;

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::abi::Abi;
use super::compile::compile_for;
use super::interpret;
pub(super) use super::interpret::Call;
use super::policy::UnknownNames;
use super::table::{Row, number_of_slot};
use crate::sys::seccomp::Instruction;

const KILL_PROCESS: u32 = 0x8000_0000;
const UNKNOWN: u32 = 0x0005_0026;

const X86: &[Abi] = &[Abi::X86_64, Abi::I386, Abi::X32];
const MACHINES: [&[Abi]; 3] = [X86, &[Abi::Aarch64, Abi::Arm], &[Abi::Riscv64]];

/// Gives the number of a call in an ABI.
pub(super) fn number_of(abi: Abi, name: &str) -> Option<u32> {
    Some(abi.first_number() + number_of_slot(Row::find(name)?.slot(abi.column())?))
}

/// Runs a program as the kernel does (kernel/seccomp.c, net/core/filter.c), refusing what it would refuse.
pub(super) fn run(program: &[Instruction], call: &Call) -> u32 {
    trace(program, call).0
}

/// Runs a program and counts its steps.
pub(super) fn trace(program: &[Instruction], call: &Call) -> (u32, usize) {
    interpret::trace(program, call).unwrap_or_else(|| panic!("an instruction that no filter of ours has: {call:?}"))
}

/// A profile that was read, and a machine.
pub(super) struct Model<'a> {
    profile: &'a LinuxSeccomp,
    machine_abis: &'a [Abi],
    /// The rules that name a call, in the profile's order.
    rules: HashMap<&'a str, Vec<&'a LinuxSyscall>>,
    /// What a number stands for, by the place of its ABI among those of the machine.
    names: Vec<HashMap<u32, &'static str>>,
}

impl<'a> Model<'a> {
    /// Reads a profile.
    pub(super) fn of(profile: &'a LinuxSeccomp, machine_abis: &'a [Abi]) -> Self {
        let mut rules: HashMap<&str, Vec<&LinuxSyscall>> = HashMap::new();
        for rule in profile.syscalls().iter().flatten() {
            for name in rule.names() {
                let list = rules.entry(name).or_default();
                // A rule that names a call twice is one rule of it.
                if !list.last().is_some_and(|last| std::ptr::eq(*last, rule)) {
                    list.push(rule);
                }
            }
        }
        let names = machine_abis.iter().map(|abi| {
            let number = |row: Row| Some((abi.first_number() + number_of_slot(row.slot(abi.column())?), row.name()));
            Row::all().filter_map(number).collect()
        });
        Self { profile, machine_abis, rules, names: names.collect() }
    }

    /// Decides a call.
    pub(super) fn decide(&self, call: &Call) -> u32 {
        let Self { profile, machine_abis, .. } = *self;
        let is_filtered = |abi: Abi| {
            let is_listed = |arch: &Arch| *arch == abi.to_oci() && machine_abis.contains(&abi);
            abi == machine_abis[0] || profile.architectures().iter().flatten().any(is_listed)
        };
        let Some(abi) = abi_of(call, is_filtered(Abi::X32)).filter(|abi| is_filtered(*abi)) else {
            return KILL_PROCESS;
        };
        let default = value(profile.default_action(), profile.default_errno_ret());
        let name = self.name(abi, call.number);
        if let Some(rules) = name.and_then(|name| self.rules.get(name)) {
            return decide_named(rules, default, seen(abi), call);
        }
        for multiplexer in abi.multiplexers().iter().filter(|multiplexer| Some(multiplexer.name) == name) {
            let selector = call.arguments[0] & 0xffff_ffff & multiplexer.mask;
            let Some((_, hidden)) = multiplexer.calls.iter().find(|(number, _)| *number == selector) else { continue };
            if let Some(rules) = self.rules.get(hidden) {
                return strictest(rules, default);
            }
        }
        let passes = matches!(
            profile.default_action(),
            LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
        );
        if !passes && self.newest(abi).is_some_and(|newest| call.number > newest) {
            return UNKNOWN;
        }
        default
    }

    fn name(&self, abi: Abi, number: u32) -> Option<&'static str> {
        let place = self.machine_abis.iter().position(|other| *other == abi)?;
        self.names[place].get(&number).copied()
    }

    /// The newest call that the profile names, but for the private ones of arm.
    fn newest(&self, abi: Abi) -> Option<u32> {
        let numbers = self.rules.keys().filter_map(|name| number_of(abi, name));
        numbers.filter(|number| number - abi.first_number() < 1000).max()
    }
}

/// Gives every name of a call that the compiler knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    Row::all().map(Row::name)
}

/// Holds what a profile compiles to to what it reads as: for the calls that it names and their neighbours, on every
/// machine. Panics where they differ, and not where the profile is refused.
pub fn compare_with_model(profile: &LinuxSeccomp, arguments: &[[u64; 6]]) {
    let named: Vec<&str> =
        profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names).map(String::as_str).collect();
    for machine in MACHINES {
        let Ok(program) = compile_for(profile, machine, UnknownNames::Skip) else { return };
        let model = Model::of(profile, machine);
        for abi in machine {
            let multiplexers = abi.multiplexers().iter().map(|multiplexer| multiplexer.name);
            let numbers = named.iter().copied().chain(multiplexers).filter_map(|name| number_of(*abi, name));
            let numbers = numbers.flat_map(|number| number.saturating_sub(1)..=number + 1);
            for number in numbers.chain([0, 999, 1023, 1024, 0x3fff_ffff, 0x7fff_ffff, u32::MAX]) {
                let architecture = abi.audit_architecture();
                for arguments in arguments {
                    compare(&model, &program.filter, &Call { number, architecture, arguments: *arguments });
                }
            }
        }
    }
}

fn compare(model: &Model<'_>, program: &[Instruction], call: &Call) {
    let (expected, actual) = (model.decide(call), run(program, call));
    assert_eq!(actual, expected, "{call:x?} on {:?}: {actual:#x}, not {expected:#x}", model.machine_abis[0]);
}

fn abi_of(call: &Call, x32_is_filtered: bool) -> Option<Abi> {
    match call.architecture {
        0xc000_003e if call.number == u32::MAX && !x32_is_filtered => Some(Abi::X86_64),
        0xc000_003e if call.number >= 0x4000_0000 => Some(Abi::X32),
        0xc000_003e => Some(Abi::X86_64),
        0x4000_0003 => Some(Abi::I386),
        0xc000_00b7 => Some(Abi::Aarch64),
        0x4000_0028 => Some(Abi::Arm),
        0xc000_00f3 => Some(Abi::Riscv64),
        _ => None,
    }
}

/// Tries the rules with arguments, then takes the first without.
fn decide_named(rules: &[&LinuxSyscall], default: u32, seen: u64, call: &Call) -> u32 {
    for rule in rules {
        let arguments = rule.args().as_deref().unwrap_or_default();
        let is_repeated = |index| arguments.iter().filter(|argument| argument.index() == index).count() > 1;
        let mut answers = arguments.iter().map(|argument| holds(argument, seen, call));
        let matches = if arguments.iter().any(|argument| is_repeated(argument.index())) {
            answers.any(|answer| answer)
        } else {
            !arguments.is_empty() && answers.all(|answer| answer)
        };
        if matches {
            return value(rule.action(), rule.errno_ret());
        }
    }
    always(rules).unwrap_or(default)
}

fn always(rules: &[&LinuxSyscall]) -> Option<u32> {
    let rule = rules.iter().find(|rule| rule.args().as_deref().unwrap_or_default().is_empty())?;
    Some(value(rule.action(), rule.errno_ret()))
}

fn strictest(rules: &[&LinuxSyscall], default: u32) -> u32 {
    // From the strictest, as linux/seccomp.h lists them.
    let order = [0x8000_0000, 0, 0x0003_0000, 0x0005_0000, 0x7fc0_0000, 0x7ff0_0000, 0x7ffc_0000, 0x7fff_0000];
    let with_arguments = rules.iter().filter(|rule| !rule.args().as_deref().unwrap_or_default().is_empty());
    let fallback = std::iter::once(always(rules).unwrap_or(default));
    fallback
        .chain(with_arguments.map(|rule| value(rule.action(), rule.errno_ret())))
        .min_by_key(|value| order.iter().position(|action| *action == value & 0xffff_0000).unwrap())
        .unwrap()
}

/// Gives what of an argument the ABI passes.
fn seen(abi: Abi) -> u64 {
    if matches!(abi, Abi::I386 | Abi::X32 | Abi::Arm) { 0xffff_ffff } else { u64::MAX }
}

fn holds(argument: &LinuxSeccompArg, seen: u64, call: &Call) -> bool {
    let (actual, value) = (call.arguments[argument.index()] & seen, argument.value() & seen);
    match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => actual != value,
        LinuxSeccompOperator::ScmpCmpLt => actual < value,
        LinuxSeccompOperator::ScmpCmpLe => actual <= value,
        LinuxSeccompOperator::ScmpCmpEq => actual == value,
        LinuxSeccompOperator::ScmpCmpGe => actual >= value,
        LinuxSeccompOperator::ScmpCmpGt => actual > value,
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            actual & value == argument.value_two().unwrap_or(0) & argument.value() & seen
        }
    }
}

fn value(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => 0x0005_0000 + errno.unwrap_or(1),
        LinuxSeccompAction::ScmpActNotify => 0x7fc0_0000,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 + errno.unwrap_or(1),
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Capabilities, LinuxSeccompArgBuilder};
    use proptest::prelude::*;

    use super::super::default_profile;
    use super::*;

    /// Holds a compiled profile to the model for every number of every ABI of every machine.
    fn check(profile: &LinuxSeccomp, arguments: &[[u64; 6]]) {
        for machine in MACHINES {
            let program = compile_for(profile, machine, UnknownNames::Skip).unwrap().filter;
            let model = Model::of(profile, machine);
            for call in calls(arguments) {
                compare(&model, &program, &call);
            }
        }
    }

    fn calls(arguments: &[[u64; 6]]) -> impl Iterator<Item = Call> {
        // Those that there are tables for, and others of linux/audit.h: s390, s390x, ppc64le, mips, and none at all.
        let architectures =
            [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0xc000_00f3, 0x16, 0x8000_0016, 0xc000_0015, 8, 0];
        architectures.into_iter().flat_map(move |architecture| {
            let ordinary = 0..=1024;
            let private = 0x0f_0000..0x0f_0010;
            let x32 = 0x4000_0000..=0x4000_0400;
            let far = [0xffff, 0x3fff_ffff, 0x400f_0005, 0x7fff_ffff, 0x8000_0000, 0xc000_0001, u32::MAX - 1, u32::MAX];
            ordinary.chain(private).chain(x32).chain(far).flat_map(move |number| {
                // Behind the tables no rule can look at an argument.
                let has_rules = number & 0x3fff_ffff < 600 || number & 0xffff_0000 == 0x0f_0000;
                let arguments = if has_rules { arguments } else { &arguments[..1] };
                arguments.iter().map(move |arguments| Call { number, architecture, arguments: *arguments })
            })
        })
    }

    const ARGUMENTS: [[u64; 6]; 6] = [
        [0; 6],
        [1, 2, 3, 4, 5, 6],
        [16, 9, 9, 9, 9, 9],
        [38, 0, 0, 0, 0, 0],
        [0x1_0000_0026, 7, 7, 7, 7, 7],
        [u64::MAX; 6],
    ];

    #[test]
    fn written_profiles_decide_as_they_read() {
        for (name, profile) in PROFILES {
            let profile: LinuxSeccomp = serde_json::from_str(profile).unwrap_or_else(|error| panic!("{name}: {error}"));
            check(&profile, &ARGUMENTS);
        }
    }

    const PROFILES: &[(&str, &str)] = &[
        ("nothing but a default", r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#),
        ("nothing allowed", r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": []}"#),
        (
            "a list of refusals on every architecture",
            r#"{"defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM",
                    "SCMP_ARCH_S390X", "SCMP_ARCH_MIPS"],
                "syscalls": [{"names": ["getcwd", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42},
                    {"names": ["set_tls", "bpf"], "action": "SCMP_ACT_TRAP"},
                    {"names": ["rt_sigaction", "sync_file_range2"], "action": "SCMP_ACT_LOG"}]}"#,
        ),
        (
            "the hidden calls of i386, without a rule for what hides them",
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO",
                        "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]},
                    {"names": ["bind", "shmget"], "action": "SCMP_ACT_KILL"}]}"#,
        ),
        (
            "the hidden calls of i386, with a rule for what hides them",
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
                "syscalls": [{"names": ["socket", "connect", "semop"], "action": "SCMP_ACT_ALLOW"},
                    {"names": ["socketcall"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535},
                    {"names": ["ipc"], "action": "SCMP_ACT_LOG", "args": [{"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]}]}"#,
        ),
        (
            "a rule that equals the default and shadows another",
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO",
                        "args": [{"index": 0, "value": 38, "op": "SCMP_CMP_EQ"}]},
                    {"names": ["socket", "read"], "action": "SCMP_ACT_ALLOW"}]}"#,
        ),
        (
            "all of one, or any of those that look at the same argument",
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
                "syscalls": [{"names": ["socket", "close"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22,
                        "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 9, "op": "SCMP_CMP_EQ"}]},
                    {"names": ["socket", "dup"], "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_LT"}, {"index": 0, "value": 38, "op": "SCMP_CMP_GT"}]}]}"#,
        ),
        (
            "the first of two rules without arguments",
            r#"{"defaultAction": "SCMP_ACT_KILL_THREAD",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
                    {"names": ["read"], "action": "SCMP_ACT_ALLOW"}, {"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": []}]}"#,
        ),
    ];

    #[test]
    fn the_default_profile_decides_as_it_reads() {
        for machine in MACHINES {
            let mut profile = default_profile(&Capabilities::new());
            profile.set_architectures(Some(machine.iter().map(|abi| abi.to_oci()).collect()));
            check(&profile, &ARGUMENTS);
        }
    }

    /// A profile of the usual size stays short, to load and to run. The numbers may only go down.
    #[test]
    fn the_default_profile_is_short() {
        let mut profile = default_profile(&Capabilities::new());
        profile.set_architectures(Some(X86.iter().map(|abi| abi.to_oci()).collect()));
        let program = compile_for(&profile, X86, UnknownNames::Skip).unwrap().filter;
        let steps = |abi: Abi| {
            let names = profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names);
            let calls = names.filter_map(move |name| number_of(abi, name)).map(move |number| Call {
                number,
                architecture: abi.audit_architecture(),
                arguments: [0; 6],
            });
            calls.map(|call| trace(&program, &call).1).max().unwrap()
        };
        assert!(program.len() <= 501, "{} instructions", program.len());
        assert!(steps(Abi::X86_64) <= 18, "{} steps", steps(Abi::X86_64));
    }

    /// Names that differ between the ABIs, or hide others, and some plain ones.
    const NAMES: [&str; 16] = [
        "read",
        "write",
        "getpid",
        "socket",
        "connect",
        "socketcall",
        "ipc",
        "semop",
        "clone",
        "ioctl",
        "mmap2",
        "execveat",
        "set_tls",
        "mseal",
        "personality",
        "nothing",
    ];
    const VALUES: [u64; 9] = [0, 1, 2, 38, 0x7e02_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0026, u64::MAX];

    fn action() -> impl Strategy<Value = (LinuxSeccompAction, Option<u32>)> {
        prop_oneof![
            Just((LinuxSeccompAction::ScmpActAllow, None)),
            Just((LinuxSeccompAction::ScmpActKillThread, None)),
            Just((LinuxSeccompAction::ScmpActKillProcess, None)),
            Just((LinuxSeccompAction::ScmpActTrap, None)),
            Just((LinuxSeccompAction::ScmpActLog, None)),
            prop::option::of(0_u32..4096).prop_map(|errno| (LinuxSeccompAction::ScmpActErrno, errno)),
            prop::option::of(0_u32..65536).prop_map(|data| (LinuxSeccompAction::ScmpActTrace, data)),
        ]
    }

    /// What a rule may do and a default may not.
    fn action_of_rule() -> impl Strategy<Value = (LinuxSeccompAction, Option<u32>)> {
        prop_oneof![7 => action(), 1 => Just((LinuxSeccompAction::ScmpActNotify, None))]
    }

    fn argument() -> impl Strategy<Value = LinuxSeccompArg> {
        let operator = prop::sample::select(vec![
            LinuxSeccompOperator::ScmpCmpNe,
            LinuxSeccompOperator::ScmpCmpLt,
            LinuxSeccompOperator::ScmpCmpLe,
            LinuxSeccompOperator::ScmpCmpEq,
            LinuxSeccompOperator::ScmpCmpGe,
            LinuxSeccompOperator::ScmpCmpGt,
            LinuxSeccompOperator::ScmpCmpMaskedEq,
        ]);
        let value = || prop_oneof![prop::sample::select(VALUES.to_vec()), any::<u64>()];
        (0_usize..6, operator, value(), value()).prop_map(|(index, op, value, value_two)| {
            LinuxSeccompArgBuilder::default().index(index).op(op).value(value).value_two(value_two).build().unwrap()
        })
    }

    fn rule(names: Vec<&'static str>) -> impl Strategy<Value = LinuxSyscall> {
        let names = prop::collection::vec(prop::sample::select(names), 1..4);
        (names, action_of_rule(), prop::collection::vec(argument(), 0..4)).prop_map(
            |(names, (action, errno), arguments)| {
                let mut rule = LinuxSyscall::default();
                // The one call that cannot be asked for.
                let asks_for_write = action == LinuxSeccompAction::ScmpActNotify && names.contains(&"write");
                let action = if asks_for_write { LinuxSeccompAction::ScmpActLog } else { action };
                rule.set_names(names.into_iter().map(ToOwned::to_owned).collect())
                    .set_action(action)
                    .set_errno_ret(errno)
                    .set_args(Some(arguments));
                rule
            },
        )
    }

    fn profile(names: Vec<&'static str>) -> impl Strategy<Value = LinuxSeccomp> {
        let architectures = prop::sample::subsequence(
            vec![
                Arch::ScmpArchNative,
                Arch::ScmpArchX86,
                Arch::ScmpArchX32,
                Arch::ScmpArchX86_64,
                Arch::ScmpArchArm,
                Arch::ScmpArchPpc64le,
            ],
            0..=6,
        );
        (action(), architectures, prop::collection::vec(rule(names), 0..12)).prop_map(
            |((default, errno), architectures, rules)| {
                let mut profile = LinuxSeccomp::default();
                profile
                    .set_default_action(default)
                    .set_default_errno_ret(errno)
                    .set_architectures(Some(architectures))
                    .set_syscalls(Some(rules));
                profile
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn random_profiles_decide_as_they_read(
            profile in profile(NAMES.to_vec()),
            arguments in prop::collection::vec(prop::array::uniform6(
                prop_oneof![prop::sample::select(VALUES.to_vec()), any::<u64>()],
            ), 3),
        ) {
            check_named(&profile, &arguments);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn random_profiles_of_all_names_decide_every_number_as_they_read(
            profile in profile(Row::all().map(Row::name).collect()),
            arguments in prop::array::uniform6(prop::sample::select(VALUES.to_vec())),
        ) {
            check(&profile, &[arguments]);
        }
    }

    /// Holds a profile to the model for the calls that it may name and their neighbours, with arguments near its constants.
    fn check_named(profile: &LinuxSeccomp, arguments: &[[u64; 6]]) {
        let constants = profile.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten());
        let near = constants.flat_map(|argument| {
            let (value, two) = (argument.value(), argument.value_two().unwrap_or(0));
            [value, value.wrapping_add(1), value.wrapping_sub(1), value ^ 1 << 40, two, two & value]
        });
        let mut near: Vec<_> = near.map(|value| [value; 6]).collect();
        near.sort_unstable();
        near.dedup();
        for machine in MACHINES {
            let program = compile_for(profile, machine, UnknownNames::Skip).unwrap().filter;
            let model = Model::of(profile, machine);
            let check = |architecture, number, arguments: &[u64; 6]| {
                let call = Call { number, architecture, arguments: *arguments };
                let (expected, actual) = (model.decide(&call), run(&program, &call));
                assert_eq!(actual, expected, "{call:x?}: {actual:#x}, not {expected:#x}");
            };
            for abi in machine {
                let architecture = abi.audit_architecture();
                for number in NAMES.iter().filter_map(|name| number_of(*abi, name)) {
                    near.iter().chain(arguments).for_each(|arguments| check(architecture, number, arguments));
                    check(architecture, number.wrapping_sub(1), &arguments[0]);
                    check(architecture, number + 1, &arguments[0]);
                }
            }
        }
    }
}
