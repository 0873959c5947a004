//! A profile checked and resolved: which ABIs, what by default, and what for each system call. Emits no instruction.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};
use seccompiler::SeccompCmpOp;

use super::abi::Abi;
use super::action::Action;
use super::table::{self, Row};
use crate::error::{Error, Result};

/// How many arguments a system call has at most.
const ARGUMENTS: usize = 6;

/// What becomes of names that no table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnknownNames {
    /// They are passed over: profiles name calls of kernels to come.
    Skip,
    /// The profile is refused (crun's `run.oci.seccomp_fail_unknown_syscall`).
    Fail,
}

/// Calls that only architectures have which husk isn't built for (powerpc, s390, mips, m68k, sparc).
const FOREIGN_NAMES: [&str; 20] = [
    "atomic_barrier",
    "atomic_cmpxchg_32",
    "cachectl",
    "getpagesize",
    "multiplexer",
    "rtas",
    "s390_guarded_storage",
    "s390_pci_mmio_read",
    "s390_pci_mmio_write",
    "s390_runtime_instr",
    "s390_sthyi",
    "spu_create",
    "spu_run",
    "subpage_prot",
    "swapcontext",
    "switch_endian",
    "sys_debug_setcontext",
    "syscall",
    "sysmips",
    "timerfd",
];

/// What a profile decides.
pub(super) struct Policy {
    /// For calls without a rule.
    pub(super) default: Action,
    /// The ABIs that are filtered, the native one first. Calls of any other ABI kill the process.
    pub(super) abis: Vec<Abi>,
    /// Whether calls newer than the newest named one are to fail with ENOSYS.
    pub(super) new_calls_are_unknown: bool,
    /// Whether a rule asks for notifications.
    pub(super) notifies: bool,
    /// For each row of the table: what the profile says of the call, if it names it.
    calls: Vec<Option<Call>>,
    /// The rules with arguments of all calls.
    tests: Vec<Test>,
    /// Which tests belong to which call, in the order in which they are tried.
    tests_of_calls: Vec<(Row, usize)>,
}

/// What a profile says of one system call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// The action of the first rule without arguments.
    pub(super) always: Option<Action>,
    /// Whether there are rules with arguments.
    pub(super) has_tests: bool,
}

/// One rule with arguments: the action counts if all comparisons hold.
pub(super) struct Test {
    pub(super) comparisons: Vec<Comparison>,
    pub(super) action: Action,
}

/// A comparison of one argument with a constant.
pub(super) struct Comparison {
    /// Below six.
    pub(super) index: u8,
    pub(super) operator: SeccompCmpOp,
    pub(super) value: u64,
}

impl Policy {
    /// Checks a profile and resolves its names, for a machine whose kernel runs `machine_abis` (the native one first).
    pub(super) fn of(profile: &LinuxSeccomp, machine_abis: &[Abi], unknown: UnknownNames) -> Result<Self> {
        let default = Action::parse(profile.default_action(), profile.default_errno_ret(), || {
            "linux.seccomp.defaultErrnoRet".to_owned()
        })?;
        if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
            // Nobody could answer for the calls that hand the listener over.
            return Err(Error::invalid("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default"));
        }
        let mut policy = Self {
            default,
            abis: abis(profile, machine_abis),
            new_calls_are_unknown: !default.lets_pass(),
            notifies: false,
            calls: vec![None; table::COUNT],
            tests: Vec::new(),
            tests_of_calls: Vec::new(),
        };
        for (index, rule) in profile.syscalls().iter().flatten().enumerate() {
            policy.add(index, rule, unknown)?;
        }
        // Stable, so that a call's tests stay in the profile's order.
        policy.tests_of_calls.sort_by_key(|(row, _)| *row);
        Ok(policy)
    }

    /// Gives what the profile says of a call, if it names it.
    pub(super) fn call(&self, row: Row) -> Option<Call> {
        self.calls[row.index()]
    }

    /// Gives the calls that the profile names.
    pub(super) fn named(&self) -> impl Iterator<Item = (Row, Call)> {
        Row::all().filter_map(|row| Some((row, self.call(row)?)))
    }

    /// Gives a call's rules with arguments, in the order in which they are tried.
    pub(super) fn tests(&self, row: Row) -> impl DoubleEndedIterator<Item = &Test> {
        let start = self.tests_of_calls.partition_point(|(other, _)| *other < row);
        let end = self.tests_of_calls.partition_point(|(other, _)| *other <= row);
        self.tests_of_calls[start..end].iter().map(|(_, test)| &self.tests[*test])
    }

    /// Gives the strictest of the actions that a call's rules can lead to, for where its arguments can't be seen.
    pub(super) fn strictest(&self, row: Row, call: Call) -> Action {
        self.tests(row).map(|test| test.action).fold(call.always.unwrap_or(self.default), Action::stricter)
    }

    fn add(&mut self, index: usize, rule: &LinuxSyscall, unknown: UnknownNames) -> Result<()> {
        let action =
            Action::parse(rule.action(), rule.errno_ret(), || format!("linux.seccomp.syscalls[{index}].errnoRet"))?;
        let notifies = rule.action() == LinuxSeccompAction::ScmpActNotify;
        self.notifies |= notifies;

        let first_test = self.tests.len();
        let arguments = rule.args().as_deref().unwrap_or_default();
        self.add_tests(index, arguments, action)?;
        for name in rule.names() {
            if name.is_empty() {
                return Err(Error::invalid(format!("linux.seccomp.syscalls[{index}].names: an empty name")));
            }
            if notifies && name == "write" {
                // That there is a listener to fetch is written after the filter is installed. The words are runc's.
                return Err(Error::invalid(format!(
                    "linux.seccomp.syscalls[{index}]: SCMP_ACT_NOTIFY cannot be used for the write syscall"
                )));
            }
            let Some(row) = Row::find(name) else {
                if unknown == UnknownNames::Fail && !FOREIGN_NAMES.contains(&&name[..]) {
                    return Err(Error::invalid(format!(
                        "linux.seccomp.syscalls[{index}].names: {name:?} is no system call of any architecture"
                    )));
                }
                continue;
            };
            let call = self.calls[row.index()].get_or_insert(Call { always: None, has_tests: false });
            if arguments.is_empty() {
                call.always.get_or_insert(action);
            } else {
                call.has_tests = true;
                self.tests_of_calls.extend((first_test..self.tests.len()).map(|test| (row, test)));
            }
        }
        Ok(())
    }

    fn add_tests(&mut self, index: usize, arguments: &[LinuxSeccompArg], action: Action) -> Result<()> {
        let mut uses = [0; ARGUMENTS];
        let mut comparisons = Vec::with_capacity(arguments.len());
        for (position, argument) in arguments.iter().enumerate() {
            let Some(uses) = uses.get_mut(argument.index()) else {
                return Err(Error::invalid(format!(
                    "linux.seccomp.syscalls[{index}].args[{position}].index: {}: a system call has arguments 0 to {}",
                    argument.index(),
                    ARGUMENTS - 1
                )));
            };
            *uses += 1;
            comparisons.push(Comparison::of(argument));
        }
        if uses.iter().any(|uses| *uses > 1) {
            self.tests.extend(comparisons.into_iter().map(|alone| Test { comparisons: vec![alone], action }));
        } else if !comparisons.is_empty() {
            self.tests.push(Test { comparisons, action });
        }
        Ok(())
    }
}

impl Comparison {
    fn of(argument: &LinuxSeccompArg) -> Self {
        let (operator, value) = match argument.op() {
            LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, argument.value()),
            LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, argument.value()),
            LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, argument.value()),
            LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, argument.value()),
            LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, argument.value()),
            LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, argument.value()),
            // The value is the mask, and what is compared is the second value.
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                (SeccompCmpOp::MaskedEq(argument.value()), argument.value_two().unwrap_or(0))
            }
        };
        let index = u8::try_from(argument.index()).expect("an argument's index is below six");
        Self { index, operator, value }
    }
}

/// Gives the ABIs to filter: the native one, and those listed that the machine runs.
fn abis(profile: &LinuxSeccomp, machine_abis: &[Abi]) -> Vec<Abi> {
    let native = machine_abis[0];
    let listed: Vec<_> =
        profile.architectures().iter().flatten().filter_map(|arch| Abi::from_oci(*arch, native)).collect();
    let is_filtered = |abi: &Abi| *abi == native || listed.contains(abi);
    machine_abis.iter().copied().filter(is_filtered).collect()
}
