//! Who brings images onto a machine, and with which words. Each has directories and, where it needs one, a daemon of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;
use crate::environment;
use crate::measure::{self, CommandLine, Plan, Sample};

/// How long a daemon may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// USER_HZ, in which proc(5) counts processor time; 100 for every architecture that matters.
const TICK_NANOSECONDS: u64 = 10_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    Husk,
    Podman,
    SkopeoUmoci,
    Containerd,
    Docker,
}

pub const PEERS: [Peer; 5] = [Peer::Husk, Peer::Podman, Peer::SkopeoUmoci, Peer::Containerd, Peer::Docker];

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Husk => "husk",
            Self::Podman => "podman",
            Self::SkopeoUmoci => "skopeo+umoci",
            Self::Containerd => "containerd",
            Self::Docker => "docker",
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Husk => &[],
            Self::Podman => &["podman"],
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

/// What a daemon has taken so far.
#[derive(Clone, Copy, Default)]
struct Usage {
    processor: u64,
    written: u64,
    peak_kilobytes: u64,
}

impl Session {
    /// Opens a session, and waits for its daemon. `home` is new, `data` may hold what an earlier one left.
    pub fn open(peer: Peer, husk: &Path, home: &Path, data: &Path) -> Result<Self> {
        fs::create_dir_all(home)?;
        fs::create_dir_all(data)?;
        let at = |name: &str| data.join(name).display().to_string();
        let set = |name: &str, value: String| (name.to_owned(), value);
        let mut environment = vec![set("HOME", home.display().to_string())];
        match peer {
            Peer::Husk => environment.extend([
                set("HUSK_DATA_ROOT", at("store")),
                set("HUSK_RUN_ROOT", home.join("run").display().to_string()),
            ]),
            Peer::Podman => {
                let run = home.join("run").display().to_string();
                let storage =
                    format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{run}\"\n", at("graph"));
                fs::write(home.join("storage.conf"), storage)?;
                environment.push(set("CONTAINERS_STORAGE_CONF", home.join("storage.conf").display().to_string()));
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
        session.start_daemon()?;
        Ok(session)
    }

    fn start_daemon(&mut self) -> Result<()> {
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
                let mut words: Vec<String> =
                    ["--storage-driver", "overlay2", "--bridge", "none", "--iptables=false"].map(Into::into).into();
                words.extend(["--config-file".to_owned(), home("daemon.json"), "--data-root".to_owned(), data("data")]);
                words.extend(["--exec-root".to_owned(), home("exec"), "--pidfile".to_owned(), home("pid")]);
                words.extend(["--host".to_owned(), format!("unix://{}", home("socket"))]);
                ("dockerd", words)
            }
            Peer::Husk | Peer::Podman | Peer::SkopeoUmoci => return Ok(()),
        };
        let log = File::create_new(self.home.join("log"))?;
        let mut command = Command::new(program);
        command.args(words).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        self.daemon = Some(command.stdout(log.try_clone()?).stderr(log).spawn()?);
        let start = Instant::now();
        while measure::run(&self.client(&["version"]), &self.environment).is_err() {
            if start.elapsed() > PATIENCE {
                return Err(format!("{program} does not answer").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Gives the command line of the peer's client.
    fn client(&self, words: &[&str]) -> CommandLine {
        let (program, first) = match self.peer {
            Peer::Husk => return command(&self.husk.display().to_string(), words),
            Peer::Podman => ("podman", Vec::new()),
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
            Peer::Husk | Peer::Docker => vec![self.client(&["pull", "-q", reference])],
            Peer::Podman => vec![self.client(&["pull", "-q", "--tls-verify=false", reference])],
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
        measure::run(&line, &self.environment)
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

    /// Others may take minutes, for which nobody waits.
    fn limited(&self, words: &[&str]) -> Plan {
        let line = self.client(words);
        let mut timed = if self.peer == Peer::Husk { Vec::new() } else { command("timeout", &["20"]) };
        timed.extend(line);
        self.plan(vec![timed])
    }

    fn plan(&self, timed: Vec<CommandLine>) -> Plan {
        Plan { timed, environment: self.environment.clone(), ..Plan::default() }
    }

    /// Carries a plan out, and counts what the daemon does meanwhile.
    pub fn time(&self, stopwatch: &Path, plan: &Plan, series: measure::Series) -> Result<Vec<Sample>> {
        let before = self.usage()?;
        let mut samples = measure::time(stopwatch, plan, series)?;
        let after = self.usage()?;
        let count = u64::try_from(samples.len().max(1))?;
        for sample in &mut samples {
            sample.processor += (after.processor - before.processor) / count;
            sample.written += (after.written - before.written) / count;
            sample.kilobytes = sample.kilobytes.max(after.peak_kilobytes);
        }
        Ok(samples)
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
