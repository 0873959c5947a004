//! `husk info` and `husk version`: this husk, and the machine that it is on, in docker's words.

use clap::Args;
use serde_json::{Value, json};

use super::printer;
use super::status::Status;
use super::template::{Template, unescape};
use crate::cgroups::{Layout, Mode};
use crate::engine::engine::Engine;
use crate::engine::list;
use crate::engine::record::Status as Life;
use crate::engine::settings::{self, CgroupManager};
use crate::engine::stats::machine_memory;
use crate::error::Result;
use crate::image::platform::Platform;
use crate::support::units::binary_size;

/// The version of docker's interface whose words the commands have.
const API_VERSION: &str = "1.50";
const OWN: &str = env!("CARGO_PKG_VERSION");
const SPECIFICATION: &str = "1.3.0";

/// Show what this machine and this husk are
#[derive(Debug, Args)]
pub(super) struct Info {
    /// `json`, or a template
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<String>,
}

/// Show the version of husk
#[derive(Debug, Args)]
pub(super) struct Version {
    /// `json`, or a template
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<String>,
}

/// Runs `version`.
pub(super) fn version(args: &Version) -> Result<Status> {
    let platform = Platform::host();
    let name = rustix::system::uname();
    let kernel = name.release().to_string_lossy();
    let common = json!({
        "Version": OWN,
        "ApiVersion": API_VERSION,
        "GitCommit": super::oci::COMMIT,
        "GoVersion": "",
        "Os": platform.os,
        "Arch": platform.architecture,
        "BuildTime": "",
    });
    let (mut client, mut server) = (common.clone(), common);
    client["Context"] = json!("default");
    server["MinAPIVersion"] = json!(API_VERSION);
    server["KernelVersion"] = json!(kernel);
    server["Experimental"] = json!(false);
    server["Platform"] = json!({ "Name": "husk" });
    server["Components"] =
        json!([{ "Name": "Engine", "Version": OWN, "Details": { "RuntimeSpecification": SPECIFICATION } }]);
    // There is no other side: who asks for a server's version means the engine's, which is this one.
    let document = json!({ "Client": client, "Server": server });
    print(args.format.as_deref(), &document, || {
        format!(
            "Version:       {OWN}\nGit commit:    {}\nOCI runtime:   {SPECIFICATION}\nOS/Arch:       {}/{}\nKernel:        {kernel}\n",
            super::oci::COMMIT,
            platform.os,
            platform.architecture,
        )
    })
}

/// Runs `info`.
pub(super) fn info(args: &Info) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let listed = list::list(&engine)?.containers;
    let count = |fits: &dyn Fn(&list::Listed) -> bool| listed.iter().filter(|listed| fits(listed)).count();
    let paused = count(&|listed| listed.is_paused);
    let running = count(&|listed| matches!(listed.status, Life::Running { .. })) - paused;
    let mode = Layout::probe()?.mode();
    let manager = match engine.cgroup_manager() {
        CgroupManager::Systemd => "systemd",
        CgroupManager::Auto | CgroupManager::Cgroupfs => "cgroupfs",
    };
    let name = rustix::system::uname();
    let text = |word: &std::ffi::CStr| word.to_string_lossy().into_owned();
    let mut security = vec!["name=seccomp,profile=builtin", "name=cgroupns"];
    if engine.maps.is_some() {
        security.push("name=rootless");
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (system, system_version) = operating_system();
    let document = json!({
        "ID": "",
        "Name": text(name.nodename()),
        "ServerVersion": OWN,
        "Containers": listed.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": listed.len() - running - paused,
        "Images": engine.store()?.image_ids()?.len(),
        "Driver": "overlay",
        "DriverStatus": [["Form", engine.form().name()]],
        "DockerRootDir": engine.settings.data_root,
        "RunRoot": engine.settings.run_root,
        "CgroupDriver": manager,
        "CgroupVersion": if mode == Mode::Unified { "2" } else { "1" },
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "LoggingDriver": "json-file",
        "Plugins": { "Log": ["json-file", "k8s-file", "none"], "Network": ["bridge", "host", "ipvlan", "macvlan", "null"], "Volume": ["local"] },
        "Runtimes": { "husk": {} },
        "DefaultRuntime": "husk",
        "SecurityOptions": security,
        "KernelVersion": text(name.release()),
        "OperatingSystem": system,
        "OSVersion": system_version,
        "OSType": "linux",
        "Architecture": text(name.machine()),
        "NCPU": processors,
        "MemTotal": machine_memory(),
        "SystemTime": jiff::Timestamp::now().to_string(),
        "ExperimentalBuild": false,
        "LiveRestoreEnabled": true,
        "Swarm": { "LocalNodeState": "inactive" },
        "IndexServerAddress": "https://index.docker.io/v1/",
        "Warnings": engine.notes,
    });
    print(args.format.as_deref(), &document, || plain(&document))
}

fn print(format: Option<&str>, document: &Value, plain: impl FnOnce() -> String) -> Result<Status> {
    let text = match format {
        None | Some("") => plain(),
        Some("json") => document.to_string() + "\n",
        Some(template) => Template::parse(&unescape(template))?.render(document)? + "\n",
    };
    printer::print(&text)?;
    Ok(Status::Success)
}

fn plain(info: &Value) -> String {
    let word = |name: &str| match &info[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let list = |name: &str| {
        let words = info[name].as_array().into_iter().flatten().filter_map(Value::as_str);
        words.flat_map(|word| ["  ", word, "\n"]).collect::<String>()
    };
    let mut text = format!(
        "Containers: {}\n Running: {}\n Paused: {}\n Stopped: {}\nImages: {}\n",
        word("Containers"),
        word("ContainersRunning"),
        word("ContainersPaused"),
        word("ContainersStopped"),
        word("Images")
    );
    for (title, name) in [
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
        ("Default Runtime", "DefaultRuntime"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ] {
        text.extend([title, ": ", &word(name), "\n"]);
    }
    text.extend(["Total Memory: ", &binary_size(info["MemTotal"].as_u64().unwrap_or_default()), "\n"]);
    for (title, name) in [("Name", "Name"), ("Data Root Dir", "DockerRootDir"), ("Run Root Dir", "RunRoot")] {
        text.extend([title, ": ", &word(name), "\n"]);
    }
    text.extend(["Security Options:\n", &list("SecurityOptions")]);
    let warnings = list("Warnings");
    if !warnings.is_empty() {
        text.extend(["Warnings:\n", &warnings]);
    }
    text
}

/// The name and the version that os-release(5) has.
fn operating_system() -> (String, String) {
    let text = std::fs::read_to_string("/etc/os-release").or_else(|_| std::fs::read_to_string("/usr/lib/os-release"));
    let text = text.unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    (value("PRETTY_NAME"), value("VERSION_ID"))
}
