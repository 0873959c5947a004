//! Why the kernel would not execute a program of a container: looks at its file, at what its first bytes name, and at who
//! may. Follows the kernel's own order (execve(2)), reads a few hundred bytes of each file, and executes nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::elf::Elf;
use crate::error::Result;
use crate::support::root::Root;

/// How often the kernel follows `#!` (`BINPRM` recursion, exec.c).
const MOST_INTERPRETERS: u32 = 5;

/// `BINPRM_BUF_SIZE`: all that the kernel reads of a `#!` line.
const LINE_SIZE: usize = 256;

/// What was found about the program that a container starts with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Program {
    /// Nothing is wrong with it that can be seen from outside.
    Fine {
        path: String,
    },
    /// No directory of `PATH` has it.
    NotInPath {
        name: String,
        path: String,
    },
    Missing {
        path: String,
    },
    NoFile {
        path: String,
    },
    Empty {
        path: String,
    },
    /// No execute bit for this user.
    NotExecutable {
        path: String,
        mode: u32,
        uid: u32,
    },
    /// A directory on the way lets this user not through.
    Unreachable {
        path: String,
        directory: String,
        mode: u32,
        uid: u32,
    },
    /// It lies on a mount without execution.
    NoExec {
        path: String,
        mount: String,
    },
    /// The `#!` line names what is not there.
    NoInterpreter {
        path: String,
        interpreter: String,
    },
    /// The same, because the line ends as lines do on Windows.
    CarriageReturn {
        path: String,
        interpreter: String,
    },
    /// The ELF file's loader is not there: mostly a program of another C library.
    NoLoader {
        path: String,
        loader: String,
    },
    WrongArchitecture {
        path: String,
        architecture: String,
    },
    /// Neither ELF nor `#!`.
    Unrecognised {
        path: String,
    },
}

/// The files of a container: its root file system, and what is bound into it.
pub(super) struct Files<'a> {
    pub(super) root: &'a Root,
    pub(super) mounts: &'a [Mounted],
}

/// A mount that a program may lie on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) destination: PathBuf,
    /// What of the host's is bound there.
    pub(super) source: Option<PathBuf>,
    pub(super) is_noexec: bool,
}

/// Who executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gids: Vec<u32>,
    /// CAP_DAC_OVERRIDE: any execute bit will do.
    pub(super) overrides: bool,
    /// Whatever belongs to user 0 here belongs to this user there: there is one id to give.
    pub(super) is_only_one: bool,
}

/// What is asked for.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    /// `PATH` of the container.
    pub(super) path: &'a str,
    pub(super) cwd: &'a Path,
}

impl Files<'_> {
    /// Looks for what is wrong with a program.
    pub(super) fn examine(&self, wanted: &Wanted<'_>, user: &User) -> Result<Program> {
        if wanted.name.contains('/') {
            return self.examine_at(&wanted.cwd.join(wanted.name), user);
        }
        let mut first_wrong = None;
        for directory in wanted.path.split(':') {
            let path = wanted.cwd.join(directory).join(wanted.name);
            match self.examine_at(&path, user)? {
                Program::Missing { .. } => {}
                found @ (Program::NoFile { .. } | Program::NotExecutable { .. } | Program::Unreachable { .. }) => {
                    first_wrong.get_or_insert(found);
                }
                found => return Ok(found),
            }
        }
        let nowhere = || Program::NotInPath { name: wanted.name.to_owned(), path: wanted.path.to_owned() };
        Ok(first_wrong.unwrap_or_else(nowhere))
    }

    fn examine_at(&self, path: &Path, user: &User) -> Result<Program> {
        let mut path = path.to_owned();
        for _ in 0..=MOST_INTERPRETERS {
            let shown = show(&path);
            let Some((file, stat)) = self.open(&path)? else { return Ok(Program::Missing { path: shown }) };
            if let Some(found) = self.examine_rights(&path, &stat, user)? {
                return Ok(found);
            }
            let Some(line) = read_line(&file)? else { return Ok(Program::Fine { path: shown }) };
            if line.is_empty() {
                return Ok(Program::Empty { path: shown });
            }
            if let Some(elf) = Elf::read(file.as_fd()) {
                return self.examine_elf(shown, &elf);
            }
            let Some(interpreter) = interpreter(&line) else { return Ok(Program::Unrecognised { path: shown }) };
            let next = Path::new("/").join(&interpreter);
            if self.open(&next)?.is_none() {
                return Ok(match interpreter.strip_suffix('\r') {
                    Some(named) => Program::CarriageReturn { path: shown, interpreter: named.to_owned() },
                    None => Program::NoInterpreter { path: shown, interpreter },
                });
            }
            path = next;
        }
        Ok(Program::Unrecognised { path: show(&path) })
    }

    /// What keeps the user from executing a file that is there.
    fn examine_rights(&self, path: &Path, stat: &Stat, user: &User) -> Result<Option<Program>> {
        let shown = show(path);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(Some(Program::NoFile { path: shown }));
        }
        let mut directory = PathBuf::new();
        for component in path.parent().unwrap_or(Path::new("/")).components() {
            directory.push(component);
            let Some((_, stat)) = self.open(&directory)? else { continue };
            if !user.may_execute(&stat, true) {
                let (directory, mode) = (show(&directory), stat.st_mode & 0o7777);
                return Ok(Some(Program::Unreachable { path: shown, directory, mode, uid: user.uid }));
            }
        }
        if !user.may_execute(stat, false) {
            return Ok(Some(Program::NotExecutable { path: shown, mode: stat.st_mode & 0o7777, uid: user.uid }));
        }
        let mount = self.mount_of(path).filter(|mount| mount.is_noexec);
        Ok(mount.map(|mount| Program::NoExec { path: shown, mount: show(&mount.destination) }))
    }

    fn examine_elf(&self, path: String, elf: &Elf) -> Result<Program> {
        if !elf.is_native() {
            return Ok(Program::WrongArchitecture { path, architecture: elf.architecture() });
        }
        Ok(match &elf.loader {
            Some(loader) if self.open(&Path::new("/").join(loader))?.is_none() => {
                Program::NoLoader { path, loader: loader.clone() }
            }
            _ => Program::Fine { path },
        })
    }

    /// The mount that shows a path, if it is none of the root file system's.
    fn mount_of(&self, path: &Path) -> Option<&Mounted> {
        let covering = self.mounts.iter().filter(|mount| path.starts_with(&mount.destination));
        // Of two on one place the later one is seen.
        covering.max_by_key(|mount| mount.destination.components().count())
    }

    /// Opens what is at a path of the container's; `None` where nothing is.
    fn open(&self, path: &Path) -> Result<Option<(OwnedFd, Stat)>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = normal(path);
        let open = |flags| match self.mount_of(&path).and_then(|mount| Some((mount, mount.source.as_ref()?))) {
            Some((mount, source)) => {
                let rest = path.strip_prefix(&mount.destination).unwrap_or(Path::new(""));
                if rest.as_os_str().is_empty() {
                    return rustix::fs::open(source, flags, Mode::empty());
                }
                match Root::open(source) {
                    Ok(root) => root.open_at(rest, flags, Mode::empty()),
                    Err(_) => Err(Errno::NOENT),
                }
            }
            None => self.root.open_at(&path, flags, Mode::empty()),
        };
        let file = match open(flags) {
            // Without a right to read it, its rights can still be seen.
            Err(Errno::ACCESS | Errno::PERM | Errno::NXIO) => open(OFlags::PATH | OFlags::CLOEXEC),
            answer => answer,
        };
        match file {
            Ok(file) => {
                let stat = rustix::fs::fstat(&file)?;
                Ok(Some((file, stat)))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl User {
    fn may_execute(&self, stat: &Stat, is_directory: bool) -> bool {
        self.overrides && (is_directory || stat.st_mode & 0o111 != 0) || self.has(stat, 0o1)
    }

    /// Says whether the user may write to a file.
    pub(super) fn may_write(&self, stat: &Stat) -> bool {
        /// `/proc/sys/kernel/overflowuid`: what belongs to nobody in this user namespace, over whom nobody has power.
        const NOBODY: u32 = 65534;
        self.overrides && stat.st_uid != NOBODY || self.has(stat, 0o2)
    }

    fn has(&self, stat: &Stat, right: u32) -> bool {
        let owner = if self.is_only_one && stat.st_uid == 0 { self.uid } else { stat.st_uid };
        let shift = if owner == self.uid {
            6
        } else if self.gids.contains(&stat.st_gid) {
            3
        } else {
            0
        };
        stat.st_mode & (right << shift) != 0
    }
}

/// The first bytes of a file, as many as the kernel looks at; `None` of one that was opened for its rights alone.
fn read_line(file: &OwnedFd) -> Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; LINE_SIZE];
    let count = match rustix::io::pread(file, &mut bytes[..], 0) {
        // Whoever may execute it need not read it.
        Err(Errno::BADF) => return Ok(None),
        answer => answer?,
    };
    bytes.truncate(count);
    Ok(Some(bytes))
}

/// What a `#!` line names.
fn interpreter(line: &[u8]) -> Option<String> {
    let line = line.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = line.trim_ascii_start();
    let word = line.split(|byte| matches!(byte, b' ' | b'\t' | 0)).next()?;
    (!word.is_empty()).then(|| String::from_utf8_lossy(word).into_owned())
}

/// Without `.`; and `..` by name alone, which is exact where no link is on the way.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            _ => {}
        }
    }
    normal
}

fn show(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A tree of files with modes; `binds` are mounts into it.
    struct Tree {
        place: tempfile::TempDir,
        mounts: Vec<Mounted>,
    }

    impl Tree {
        fn new(files: &[(&str, u32, &[u8])]) -> Self {
            let place = tempfile::tempdir().unwrap();
            for (path, mode, content) in files {
                let path = place.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::io::Write::write_all(&mut std::fs::File::create_new(&path).unwrap(), content).unwrap();
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode)).unwrap();
            }
            Self { place, mounts: Vec::new() }
        }

        fn look(&self, name: &str) -> Program {
            let uid = rustix::process::geteuid().as_raw();
            let user = User { uid, gids: Vec::new(), overrides: false, is_only_one: false };
            let root = Root::open(self.place.path()).unwrap();
            let wanted = Wanted { name, path: "/usr/bin:/bin", cwd: Path::new("/") };
            Files { root: &root, mounts: &self.mounts }.examine(&wanted, &user).unwrap()
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let mut foreign = own[..4096].to_vec();
        foreign[18..20].copy_from_slice(&22_u16.to_le_bytes());
        let tree = Tree::new(&[
            ("bin/sh", 0o755, b"\x7fELF"),
            ("bin/script", 0o755, b"#!/bin/bash -e\n"),
            ("bin/windows", 0o755, b"#! /bin/sh\r\necho\r\n"),
            ("bin/text", 0o755, b"echo hello\n"),
            ("bin/nothing", 0o755, b""),
            ("bin/data", 0o644, b"#!/bin/sh\n"),
            ("bin/foreign", 0o755, &foreign),
            ("bin/loop", 0o755, b"#!/bin/loop\n"),
            ("opt/tool", 0o755, b"#!/bin/sh\n"),
        ]);
        let path = |name: &str| format!("/bin/{name}");
        for (name, expected) in [
            ("none", Program::NotInPath { name: "none".into(), path: "/usr/bin:/bin".into() }),
            ("/bin/none", Program::Missing { path: path("none") }),
            ("bin", Program::NotInPath { name: "bin".into(), path: "/usr/bin:/bin".into() }),
            ("/bin", Program::NoFile { path: "/bin".into() }),
            ("script", Program::NoInterpreter { path: path("script"), interpreter: "/bin/bash".into() }),
            ("windows", Program::CarriageReturn { path: path("windows"), interpreter: "/bin/sh".into() }),
            ("text", Program::Unrecognised { path: path("text") }),
            ("nothing", Program::Empty { path: path("nothing") }),
            ("loop", Program::Unrecognised { path: path("loop") }),
            ("foreign", Program::WrongArchitecture { path: path("foreign"), architecture: "s390x".into() }),
        ] {
            assert_eq!(tree.look(name), expected, "{name}");
        }
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(tree.look("data"), Program::NotExecutable { path: path("data"), mode: 0o644, uid });
    }

    #[test]
    fn what_is_bound_there_counts() {
        let host = Tree::new(&[("tools/run", 0o755, b"#!/bin/none\n")]);
        let mut tree = Tree::new(&[("work/run", 0o755, b"text\n")]);
        tree.mounts.push(Mounted {
            destination: "/work".into(),
            source: Some(host.place.path().join("tools")),
            is_noexec: false,
        });
        let expected = Program::NoInterpreter { path: "/work/run".into(), interpreter: "/bin/none".into() };
        assert_eq!(tree.look("/work/run"), expected);
        tree.mounts[0].is_noexec = true;
        assert_eq!(tree.look("/work/run"), Program::NoExec { path: "/work/run".into(), mount: "/work".into() });
    }

    #[test]
    fn lines_are_read_as_the_kernel_does() {
        for (line, word) in [
            (&b"#!/bin/sh\n"[..], Some("/bin/sh")),
            (b"#! \t/usr/bin/env -S x\nrest", Some("/usr/bin/env")),
            (b"#!\n/bin/sh", None),
            (b"echo", None),
        ] {
            assert_eq!(interpreter(line).as_deref(), word);
        }
    }
}
