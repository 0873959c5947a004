//! Flags of docker and podman that are known and not served: each is refused by name with the reason, or is accepted where
//! it asks for what is so anyway. None is ignored in silence.

use clap::Args;

use crate::error::{Error, Result};

/// What husk does not do, or not yet.
#[derive(Debug, Args)]
pub(super) struct RefusedArgs {
    #[arg(long, hide = true)]
    link: Vec<String>,
    #[arg(long, hide = true)]
    link_local_ip: Vec<String>,
    #[arg(long, hide = true)]
    pod: Option<String>,
    #[arg(long, hide = true)]
    pod_id_file: Option<String>,
    #[arg(long, hide = true)]
    uidmap: Vec<String>,
    #[arg(long, hide = true)]
    gidmap: Vec<String>,
    #[arg(long, hide = true)]
    subuidname: Option<String>,
    #[arg(long, hide = true)]
    subgidname: Option<String>,
    #[arg(long, hide = true)]
    storage_opt: Vec<String>,
    #[arg(long, hide = true)]
    volume_driver: Option<String>,
    #[arg(long, hide = true)]
    runtime: Option<String>,
    #[arg(long, hide = true)]
    isolation: Option<String>,
    #[arg(long, hide = true)]
    use_api_socket: bool,
    #[arg(long, hide = true)]
    hostuser: Vec<String>,
    #[arg(long, hide = true)]
    chrootdirs: Vec<String>,
    #[arg(long, hide = true)]
    sdnotify: Option<String>,
    #[arg(long, hide = true)]
    systemd: Option<String>,
    #[arg(long, hide = true)]
    cgroups: Option<String>,
    #[arg(long, hide = true)]
    requires: Vec<String>,
    #[arg(long, hide = true)]
    rmi: bool,
    #[arg(long, hide = true)]
    replace: bool,
    #[arg(long, hide = true)]
    rdt_class: Option<String>,
    #[arg(long, hide = true)]
    personality: Option<String>,
    #[arg(long, hide = true)]
    shm_size_systemd: Option<String>,
    #[arg(long, hide = true)]
    health_startup_cmd: Option<String>,
    #[arg(long, hide = true)]
    health_log_destination: Option<String>,
    #[arg(long, hide = true)]
    disable_content_trust: bool,
}

const PODS: &str = "pods come later";

impl RefusedArgs {
    pub(super) fn refuse(self) -> Result<()> {
        let Self {
            link,
            link_local_ip,
            pod,
            pod_id_file,
            uidmap,
            gidmap,
            subuidname,
            subgidname,
            storage_opt,
            volume_driver,
            runtime,
            isolation,
            use_api_socket,
            hostuser,
            chrootdirs,
            sdnotify,
            systemd,
            cgroups,
            requires,
            rmi,
            replace,
            rdt_class,
            personality,
            shm_size_systemd,
            health_startup_cmd,
            health_log_destination,
            // There is none, with the flag or without.
            disable_content_trust: _,
        } = self;
        // Words that ask for what is so.
        let unless = |word: Option<String>, accepted: &[&str]| word.is_some_and(|word| !accepted.contains(&&*word));
        for (flag, is_given, reason) in [
            ("link", !link.is_empty(), "containers of one network know each other by name: --network NAME"),
            ("link-local-ip", !link_local_ip.is_empty(), "the kernel makes them"),
            ("pod", pod.is_some(), PODS),
            ("pod-id-file", pod_id_file.is_some(), PODS),
            ("uidmap", !uidmap.is_empty(), "not supported yet"),
            ("gidmap", !gidmap.is_empty(), "not supported yet"),
            ("subuidname", subuidname.is_some(), "not supported yet"),
            ("subgidname", subgidname.is_some(), "not supported yet"),
            ("storage-opt", !storage_opt.is_empty(), "not supported yet"),
            ("volume-driver", unless(volume_driver, &["", "local"]), "only local is supported"),
            ("runtime", unless(runtime, &["", "husk"]), "husk is its own runtime"),
            ("isolation", unless(isolation, &["", "default"]), "it is for Windows"),
            ("use-api-socket", use_api_socket, "there is no daemon"),
            ("hostuser", !hostuser.is_empty(), "not supported yet"),
            ("chrootdirs", !chrootdirs.is_empty(), "not supported yet"),
            ("sdnotify", unless(sdnotify, &["ignore"]), "not supported yet"),
            ("systemd", unless(systemd, &["false"]), "not supported yet"),
            ("cgroups", unless(cgroups, &["enabled", "no-conmon"]), "every container has a cgroup"),
            ("requires", !requires.is_empty(), "not supported yet"),
            ("rmi", rmi, "not supported yet"),
            ("replace", replace, "not supported yet"),
            ("rdt-class", rdt_class.is_some(), "not supported yet"),
            ("personality", personality.is_some(), "not supported yet"),
            ("shm-size-systemd", shm_size_systemd.is_some(), "not supported yet"),
            ("health-startup-cmd", health_startup_cmd.is_some(), "not supported yet"),
            ("health-log-destination", health_log_destination.is_some(), "not supported yet"),
        ] {
            if is_given {
                return Err(Error::unsupported(format!("--{flag}: {reason}")));
            }
        }
        Ok(())
    }
}
