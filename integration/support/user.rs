//! Who runs a test: root, an ordinary user with subordinate ids, or one without.
//!
//! As root, the suite makes both users in its own copy of /etc (see `suite`), so that the machine's files stay as they
//! are. Run by an ordinary user, the suite is that user.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An identity that a scenario runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// root, with every capability.
    Root,
    /// An ordinary user with ranges in /etc/subuid and /etc/subgid.
    User,
    /// An ordinary user without: a user namespace of a single id is all it can have.
    Plain,
}

impl Who {
    pub(crate) const ALL: [Self; 3] = [Self::Root, Self::User, Self::Plain];

    /// The first part of a test's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "user",
            Self::Plain => "plain",
        }
    }
}

/// An account that commands are run under.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// First subordinate id and how many; the same for uids and gids.
    pub(crate) subordinate: Option<(u32, u32)>,
    pub(crate) home: PathBuf,
    pub(crate) runtime_directory: PathBuf,
}

const USER_ID: u32 = 64_201;
const PLAIN_ID: u32 = 64_202;
/// High enough to meet no range of the machine's own.
const SUBORDINATE: (u32, u32) = (1_879_048_192, 65_536);
const ROOTS_SUBORDINATE: (u32, u32) = (1_895_825_408, 65_536);

impl Account {
    /// root with a home of its own, so that no test touches /root.
    pub(crate) fn root(scratch: &Path) -> Self {
        Self::new("root", 0, None, scratch)
    }

    /// Adds the two users to the account files below `etc`.
    pub(crate) fn make(etc: &Path, scratch: &Path) -> std::io::Result<[Self; 2]> {
        let user = Self::new("husk-test-sub", USER_ID, Some(SUBORDINATE), scratch);
        let plain = Self::new("husk-test-plain", PLAIN_ID, None, scratch);
        for account in [&user, &plain] {
            let Self { name, uid, gid, home, .. } = account;
            append(&etc.join("passwd"), &format!("{name}:x:{uid}:{gid}::{}:/bin/sh\n", home.display()))?;
            append(&etc.join("group"), &format!("{name}:x:{gid}:\n"))?;
            if let Some((first, count)) = account.subordinate {
                append(&etc.join("subuid"), &format!("{name}:{first}:{count}\n"))?;
                append(&etc.join("subgid"), &format!("{name}:{first}:{count}\n"))?;
            }
        }
        // Whose ids root's containers may have.
        let (first, count) = ROOTS_SUBORDINATE;
        for file in ["subuid", "subgid"] {
            append(&etc.join(file), &format!("containers:{first}:{count}\n"))?;
        }
        Ok([user, plain])
    }

    /// The user that runs the suite.
    pub(crate) fn current(scratch: &Path) -> Self {
        let uid = rustix::process::getuid().as_raw();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
        let name = name.and_then(|line| line.split(':').next()).unwrap_or("nobody-known").to_owned();
        let range = |file: &str| {
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.split(':').next() == Some(&name))?;
            let mut numbers = line.split(':').skip(1).map(|number| number.parse().ok());
            Some((numbers.next()??, numbers.next()??))
        };
        let subordinate = range("/etc/subuid").filter(|uids| range("/etc/subgid") == Some(*uids));
        let gid = rustix::process::getgid().as_raw();
        Self { gid, ..Self::new(&name, uid, subordinate, scratch) }
    }

    fn new(name: &str, id: u32, subordinate: Option<(u32, u32)>, scratch: &Path) -> Self {
        Self {
            name: name.to_owned(),
            uid: id,
            gid: id,
            subordinate,
            home: scratch.join("home").join(name),
            runtime_directory: scratch.join("runtime").join(name),
        }
    }

    /// Makes the home and the runtime directory.
    pub(crate) fn make_directories(&self) -> std::io::Result<()> {
        for directory in [&self.home, &self.runtime_directory] {
            std::fs::create_dir_all(directory)?;
            // Containers of root's may have ids that are none of root's: they must get through.
            let mode = if self.uid == 0 { 0o711 } else { 0o700 };
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode))?;
            chown(directory, Some(self.uid), Some(self.gid))?;
        }
        Ok(())
    }

    /// Makes a command run under this account with a clean environment.
    pub(crate) fn assume(&self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        command.env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", &self.home).env("USER", &self.name).env("XDG_RUNTIME_DIR", &self.runtime_directory);
        if rustix::process::geteuid().is_root() {
            // The standard library empties the supplementary groups when root changes the uid.
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Gives a tree to this account. Hard links are left alone: they are the kit's.
    pub(crate) fn own(&self, tree: &Path) {
        if self.uid == 0 || !rustix::process::geteuid().is_root() {
            return;
        }
        for entry in walkdir::WalkDir::new(tree) {
            let entry = entry.expect("walk a tree that the test made");
            let data = entry.metadata().expect("stat a file that the test made");
            if data.is_dir() || std::os::unix::fs::MetadataExt::nlink(&data) == 1 {
                std::os::unix::fs::lchown(entry.path(), Some(self.uid), Some(self.gid)).expect("chown");
            }
        }
    }
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new().append(true).create(true).open(path)?.write_all(line.as_bytes())
}
