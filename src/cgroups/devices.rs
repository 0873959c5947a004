//! Which devices a container may use: the rules, what they mean, and their two forms in the kernel.
//!
//! The meaning is [`Rules::allows`]: nothing is allowed but what the last rule about it allows, for reading, writing
//! and making nodes each by itself. v2 gets that as a program ([`Rules::program`]), exactly. v1 knows a default and a
//! flat list of exceptions ([`Rules::lists`]); a rule list that it can't hold is refused rather than bent, for the
//! kernel drops such a rule in silence. Nothing here touches a cgroup.

use std::fmt::Write as _;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::{Error, Result};
use crate::sys::bpf::Instruction;

/// Reading, writing and making nodes, as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access(u8);

impl Access {
    pub(super) const NONE: Self = Self(0);
    // The numbers of `BPF_DEVCG_ACC_*`.
    pub(super) const MAKE_NODE: Self = Self(1);
    pub(super) const READ: Self = Self(2);
    pub(super) const WRITE: Self = Self(4);
    pub(super) const ALL: Self = Self(7);

    /// In any order; letters that name no access are passed over, as by runc and crun.
    fn parse(text: &str) -> Self {
        text.bytes().fold(Self::NONE, |access, letter| match letter {
            b'r' => access.with(Self::READ),
            b'w' => access.with(Self::WRITE),
            b'm' => access.with(Self::MAKE_NODE),
            _ => access,
        })
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn letters(self) -> impl Iterator<Item = char> {
        [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MAKE_NODE, 'm')]
            .into_iter()
            .filter_map(move |(access, letter)| self.meets(access).then_some(letter))
    }
}

/// Character or block devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Character,
    Block,
}

/// Which devices a rule is about; `None` stands for every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Devices {
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

impl Devices {
    #[cfg(test)]
    fn contain(self, kind: Kind, major: u32, minor: u32) -> bool {
        self.kind == kind
            && self.major.is_none_or(|number| number == major)
            && self.minor.is_none_or(|number| number == minor)
    }

    /// Says whether some device is in both.
    fn meet(self, other: Self) -> bool {
        let same = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && same(self.major, other.major) && same(self.minor, other.minor)
    }
}

/// A rule that holds for some devices and says nothing about the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) devices: Devices,
    pub(super) access: Access,
}

/// What holds where no rule speaks, then the rules; the last one that speaks wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) allow_by_default: bool,
    pub(super) rules: Vec<Rule>,
}

/// What every container may do, whatever its config says: make any node (using it is another matter), the devices
/// that the runtime specification promises, terminals, and `/dev/net/tun`, which runc grants for the sake of VPNs.
const ALWAYS: [Rule; 11] = [
    always(Kind::Character, None, None, Access::MAKE_NODE),
    always(Kind::Block, None, None, Access::MAKE_NODE),
    always(Kind::Character, Some(1), Some(3), Access::ALL), // null
    always(Kind::Character, Some(1), Some(5), Access::ALL), // zero
    always(Kind::Character, Some(1), Some(7), Access::ALL), // full
    always(Kind::Character, Some(1), Some(8), Access::ALL), // random
    always(Kind::Character, Some(1), Some(9), Access::ALL), // urandom
    always(Kind::Character, Some(5), Some(0), Access::ALL), // tty
    always(Kind::Character, Some(5), Some(2), Access::ALL), // ptmx
    always(Kind::Character, Some(136), None, Access::ALL),  // pts/N
    always(Kind::Character, Some(10), Some(200), Access::ALL), // net/tun
];

const fn always(kind: Kind, major: Option<u32>, minor: Option<u32>, access: Access) -> Rule {
    Rule { allow: true, devices: Devices { kind, major, minor }, access }
}

impl Rules {
    /// Reads `linux.resources.devices`, and ends with what every container may do.
    pub(super) fn from_spec(entries: &[LinuxDeviceCgroup]) -> Result<Self> {
        let mut rules = Self { allow_by_default: false, rules: Vec::with_capacity(entries.len() + ALWAYS.len()) };
        for (index, entry) in entries.iter().enumerate() {
            rules.push(index, entry)?;
        }
        rules.rules.extend(ALWAYS);
        Ok(rules)
    }

    fn push(&mut self, index: usize, entry: &LinuxDeviceCgroup) -> Result<()> {
        let wrong = |field: &str, cause: &str| {
            Err(Error::invalid(format!("linux.resources.devices[{index}].{field}: {cause}")))
        };
        let text = entry.access().as_deref().unwrap_or_default();
        let access = Access::parse(text);
        match access.is_empty() {
            // It is never meant.
            true if text.is_empty() => return wrong("access", "empty"),
            true => return wrong("access", &format!("`{text}` has none of the letters r, w and m")),
            false => {}
        }
        let Some(major) = number(entry.major()) else { return wrong("major", "not a device number") };
        let Some(minor) = number(entry.minor()) else { return wrong("minor", "not a device number") };
        let kinds: &[Kind] = match entry.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::C | LinuxDeviceType::U => &[Kind::Character],
            LinuxDeviceType::B => &[Kind::Block],
            LinuxDeviceType::A => &[Kind::Character, Kind::Block],
            LinuxDeviceType::P => return wrong("type", "a FIFO is no device"),
        };
        let allow = entry.allow();
        if kinds.len() == 2 && major.is_none() && minor.is_none() && access == Access::ALL {
            // Speaks about everything, so nothing before it matters.
            self.allow_by_default = allow;
            self.rules.clear();
            return Ok(());
        }
        let rules = kinds.iter().map(|&kind| Rule { allow, devices: Devices { kind, major, minor }, access });
        self.rules.extend(rules);
        Ok(())
    }

    /// Says whether all of an access to a device is allowed: what the forms below are tested against.
    #[cfg(test)]
    pub(super) fn allows(&self, kind: Kind, major: u32, minor: u32, access: Access) -> bool {
        [Access::READ, Access::WRITE, Access::MAKE_NODE].into_iter().filter(|bit| access.meets(*bit)).all(|bit| {
            let mut speaking = self.rules.iter().rev();
            speaking
                .find(|rule| rule.access.meets(bit) && rule.devices.contain(kind, major, minor))
                .map_or(self.allow_by_default, |rule| rule.allow)
        })
    }

    /// Writes the rules as a program for `BPF_PROG_TYPE_CGROUP_DEVICE`.
    ///
    /// From the last rule to the first, it settles the accesses asked for that the rule speaks about: a denial ends it,
    /// an allowance takes them off the list, and an empty list is a yes.
    pub(super) fn program(&self) -> Vec<Instruction> {
        use emit::{
            and, exit, jump, jump_if_bits, jump_unless_equal, jump_unless_zero, load_context, move_constant,
            shift_right,
        };
        // R0 is the answer, R1 the context; the rest is free.
        const KIND: u8 = 2;
        const LEFT: u8 = 3;
        const MAJOR: u8 = 4;
        const MINOR: u8 = 5;

        // struct bpf_cgroup_dev_ctx { u32 access_type /* access << 16 | type */, major, minor }
        let mut program = Vec::with_capacity(8 + self.rules.len() * 8);
        program.push(load_context(KIND, 0));
        program.push(load_context(LEFT, 0));
        program.push(load_context(MAJOR, 4));
        program.push(load_context(MINOR, 8));
        program.push(and(KIND, 0xffff));
        program.push(shift_right(LEFT, 16));
        // The answer while the rules are gone through is no: a denial needs nothing but an exit.
        program.push(move_constant(0, 0));
        for rule in self.rules.iter().rev() {
            let devices = rule.devices;
            // BPF_DEVCG_DEV_BLOCK and BPF_DEVCG_DEV_CHAR
            let kind = match devices.kind {
                Kind::Block => 1,
                Kind::Character => 2,
            };
            let conditions = [Some((KIND, kind)), devices.major.map(|n| (MAJOR, n)), devices.minor.map(|n| (MINOR, n))];
            let access = i32::from(rule.access.0);
            let mut left: i16 = if rule.allow { 4 } else { 3 };
            left += i16::from(devices.major.is_some()) + i16::from(devices.minor.is_some()) + 1;
            for (register, number) in conditions.into_iter().flatten() {
                left -= 1;
                program.push(jump_unless_equal(register, number, left));
            }
            if rule.allow {
                program.extend([and(LEFT, !access), jump_unless_zero(LEFT, 2), move_constant(0, 1), exit()]);
            } else {
                // There is no opcode for `if (!(left & access))`.
                program.extend([jump_if_bits(LEFT, access, 1), jump(1), exit()]);
            }
        }
        // What is left is for the default; nothing left (an access of no kind) is a yes.
        if self.allow_by_default {
            program.push(move_constant(0, 1));
        } else {
            program.push(jump_unless_zero(LEFT, 1));
            program.push(move_constant(0, 1));
        }
        program.push(exit());
        program
    }

    /// Writes the rules as what v1 holds: the default, and the exceptions from it, one a line as its files take them.
    pub(super) fn lists(&self) -> Result<Lists> {
        let exceptions = self.exceptions()?;
        let mut lines = String::with_capacity(exceptions.len() * 12);
        for (devices, access) in &exceptions {
            if !lines.is_empty() {
                lines.push('\n');
            }
            write_line(&mut lines, *devices, *access);
        }
        Ok(Lists { allow_by_default: self.allow_by_default, exceptions: lines })
    }

    /// Writes the rules as a flat list of exceptions from the default, if that can say what they mean.
    pub(super) fn exceptions(&self) -> Result<Vec<(Devices, Access)>> {
        let mut exceptions: Vec<(Devices, Access)> = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            let known = exceptions.iter().position(|(devices, _)| *devices == rule.devices);
            if rule.allow != self.allow_by_default {
                match known {
                    Some(at) => exceptions[at].1 = exceptions[at].1.with(rule.access),
                    None => exceptions.push((rule.devices, rule.access)),
                }
                continue;
            }
            // Back to the default. v1 removes exceptions one by one and only whole ones: it can't make a hole in one.
            if let Some(at) = known {
                exceptions[at].1 = exceptions[at].1.without(rule.access);
            }
            for (devices, access) in &mut exceptions {
                if *devices == rule.devices || !devices.meet(rule.devices) || !access.meets(rule.access) {
                    continue;
                }
                if rule.devices.covers(*devices) {
                    *access = access.without(rule.access);
                } else {
                    return Err(Error::unsupported(format!(
                        "linux.resources.devices: cgroup v1 cannot {} {} once {} is {}",
                        if rule.allow { "allow" } else { "deny" },
                        line(rule.devices, rule.access),
                        line(*devices, *access),
                        if rule.allow { "denied" } else { "allowed" },
                    ))
                    .with_hint("leave that device out of the wider rule; cgroup v2 has no such limit"));
                }
            }
        }
        exceptions.retain(|(_, access)| !access.is_empty());
        Ok(exceptions)
    }
}

impl Devices {
    /// Says whether every device of `other` is in this.
    fn covers(self, other: Self) -> bool {
        self.kind == other.kind
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }
}

/// Device rules as v1 holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) allow_by_default: bool,
    /// What is denied in spite of an allowing default, or allowed in spite of a denying one; one a line.
    pub(super) exceptions: String,
}

/// Reads a device number of the config, where -1 and nothing mean all; `None` if it is no device number.
#[expect(clippy::option_option, reason = "wrong, every number, one number")]
fn number(field: Option<i64>) -> Option<Option<u32>> {
    match field {
        None | Some(-1) => Some(None),
        // The kernel's own have 12 and 20 bits.
        Some(number) => u32::try_from(i32::try_from(number).ok()?).ok().map(Some),
    }
}

fn line(devices: Devices, access: Access) -> String {
    let mut text = String::new();
    write_line(&mut text, devices, access);
    text
}

/// Writes `c 1:3 rwm`, as `devices.allow` takes it and `devices.list` shows it.
fn write_line(text: &mut String, devices: Devices, access: Access) {
    text.push_str(match devices.kind {
        Kind::Character => "c ",
        Kind::Block => "b ",
    });
    for (number, end) in [(devices.major, ':'), (devices.minor, ' ')] {
        // Writing to a string cannot fail.
        let _ = match number {
            Some(number) => write!(text, "{number}{end}"),
            None => write!(text, "*{end}"),
        };
    }
    text.extend(access.letters());
}

/// The few instructions that a filter needs; `linux/bpf_common.h`, `linux/bpf.h`.
mod emit {
    use crate::sys::bpf::Instruction;

    const LDX_MEM_WORD: u8 = 0x61;
    const ALU64_AND: u8 = 0x57;
    const ALU64_RSH: u8 = 0x77;
    const ALU64_MOV: u8 = 0xb7;
    const JMP_ALWAYS: u8 = 0x05;
    const JMP_SET: u8 = 0x45;
    const JMP_NE: u8 = 0x55;
    const EXIT: u8 = 0x95;

    const fn with_constant(code: u8, register: u8, constant: i32, offset: i16) -> Instruction {
        Instruction { code, registers: register, offset, constant }
    }

    /// Loads 32 bits of the context that R1 points to.
    pub(super) const fn load_context(register: u8, offset: i16) -> Instruction {
        Instruction { code: LDX_MEM_WORD, registers: 1 << 4 | register, offset, constant: 0 }
    }

    /// Constants are sign-extended: `!mask` keeps all upper bits.
    pub(super) const fn and(register: u8, constant: i32) -> Instruction {
        with_constant(ALU64_AND, register, constant, 0)
    }

    pub(super) const fn shift_right(register: u8, bits: i32) -> Instruction {
        with_constant(ALU64_RSH, register, bits, 0)
    }

    pub(super) const fn move_constant(register: u8, constant: i32) -> Instruction {
        with_constant(ALU64_MOV, register, constant, 0)
    }

    pub(super) const fn jump(skipped: i16) -> Instruction {
        with_constant(JMP_ALWAYS, 0, 0, skipped)
    }

    pub(super) const fn jump_if_bits(register: u8, bits: i32, skipped: i16) -> Instruction {
        with_constant(JMP_SET, register, bits, skipped)
    }

    pub(super) const fn jump_unless_zero(register: u8, skipped: i16) -> Instruction {
        with_constant(JMP_NE, register, 0, skipped)
    }

    /// The register holds 32 bits and the constant is sign-extended, so numbers stay below 2^31; see `super::number`.
    pub(super) const fn jump_unless_equal(register: u8, number: u32, skipped: i16) -> Instruction {
        with_constant(JMP_NE, register, number.cast_signed(), skipped)
    }

    pub(super) const fn exit() -> Instruction {
        with_constant(EXIT, 0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind as ErrorKind;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;
    use proptest::prelude::*;

    type Entry = (bool, Option<LinuxDeviceType>, Option<i64>, Option<i64>, &'static str);

    fn entry((allow, kind, major, minor, access): Entry) -> LinuxDeviceCgroup {
        let mut builder = LinuxDeviceCgroupBuilder::default().allow(allow).access(access);
        if let Some(kind) = kind {
            builder = builder.typ(kind);
        }
        if let Some(major) = major {
            builder = builder.major(major);
        }
        if let Some(minor) = minor {
            builder = builder.minor(minor);
        }
        builder.build().unwrap()
    }

    fn rules(entries: &[Entry]) -> Result<Rules> {
        Rules::from_spec(&entries.iter().copied().map(entry).collect::<Vec<_>>())
    }

    const C: Option<LinuxDeviceType> = Some(LinuxDeviceType::C);
    const B: Option<LinuxDeviceType> = Some(LinuxDeviceType::B);
    const A: Option<LinuxDeviceType> = Some(LinuxDeviceType::A);

    #[test]
    fn nothing_but_the_usual_devices_by_default() {
        // GHSA-g54h-m393-cpwq: an empty list must not mean everything.
        let rules = rules(&[]).unwrap();
        assert!(!rules.allow_by_default);
        assert!(rules.allows(Kind::Character, 1, 3, Access::ALL));
        assert!(rules.allows(Kind::Character, 136, 7, Access::READ.with(Access::WRITE)));
        assert!(rules.allows(Kind::Block, 8, 0, Access::MAKE_NODE));
        assert!(!rules.allows(Kind::Block, 8, 0, Access::READ));
        assert!(!rules.allows(Kind::Character, 1, 1, Access::READ));
        assert!(!rules.allows(Kind::Block, 1, 3, Access::ALL));
    }

    #[test]
    fn later_entries_win_and_a_full_one_starts_over() {
        let everything = rules(&[(false, None, None, None, "rwm"), (true, A, Some(-1), Some(-1), "mwr")]).unwrap();
        assert!(everything.allows(Kind::Block, 8, 0, Access::ALL));
        let again = rules(&[(true, A, None, None, "rwm"), (false, A, None, None, "rwm")]).unwrap();
        assert!(!again.allows(Kind::Block, 8, 0, Access::READ));
        let some = rules(&[(true, B, Some(8), Some(0), "rw"), (false, B, Some(8), Some(0), "w")]).unwrap();
        assert!(some.allows(Kind::Block, 8, 0, Access::READ));
        assert!(!some.allows(Kind::Block, 8, 0, Access::READ.with(Access::WRITE)));
    }

    /// runc's own tests deny `rwa`.
    #[test]
    fn letters_that_name_no_access_are_passed_over() {
        let rules = rules(&[(true, B, Some(8), Some(0), "wrm"), (false, B, Some(8), Some(0), "rwa")]).unwrap();
        assert!(!rules.allows(Kind::Block, 8, 0, Access::READ));
        assert!(!rules.allows(Kind::Block, 8, 0, Access::WRITE));
        assert!(rules.allows(Kind::Block, 8, 0, Access::MAKE_NODE));
    }

    #[test]
    fn bad_entries_name_their_field() {
        for (bad, expected) in [
            ((true, C, Some(1), Some(3), ""), "linux.resources.devices[0].access: empty"),
            (
                (true, C, Some(1), Some(3), "x"),
                "linux.resources.devices[0].access: `x` has none of the letters r, w and m",
            ),
            ((true, C, Some(-2), Some(3), "r"), "linux.resources.devices[0].major: not a device number"),
            ((true, C, Some(1), Some(1 << 33), "r"), "linux.resources.devices[0].minor: not a device number"),
            ((true, Some(LinuxDeviceType::P), None, None, "r"), "linux.resources.devices[0].type: a FIFO is no device"),
        ] {
            assert_eq!(rules(&[bad]).unwrap_err().report(), expected);
        }
    }

    #[test]
    fn v1_gets_a_flat_list() {
        let lists = rules(&[(false, None, None, None, "rwm"), (true, B, Some(8), None, "r")]).unwrap().lists().unwrap();
        assert!(!lists.allow_by_default);
        assert_eq!(lists.exceptions.lines().next(), Some("b 8:* r"));
        assert_eq!(lists.exceptions.lines().last(), Some("c 10:200 rwm"));
        let privileged = rules(&[(true, None, None, None, "rwm")]).unwrap().lists().unwrap();
        assert_eq!(privileged, Lists { allow_by_default: true, exceptions: String::new() });
    }

    #[test]
    fn v1_refuses_a_hole_that_the_kernel_would_forget() {
        let hole = [(true, B, Some(8), None, "rw"), (false, B, Some(8), Some(3), "w")];
        let error = rules(&hole).unwrap().lists().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.report().contains("cannot deny b 8:3 w once b 8:* rw is allowed"), "{}", error.report());
        assert!(!rules(&hole).unwrap().allows(Kind::Block, 8, 3, Access::WRITE));
        // The other way round is fine: the wider denial takes the narrower allowance with it.
        let wider = [(true, B, Some(8), Some(3), "rw"), (false, B, Some(8), None, "w")];
        assert!(rules(&wider).unwrap().lists().unwrap().exceptions.starts_with("b 8:3 r\n"));
    }

    /// Runs a program as the kernel does; panics where the verifier would refuse it.
    fn interpret(program: &[Instruction], kind: Kind, major: u32, minor: u32, access: Access) -> bool {
        let kind = if kind == Kind::Block { 1 } else { 2 };
        let context = [u32::from(access.0) << 16 | kind, major, minor];
        let mut registers = [None::<u64>; 11];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, constant } = program[at];
            let (to, from) = ((pair & 15) as usize, pair >> 4);
            let constant = i64::from(constant).cast_unsigned();
            at += 1;
            let mut jump = |taken: bool| {
                assert!(offset >= 0, "a loop");
                at += if taken { usize::try_from(offset).unwrap() } else { 0 };
            };
            match code {
                0x61 => {
                    assert_eq!(from, 1);
                    registers[to] = Some(context[usize::try_from(offset).unwrap() / 4].into());
                }
                0x57 => registers[to] = Some(registers[to].unwrap() & constant),
                0x77 => registers[to] = Some(registers[to].unwrap() >> constant),
                0xb7 => registers[to] = Some(constant),
                0x05 => jump(true),
                0x45 => jump(registers[to].unwrap() & constant != 0),
                0x55 => jump(registers[to].unwrap() != constant),
                0x95 => return registers[0].unwrap() != 0,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    /// What the v1 controller decides (security/device_cgroup.c): one exception has to match all of an access that is
    /// denied by default; one that matches any of it is enough to deny what is allowed by default.
    fn legacy(lists: &Lists, kind: Kind, major: u32, minor: u32, access: Access) -> bool {
        let matches = lists.exceptions.lines().any(|line| {
            let (kind_letter, rest) = line.split_once(' ').unwrap();
            let (numbers, letters) = rest.split_once(' ').unwrap();
            let (a, b) = numbers.split_once(':').unwrap();
            let exception = Access::parse(letters);
            let enough =
                if lists.allow_by_default { exception.meets(access) } else { access.without(exception).is_empty() };
            kind_letter == if kind == Kind::Block { "b" } else { "c" }
                && (a == "*" || a == major.to_string())
                && (b == "*" || b == minor.to_string())
                && enough
        });
        matches != lists.allow_by_default
    }

    fn any_rules() -> impl Strategy<Value = Rules> {
        // Few numbers, so that rules meet.
        let number = || prop::option::of(0..3_u32);
        let kind = || prop_oneof![Just(Kind::Character), Just(Kind::Block)];
        let rule =
            (any::<bool>(), kind(), number(), number(), 1..8_u8).prop_map(|(allow, kind, major, minor, access)| Rule {
                allow,
                devices: Devices { kind, major, minor },
                access: Access(access),
            });
        (any::<bool>(), prop::collection::vec(rule, 0..12))
            .prop_map(|(allow_by_default, rules)| Rules { allow_by_default, rules })
    }

    fn every_access() -> impl Iterator<Item = (Kind, u32, u32, Access)> {
        (0..=u8::MAX).map(|n| {
            let kind = if n & 1 == 0 { Kind::Character } else { Kind::Block };
            (kind, u32::from(n >> 1 & 3), u32::from(n >> 3 & 3), Access(n >> 5))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_program_decides_as_the_rules_do(rules in any_rules()) {
            let program = rules.program();
            for (kind, major, minor, access) in every_access() {
                prop_assert_eq!(
                    interpret(&program, kind, major, minor, access),
                    rules.allows(kind, major, minor, access),
                    "{:?} {}:{} {:?}", kind, major, minor, access
                );
            }
        }

        #[test]
        fn the_lists_never_allow_more_than_the_rules(rules in any_rules()) {
            let Ok(lists) = rules.lists() else { return Ok(()) };
            for (kind, major, minor, access) in every_access().filter(|access| !access.3.is_empty()) {
                let allowed = rules.allows(kind, major, minor, access);
                if legacy(&lists, kind, major, minor, access) {
                    prop_assert!(allowed, "{kind:?} {major}:{minor} {access:?} in {lists:?}");
                } else if access.0.is_power_of_two() {
                    prop_assert!(!allowed, "{kind:?} {major}:{minor} {access:?} in {lists:?}");
                }
            }
        }
    }

    #[test]
    fn the_kernel_takes_the_program() {
        if !rustix::process::geteuid().is_root() {
            crate::cgroups::testing::not_run("loading a program needs CAP_BPF");
            return;
        }
        let mut many = vec![(true, A, None, None, "rwm")];
        many.extend((0..200).map(|n| (n % 3 == 0, C, Some(n), None, if n % 2 == 0 { "rw" } else { "m" })));
        for entries in [&[][..], &[(true, None, None, None, "rwm")], &many] {
            crate::sys::bpf::load_device_filter(&rules(entries).unwrap().program()).unwrap();
        }
    }
}
