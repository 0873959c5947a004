//! One test's world: a directory, an identity, state roots, a log of every command run. Closes with what was left behind.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::suite::{Flavour, kit};
use super::user::Account;
use super::{Bundle, Invocation, Who, sentinel::Sentinel};

/// The directories that husk keeps things in, by the variables that name them.
pub(crate) const STORE_VARIABLE: &str = "HUSK_DATA_ROOT";
pub(crate) const RUN_VARIABLE: &str = "HUSK_RUN_ROOT";

/// What a test function is handed.
pub(crate) struct Scene {
    pub(crate) who: Who,
    account: &'static Account,
    directory: tempfile::TempDir,
    containers: Cell<u32>,
    sentinel: RefCell<Option<Sentinel>>,
    log: RefCell<Vec<String>>,
}

/// Stands in every container id and cgroup name of this run, so that leaks can be told from what others do.
pub(crate) fn mark() -> String {
    // The scratch directory's random suffix: alike in no two runs.
    let name = kit().scratch.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.replace("husk-test-", "hk")
}

impl Scene {
    pub(crate) fn new(who: Who, name: &str) -> Self {
        let account = kit().account(who).expect("checked before the test");
        // In the home, as a user's own things are: what `host:` lets a user change lies there.
        let scenes = account.home.join("scenes");
        std::fs::create_dir_all(&scenes).expect("make the scenes' directory");
        std::os::unix::fs::chown(&scenes, Some(account.uid), Some(account.gid))
            .expect("give the directory to its user");
        let prefix = name.rsplit("::").next().unwrap_or(name).chars().take(32).collect::<String>();
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir_in(scenes).expect("make a scene's directory");
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("open the directory");
        account.own(directory.path());
        let scene = Self {
            who,
            account,
            directory,
            containers: Cell::new(0),
            sentinel: RefCell::new(None),
            log: RefCell::new(Vec::new()),
        };
        for root in [scene.state_root(), scene.store(), scene.run_root()] {
            std::fs::create_dir(&root).expect("make a root");
            std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o700)).expect("close a root");
            account.own(&root);
        }
        scene
    }

    /// A directory of this test, owned by its identity.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The identity's account.
    pub(crate) fn account(&self) -> &Account {
        self.account
    }

    /// Where the OCI verbs keep their state (`--root`).
    pub(crate) fn state_root(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Where the engine keeps images and layers.
    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// Where the engine keeps what does not outlive a boot.
    pub(crate) fn run_root(&self) -> PathBuf {
        self.path().join("run")
    }

    /// A container id that nobody else uses.
    pub(crate) fn id(&self) -> String {
        self.containers.set(self.containers.get() + 1);
        format!("{}-{}-{}", mark(), self.who.name(), self.containers.get())
    }

    /// Makes a directory of this test with files, owned by its identity.
    pub(crate) fn tree(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let tree = self.path().join(name);
        std::fs::create_dir_all(&tree).expect("make a tree");
        for (path, text) in files {
            let path = tree.join(path);
            std::fs::create_dir_all(path.parent().expect("files lie in the tree")).expect("make a directory");
            write(&path, text);
        }
        self.account.own(&tree);
        tree
    }

    /// A bundle with the probe as its process.
    pub(crate) fn bundle(&self) -> Bundle<'_> {
        Bundle::new(self)
    }

    /// husk under its own name, with the engine's roots in this scene.
    pub(crate) fn husk(&self) -> Invocation<'_> {
        let mut command = Invocation::new(self, &kit().husk);
        command.env(STORE_VARIABLE, self.store()).env(RUN_VARIABLE, self.run_root());
        command
    }

    /// The OCI runtime under the name of runc (or the stand-in), with its state in this scene.
    pub(crate) fn runtime(&self) -> Invocation<'_> {
        let mut command = Invocation::new(self, &kit().runtime);
        command.arg("--root").arg(self.state_root());
        command
    }

    /// Any program, under this scene's identity.
    pub(crate) fn program(&self, program: impl AsRef<Path>) -> Invocation<'_> {
        Invocation::new(self, program.as_ref())
    }

    /// Host files that nothing may touch; checked when the test closes.
    pub(crate) fn sentinel(&self) -> PathBuf {
        let mut sentinel = self.sentinel.borrow_mut();
        sentinel.get_or_insert_with(|| Sentinel::plant(&self.path().join("sentinel"), self.account)).path().to_owned()
    }

    /// Takes note of something that a failure should show.
    pub(crate) fn note(&self, text: String) {
        self.log.borrow_mut().push(text);
    }

    /// The last commands that were run, for a failing test.
    pub(crate) fn log(&self) -> String {
        let log = self.log.borrow();
        log[log.len().saturating_sub(4)..].join("\n")
    }

    /// Compares the sentinel, and looks for containers that are still known.
    pub(crate) fn close(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(sentinel) = &*self.sentinel.borrow() {
            problems.extend(sentinel.changes());
        }
        let leftover = |root: &Path| {
            let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
        };
        if kit().flavour != Flavour::Crun {
            problems
                .extend(leftover(&self.state_root()).iter().map(|path| format!("leaked state: {}", path.display())));
        }
        problems.extend(
            leftover(&self.run_root().join("containers"))
                .iter()
                .map(|path| format!("leaked state: {}", path.display())),
        );
        problems
    }

    /// Removes the directory, unless something is still mounted in it: what lies behind a mount is not ours to remove.
    pub(crate) fn remove(self) -> Option<String> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let directory = self.directory.path().display().to_string();
        if mounts.contains(&directory) {
            _ = self.directory.keep();
            return Some(format!("{directory} is left, with mounts in it"));
        }
        self.directory.close().err().map(|error| format!("cannot remove {directory}: {error}"))
    }
}

/// Writes a file of a fixture. State goes through husk's own atomic writer; a fixture needs none.
#[expect(clippy::disallowed_methods, reason = "a fixture is made anew for each run")]
pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) {
    std::fs::write(path, contents).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}
