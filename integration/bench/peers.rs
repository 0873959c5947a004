//! Who brings images onto a machine and runs them, and with which words. Each has directories and, where it needs one, a daemon
//! of its own.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;
use crate::environment;
use crate::measure::{self, CommandLine, Plan, Sample};

/// How long a daemon may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a command of another's may take before nobody waits for it any more.
const LIMIT_SECONDS: &str = "20";

/// USER_HZ, in which proc(5) counts processor time; 100 for every architecture that matters.
const TICK_NANOSECONDS: u64 = 10_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    Husk,
    Podman,
    SkopeoUmoci,
    Containerd,
    Docker,
    HuskAsUser,
    PodmanAsUser,
}

/// How the names of those end whom an ordinary user runs.
pub const AS_USER: &str = " as a user";

pub const PEERS: [Peer; 5] = [Peer::Husk, Peer::Podman, Peer::SkopeoUmoci, Peer::Containerd, Peer::Docker];

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Husk => "husk",
            Self::Podman => "podman",
            Self::SkopeoUmoci => "skopeo+umoci",
            Self::Containerd => "containerd",
            Self::Docker => "docker",
            Self::HuskAsUser => "husk as a user",
            Self::PodmanAsUser => "podman as a user",
        }
    }

    fn is_user(self) -> bool {
        self.name().ends_with(AS_USER)
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Husk => &[],
            Self::HuskAsUser => &["newuidmap"],
            Self::Podman => &["podman"],
            Self::PodmanAsUser => &["podman", "newuidmap"],
            Self::SkopeoUmoci => &["skopeo", "umoci"],
            Self::Containerd => &["containerd", "ctr"],
            Self::Docker => &["dockerd", "docker"],
        }
    }

    /// Says what it lacks on this machine.
    pub fn lacks(self) -> Option<String> {
        let missing = self.programs().iter().find(|program| environment::find(program.as_ref()).is_none())?;
        Some(format!("{}: {missing} is not installed", self.name()))
    }

    /// Says whether it keeps images at all: umoci has directories.
    pub fn has_catalogue(self) -> bool {
        self != Self::SkopeoUmoci
    }
}

/// A peer at work in directories of its own. Its daemon ends when this is dropped.
pub struct Session {
    peer: Peer,
    husk: PathBuf,
    /// What is short enough for sockets.
    home: PathBuf,
    /// What lasts.
    data: PathBuf,
    environment: Vec<(String, String)>,
    daemon: Option<Child>,
}

/// What a daemon does about networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bridge {
    /// Nothing: what is measured is the rest.
    None,
    /// It makes its default network.
    Own,
}

/// What a daemon has taken so far.
#[derive(Clone, Copy, Default)]
struct Usage {
    processor: u64,
    written: u64,
    peak_kilobytes: u64,
}

impl Session {
    /// Opens a session, and waits for its daemon. `home` is new, `data` may hold what an earlier one left.
    pub fn open(peer: Peer, husk: &Path, home: &Path, data: &Path, bridge: Bridge) -> Result<Self> {
        fs::create_dir_all(home)?;
        fs::create_dir_all(data)?;
        let at = |name: &str| data.join(name).display().to_string();
        let set = |name: &str, value: String| (name.to_owned(), value);
        let mut environment = vec![set("HOME", home.display().to_string())];
        match peer {
            Peer::Husk | Peer::HuskAsUser => environment.extend([
                set("HUSK_DATA_ROOT", at("store")),
                set("HUSK_RUN_ROOT", home.join("run").display().to_string()),
                set("HUSK_NETWORK", "none".to_owned()),
            ]),
            Peer::Podman | Peer::PodmanAsUser => {
                let below = |name: &str| home.join(name).display().to_string();
                let storage = format!(
                    "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
                    at("graph"),
                    below("run")
                );
                fs::write(home.join("storage.conf"), storage)?;
                // Limits that a root without CAP_SYS_RESOURCE can set, and no systemd.
                let containers = format!(
                    "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\nnetns = \"none\"\n\
                     [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\ntmp_dir = \"{}\"\n\
                     static_dir = \"{}\"\nvolume_path = \"{}\"\n",
                    below("tmp"),
                    at("graph/libpod"),
                    at("graph/volumes"),
                );
                fs::write(home.join("containers.conf"), containers)?;
                environment.push(set("CONTAINERS_STORAGE_CONF", below("storage.conf")));
                environment.push(set("CONTAINERS_CONF", below("containers.conf")));
            }
            Peer::SkopeoUmoci | Peer::Containerd | Peer::Docker => {}
        }
        let mut session = Self {
            peer,
            husk: husk.to_owned(),
            home: home.to_owned(),
            data: data.to_owned(),
            environment,
            daemon: None,
        };
        if peer.is_user() {
            session.environment.push(set("XDG_RUNTIME_DIR", home.join("xdg").display().to_string()));
            fs::create_dir_all(home.join("xdg"))?;
            for entry in walkdir::WalkDir::new(home).into_iter().chain(walkdir::WalkDir::new(data)).flatten() {
                std::os::unix::fs::chown(entry.path(), Some(environment::USER_ID), Some(environment::USER_ID))?;
            }
            fs::set_permissions(home.join("xdg"), fs::Permissions::from_mode(0o700))?;
        }
        session.start_daemon(bridge)?;
        Ok(session)
    }

    fn start_daemon(&mut self, bridge: Bridge) -> Result<()> {
        let data = |name: &str| self.data.join(name).display().to_string();
        let home = |name: &str| self.home.join(name).display().to_string();
        let (program, words) = match self.peer {
            Peer::Containerd => {
                let configuration = format!(
                    "version = 2\nroot = \"{}\"\nstate = \"{}\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
                     [grpc]\naddress = \"{}\"\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{}\"\n",
                    data("root"),
                    home("state"),
                    home("socket"),
                    data("opt"),
                );
                fs::write(self.home.join("config.toml"), configuration)?;
                ("containerd", vec!["--config".to_owned(), home("config.toml")])
            }
            Peer::Docker => {
                fs::write(self.home.join("daemon.json"), "{}")?;
                let mut words: Vec<String> = ["--storage-driver", "overlay2"].map(Into::into).into();
                if bridge == Bridge::None {
                    words.extend(["--bridge", "none", "--iptables=false"].map(Into::into));
                }
                words.extend(["--config-file".to_owned(), home("daemon.json"), "--data-root".to_owned(), data("data")]);
                words.extend(["--exec-root".to_owned(), home("exec"), "--pidfile".to_owned(), home("pid")]);
                words.extend(["--host".to_owned(), format!("unix://{}", home("socket"))]);
                ("dockerd", words)
            }
            Peer::Husk | Peer::Podman | Peer::SkopeoUmoci | Peer::HuskAsUser | Peer::PodmanAsUser => return Ok(()),
        };
        let log = File::create_new(self.home.join("log"))?;
        let mut command = Command::new(program);
        command.args(words).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        self.daemon = Some(command.stdout(log.try_clone()?).stderr(log).spawn()?);
        let start = Instant::now();
        while self.run(&self.client(&["version"])).is_err() {
            if start.elapsed() > PATIENCE {
                return Err(format!("{program} does not answer").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Gives the command line of the peer's client.
    pub fn client(&self, words: &[&str]) -> CommandLine {
        let (program, first) = match self.peer {
            Peer::Husk | Peer::HuskAsUser => return command(&self.husk.display().to_string(), words),
            Peer::Podman => ("podman", Vec::new()),
            // Its clean-up finds what the configuration of an ordinary user's names by flags alone.
            Peer::PodmanAsUser => {
                let (graph, run) = (self.data.join("graph"), self.home.join("run"));
                let flags =
                    ["--root".into(), graph.display().to_string(), "--runroot".into(), run.display().to_string()];
                ("podman", flags.into())
            }
            Peer::SkopeoUmoci => ("skopeo", vec!["--insecure-policy".to_owned()]),
            Peer::Containerd => ("ctr", vec!["--address".to_owned(), self.home.join("socket").display().to_string()]),
            Peer::Docker => ("docker", vec!["--host".to_owned(), format!("unix://{}/socket", self.home.display())]),
        };
        let mut line = command(program, &[]);
        line.extend(first);
        line.extend(words.iter().map(|word| (*word).to_owned()));
        line
    }

    /// What brings an image here and unpacks it.
    pub fn pull(&self, reference: &str) -> Plan {
        let at = |name: &str| self.data.join(name).display().to_string();
        let timed = match self.peer {
            Peer::Husk | Peer::HuskAsUser | Peer::Docker => vec![self.client(&["pull", "-q", reference])],
            Peer::Podman | Peer::PodmanAsUser => vec![self.client(&["pull", "-q", "--tls-verify=false", reference])],
            Peer::SkopeoUmoci => {
                let (source, target) = (format!("docker://{reference}"), format!("oci:{}:app", at("oci")));
                let image = format!("{}:app", at("oci"));
                vec![
                    self.client(&["copy", "-q", "--src-tls-verify=false", &source, &target]),
                    command("umoci", &["unpack", "--image", &image, &at("bundle-{n}")]),
                ]
            }
            Peer::Containerd => {
                vec![self.client(&["images", "pull", "--plain-http", "--snapshotter", "overlayfs", reference])]
            }
        };
        self.plan(timed)
    }

    /// Brings the images of a docker archive here.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let archive = archive.display().to_string();
        let line = match self.peer {
            Peer::Containerd => self.client(&["images", "import", &archive]),
            _ => self.client(&["load", "-q", "-i", &archive]),
        };
        self.run(&line)
    }

    /// What lists the images.
    pub fn images(&self) -> Plan {
        self.limited(match self.peer {
            Peer::Containerd => &["images", "ls"],
            _ => &["images"],
        })
    }

    /// What shows one image. ctr has nothing of the kind.
    pub fn inspect(&self, name: &str) -> Option<Plan> {
        (self.peer != Peer::Containerd).then(|| self.limited(&["inspect", name]))
    }

    fn limited(&self, words: &[&str]) -> Plan {
        self.plan(vec![self.limited_client(words)])
    }

    /// The same command line with a limit of its time: others may take minutes, for which nobody waits.
    pub fn limited_client(&self, words: &[&str]) -> CommandLine {
        let is_own = matches!(self.peer, Peer::Husk | Peer::HuskAsUser);
        let mut line = if is_own { Vec::new() } else { command("timeout", &[LIMIT_SECONDS]) };
        line.extend(self.client(words));
        line
    }

    /// A plan of the peer's: in its environment, run by its user.
    pub fn plan(&self, timed: Vec<CommandLine>) -> Plan {
        let user = self.peer.is_user().then_some(environment::USER_ID);
        Plan { timed, environment: self.environment.clone(), user, ..Plan::default() }
    }

    /// Runs a command of the peer's.
    pub fn run(&self, line: &CommandLine) -> Result<()> {
        measure::run(line, &self.plan(Vec::new()))
    }

    /// Runs a command of the peer's, and gives what it says.
    pub fn read(&self, line: &CommandLine) -> Result<String> {
        measure::read(line, &self.plan(Vec::new()))
    }

    /// Carries a plan out, and counts what the daemon does meanwhile.
    pub fn time(&self, stopwatch: &Path, plan: &Plan, series: measure::Series) -> Result<Vec<Sample>> {
        let before = self.usage()?;
        let mut samples = measure::time(stopwatch, plan, series).map_err(|error| {
            // timeout(1)'s own status.
            let is_late = error.to_string().contains("timeout: exit status 124");
            if is_late { format!("takes more than {LIMIT_SECONDS} s").into() } else { error }
        })?;
        let after = self.usage()?;
        let count = u64::try_from(samples.len().max(1))?;
        for sample in &mut samples {
            sample.processor += (after.processor - before.processor) / count;
            sample.written += (after.written - before.written) / count;
            sample.kilobytes = sample.kilobytes.max(after.peak_kilobytes);
        }
        Ok(samples)
    }

    /// Ends what would stay: podman keeps a process for an ordinary user's namespaces.
    pub fn clear(&self) {
        if self.peer == Peer::PodmanAsUser {
            let _ = self.run(&self.client(&["system", "migrate"]));
        }
    }

    fn usage(&self) -> Result<Usage> {
        let Some(daemon) = &self.daemon else { return Ok(Usage::default()) };
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", daemon.id()));
        let stat = read("stat")?;
        let (_, fields) = stat.rsplit_once(") ").ok_or("stat of proc(5) has a name in parentheses")?;
        // utime, stime, and those of children that ended.
        let ticks: u64 = fields.split(' ').skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
        let io = read("io")?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).ok_or("no write_bytes")?;
        Ok(Usage {
            processor: ticks * TICK_NANOSECONDS,
            written: written.parse()?,
            peak_kilobytes: measure::kilobytes(&read("status")?, "VmHWM:")?,
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        if let Some(pid) = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !matches!(daemon.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = daemon.kill();
        let _ = daemon.wait();
    }
}

/// A command line with the whole path of the program, for execv(3).
fn command(program: &str, words: &[&str]) -> CommandLine {
    let found = environment::find(program.as_ref()).map(|path| path.display().to_string());
    let mut line = vec![found.unwrap_or_else(|| program.to_owned())];
    line.extend(words.iter().map(|word| (*word).to_owned()));
    line
}
