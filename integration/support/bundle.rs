//! Builds OCI bundles: a root file system with the probe and busybox, and a config.json as `runc spec` writes it, to be
//! edited as a value. Knows nothing of what a test wants.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::scene::write;
use super::suite::kit;
use super::user::Account;
use super::{Invocation, Outcome, Scene, Who};

const APPLETS: [&str; 35] = [
    "cat", "chmod", "chown", "cp", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ln", "ls",
    "mkdir", "mknod", "mount", "mv", "ps", "pwd", "readlink", "rm", "rmdir", "sh", "sleep", "stat", "stty", "test",
    "touch", "tr", "true", "tty", "umount", "wc",
];

/// A bundle under construction. It is written when it is run.
pub(crate) struct Bundle<'a> {
    scene: &'a Scene,
    pub(crate) directory: PathBuf,
    /// The container's id.
    pub(crate) id: String,
    /// config.json.
    pub(crate) config: Value,
}

impl<'a> Bundle<'a> {
    pub(crate) fn new(scene: &'a Scene) -> Self {
        let id = scene.id();
        let directory = scene.path().join(format!("bundle-{id}"));
        fill_rootfs(&directory.join("rootfs"), scene.who);
        let mut config = spec();
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/probe"]);
        config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        if scene.who != Who::Root {
            make_rootless(&mut config, scene.account(), scene.who);
        }
        Self { scene, directory, id, config }
    }

    /// A path in the root file system, seen from the host.
    pub(crate) fn rootfs(&self, path: &str) -> PathBuf {
        self.directory.join("rootfs").join(path.trim_start_matches('/'))
    }

    /// Sets what the process runs.
    pub(crate) fn args<T: Into<Value>>(&mut self, args: impl IntoIterator<Item = T>) -> &mut Self {
        self.config["process"]["args"] = args.into_iter().map(Into::into).collect();
        self
    }

    /// Adds words to the probe's command line.
    pub(crate) fn probe<T: Into<Value>>(&mut self, words: impl IntoIterator<Item = T>) -> &mut Self {
        let args = self.config["process"]["args"].as_array_mut().expect("args is a list");
        args.extend(words.into_iter().map(Into::into));
        self
    }

    /// Has the probe attempt operations; the outcomes are in `tries`.
    pub(crate) fn tries<'w>(&mut self, words: impl IntoIterator<Item = &'w str>) -> &mut Self {
        for word in words {
            self.probe(["--try", word]);
        }
        self
    }

    /// Appends a mount.
    pub(crate) fn mount(
        &mut self,
        destination: &str,
        kind: &str,
        source: impl AsRef<Path>,
        options: &[&str],
    ) -> &mut Self {
        let mounts = self.config["mounts"].as_array_mut().expect("mounts is a list");
        mounts.push(json!({
            "destination": destination,
            "type": kind,
            "source": source.as_ref(),
            "options": options,
        }));
        self
    }

    /// Removes the mount at a destination.
    pub(crate) fn without_mount(&mut self, destination: &str) -> &mut Self {
        let mounts = self.config["mounts"].as_array_mut().expect("mounts is a list");
        mounts.retain(|mount| mount["destination"] != destination);
        self
    }

    /// Adds a namespace, or replaces the one of that type.
    pub(crate) fn namespace(&mut self, kind: &str, path: Option<&Path>) -> &mut Self {
        self.without_namespace(kind);
        let mut namespace = json!({ "type": kind });
        if let Some(path) = path {
            namespace["path"] = json!(path);
        }
        self.config["linux"]["namespaces"].as_array_mut().expect("namespaces is a list").push(namespace);
        self
    }

    /// Leaves a namespace as the host's.
    pub(crate) fn without_namespace(&mut self, kind: &str) -> &mut Self {
        let namespaces = self.config["linux"]["namespaces"].as_array_mut().expect("namespaces is a list");
        namespaces.retain(|namespace| namespace["type"] != kind);
        self
    }

    /// Writes config.json and hands the bundle to the scene's identity.
    pub(crate) fn write(&self) -> &Path {
        write(&self.directory.join("config.json"), self.config.to_string());
        self.scene.account().own(&self.directory);
        &self.directory
    }

    /// `run` of this bundle under the runtime's name, not yet started.
    pub(crate) fn command(&self) -> Invocation<'a> {
        self.write();
        let mut command = self.scene.runtime();
        command.arg("run").arg("--bundle").arg(&self.directory).arg(&self.id);
        command
    }

    /// Runs the bundle to its end.
    pub(crate) fn run(&self) -> Outcome {
        self.command().run()
    }

    /// Runs the bundle under husk's own name, which has hints for programs to read, too.
    pub(crate) fn run_as_husk(&self) -> Outcome {
        self.write();
        let mut command = self.scene.husk();
        command.args(["oci", "--root"]).arg(self.scene.state_root()).args(["run", "--bundle"]);
        command.arg(&self.directory).arg(&self.id).run()
    }

    /// Runs the bundle, asserts success and gives the probe's report.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        self.run().success().report()
    }
}

/// Puts the probe, busybox and its applets, and the directories that mounts go to, into a root file system.
pub(crate) fn fill_rootfs(rootfs: &Path, who: Who) {
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr/bin", "var/lib"] {
        std::fs::create_dir_all(rootfs.join(directory)).expect("make a directory of the root file system");
    }
    let payload = kit().payload(who);
    std::fs::hard_link(payload.join("probe"), rootfs.join("probe")).expect("link the probe");
    if payload.join("busybox").exists() {
        std::fs::hard_link(payload.join("busybox"), rootfs.join("bin/busybox")).expect("link busybox");
        for applet in APPLETS {
            symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
        }
    }
    write(&rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001:Alice:/home/alice:/bin/sh\n");
    write(&rootfs.join("etc/group"), "root:x:0:\nalice:x:1001:\nstaff:x:50:alice\naudio:x:29:alice,bob\n");
}

/// What `runc spec --rootless` does to its template; without subordinate ids, only what a single id can have is kept.
fn make_rootless(config: &mut Value, account: &Account, who: Who) {
    let linux = &mut config["linux"];
    let map = |id: u32| {
        let mut map = vec![json!({ "containerID": 0, "hostID": id, "size": 1 })];
        if let (Who::User, Some((first, count))) = (who, account.subordinate) {
            map.push(json!({ "containerID": 1, "hostID": first, "size": count }));
        }
        Value::from(map)
    };
    linux["uidMappings"] = map(account.uid);
    linux["gidMappings"] = map(account.gid);
    linux.as_object_mut().expect("linux is an object").remove("resources");
    linux.as_object_mut().expect("linux is an object").remove("cgroupsPath");
    linux["namespaces"].as_array_mut().expect("namespaces is a list").push(json!({ "type": "user" }));
    for mount in config["mounts"].as_array_mut().expect("mounts is a list") {
        if who == Who::Plain && mount["destination"] == "/dev/pts" {
            // The terminal group has no id in a namespace of one.
            mount["options"].as_array_mut().expect("options is a list").retain(|option| option != "gid=5");
        }
        if mount["destination"] == "/sys/fs/cgroup" {
            *mount = json!({
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            });
        }
    }
}

/// The template of `runc spec`; a test compares the two.
pub(crate) fn spec() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2-dev",
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "runc",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            {
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {
                "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
            {
                "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"],
            },
            {
                "destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
            {
                "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
