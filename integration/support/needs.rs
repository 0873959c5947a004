//! What a test needs of the machine, declared beside it. What is missing is said, and the test counted as ignored.

use std::path::{Path, PathBuf};

use super::suite::{Flavour, kit};
use super::{Who, leak};

/// One need of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// husk itself, not a stand-in: the engine's commands, or what no peer promises.
    Husk,
    /// Behaviour that this stand-in lacks.
    NotRunc,
    NotCrun,
    /// A program of the host.
    Program(&'static str),
    /// A file of the host.
    File(&'static str),
    /// A static busybox.
    Busybox,
    /// A criu that works with this kernel.
    Criu,
    /// A controller on a version 1 hierarchy (also in hybrid mode).
    CgroupV1(&'static str),
    /// A controller on the version 2 hierarchy; "" is the hierarchy itself.
    CgroupV2(&'static str),
    /// Overlay mounts by this identity in the scratch directory.
    Overlay,
    /// A newuidmap and a newgidmap that give this identity its subordinate ids.
    SubordinateIds,
    /// AppArmor, on.
    AppArmor,
    /// Landlock of at least this version.
    Landlock(u32),
    /// At least this kernel.
    Kernel(u32, u32),
    /// A capability of the suite's own, by number: sandboxes take some from root.
    Capability(caps::Capability),
}

impl Need {
    /// Says what is missing, if anything.
    pub(crate) fn missing(self, who: Who) -> Option<String> {
        let flavour = kit().flavour;
        let lacking = |there: bool, reason: String| (!there).then_some(reason);
        match self {
            Self::Husk => lacking(flavour == Flavour::Husk, "needs husk itself, not a stand-in".to_owned()),
            Self::NotRunc => lacking(flavour != Flavour::Runc, "Debian's runc does otherwise".to_owned()),
            Self::NotCrun => lacking(flavour != Flavour::Crun, "Debian's crun does otherwise".to_owned()),
            Self::Program(name) => lacking(find_program(name).is_some(), format!("no program {name}")),
            Self::File(path) => lacking(Path::new(path).exists(), format!("no {path}")),
            Self::Busybox => lacking(busybox().is_some(), "no static busybox (apt: busybox-static)".to_owned()),
            Self::Criu => criu_problem(),
            Self::CgroupV1(name) => {
                lacking(leak::cgroup_v1(name).is_some(), format!("no version 1 hierarchy with the controller {name}"))
            }
            Self::CgroupV2(name) => {
                lacking(has_v2(name), format!("no version 2 hierarchy with the controller \"{name}\""))
            }
            Self::Overlay => lacking(can_overlay(who), format!("no overlay mounts for {}", who.name())),
            Self::SubordinateIds => {
                lacking(can_map(who), format!("newuidmap gives {} no subordinate ids here", who.name()))
            }
            Self::AppArmor => lacking(
                std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y")),
                "no AppArmor in this kernel".to_owned(),
            ),
            Self::Landlock(abi) => {
                lacking(landlock_abi() >= abi, format!("no Landlock of version {abi} in this kernel"))
            }
            Self::Kernel(major, minor) => lacking(kernel() >= (major, minor), format!("kernel before {major}.{minor}")),
            Self::Capability(capability) => {
                let held = caps::has_cap(None, caps::CapSet::Effective, capability).unwrap_or(false);
                lacking(held, format!("root without {capability}"))
            }
        }
    }
}

/// The version of Landlock that the kernel has; 0 is none (landlock_create_ruleset(2)).
fn landlock_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: i64 = 1;
    let answer =
        crate::probe::raw::syscall(libc::SYS_landlock_create_ruleset, &[0, 0, LANDLOCK_CREATE_RULESET_VERSION]);
    answer.ok().and_then(|abi| u32::try_from(abi).ok()).unwrap_or(0)
}

/// Finds a program in the directories that commands under test search.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let directories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    directories.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.exists())
}

/// A busybox that needs no libraries.
pub(crate) fn busybox() -> Option<PathBuf> {
    let path = find_program("busybox")?;
    let bytes = std::fs::read(&path).ok()?;
    is_static(&bytes).then_some(path)
}

/// Says whether a 64-bit little-endian ELF file asks for no interpreter and no library.
pub(crate) fn is_static(elf: &[u8]) -> bool {
    const PT_DYNAMIC: u32 = 2;
    const PT_INTERP: u32 = 3;
    const DT_NEEDED: u64 = 1;
    let u16_at = |at: usize| u16::from_le_bytes(elf[at..at + 2].try_into().expect("two bytes"));
    let u32_at = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().expect("eight bytes"));
    let size = |at: usize| usize::try_from(u64_at(at)).expect("sizes fit");
    if elf.len() < 64 || &elf[..6] != b"\x7fELF\x02\x01" {
        return false;
    }
    let (table, entry, count) = (size(32), usize::from(u16_at(54)), usize::from(u16_at(56)));
    (0..count).map(|index| table + index * entry).all(|header| match u32_at(header) {
        PT_INTERP => false,
        PT_DYNAMIC => {
            let (start, length) = (size(header + 8), size(header + 32));
            (start..start + length).step_by(16).all(|at| u64_at(at) != DT_NEEDED)
        }
        _ => true,
    })
}

fn kernel() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn has_v2(controller: &str) -> bool {
    let Some(root) = leak::cgroup_v2() else { return false };
    let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    controller.is_empty() || controllers.split_whitespace().any(|name| name == controller)
}

/// Says why criu can't be used: older ones don't know newer kernels' memory maps and clocks.
fn criu_problem() -> Option<String> {
    let Some(criu) = find_program("criu") else { return Some("no program criu".to_owned()) };
    let output = std::process::Command::new(criu).arg("check").output().expect("start criu");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = said.lines().find(|line| line.contains("Error")).unwrap_or_default();
    (!output.status.success()).then(|| format!("criu does not work with this kernel: {line}"))
}

/// Tries: set-user-ID programs and user namespaces are forbidden in many a sandbox.
fn can_map(who: Who) -> bool {
    let Ok(account) = kit().account(who) else { return false };
    let mut command = std::process::Command::new("unshare");
    account.assume(&mut command);
    command.args(["--user", "--map-root-user", "--map-auto", "true"]);
    command.output().is_ok_and(|output| output.status.success())
}

/// Tries: kernels, file systems and sandboxes differ too much to be guessed.
fn can_overlay(who: Who) -> bool {
    let Ok(account) = kit().account(who) else { return false };
    let place = kit().scratch.join(format!("overlay-{}", who.name()));
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir_all(place.join(name)).expect("make directories");
    }
    account.own(&place);
    let script = "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work,$1 merged";
    let (flags, option): (&[&str], _) = if who == Who::Root {
        (&["--mount"], "index=off")
    } else {
        (&["--user", "--map-root-user", "--mount"], "userxattr")
    };
    let mut command = std::process::Command::new("unshare");
    account.assume(&mut command);
    command.args(flags).args(["sh", "-c", script, "sh", option]).current_dir(&place);
    let works = command.output().is_ok_and(|output| output.status.success());
    std::fs::remove_dir_all(&place).expect("remove directories");
    works
}
