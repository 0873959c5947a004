use super::*;

use std::collections::BTreeSet;

use oci_spec::runtime::Capability;
use serde_json::{Value, json};

use crate::engine::config::facts::Node;
use crate::engine::options::{EnvironmentOptions, Limits, SecurityOptions, SwapLimit};
use crate::engine::volume_option::{MountRequest, VolumeSource};
use crate::error::Kind;
use crate::spec::{load, validate};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Everything that a configuration is made of, to be changed by a test.
struct Case {
    id: ContainerId,
    image: ImageConfig,
    options: RunOptions,
    root: RootFs,
    identity: Identity,
    maps: Option<IdMaps>,
    allows_setgroups: bool,
    parts: Vec<Part>,
    host: Host,
    joined: Joined,
    mounted_images: BTreeMap<String, Vec<PathBuf>>,
    users: UserDatabase,
    edits: Edits,
    is_host: bool,
}

impl Case {
    fn new() -> Self {
        Self {
            id: ID.parse().unwrap(),
            image: ImageConfig { cmd: vec!["sh".into()], ..ImageConfig::default() },
            options: RunOptions::default(),
            root: RootFs::Overlay {
                lower: vec!["/s/high".into(), "/s/l:o,w".into()],
                upper: "/c/upper".into(),
                work: "/c/work".into(),
                target: "/c/rootfs".into(),
                has_user_xattrs: false,
            },
            identity: Identity { uid: 0, gid: 0, groups: vec![0, 10], home: Some("/root".into()) },
            maps: None,
            allows_setgroups: true,
            parts: Vec::new(),
            host: Host {
                hostname: "machine".to_owned(),
                has_recursive_read_only: true,
                throttled_processors: vec![0, 3],
                resolver: "nameserver 10.0.0.53\nsearch example.org\noptions ndots:2\n".to_owned(),
                ..Host::default()
            },
            joined: Joined::default(),
            mounted_images: BTreeMap::from([("tools".to_owned(), vec!["/s/tools".into()])]),
            users: UserDatabase::from_bytes(b"root:x:0:0::/root:/bin/sh".to_vec(), b"root:x:0:\n".to_vec()),
            edits: Edits::default(),
            is_host: false,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn build(&self) -> Result<Built> {
        let variable = |name: &OsStr| (name == "CANARY").then(|| OsString::from("sings"));
        let variables = || vec![("CANARY".into(), "sings".into()), ("OTHER".into(), "too".into())];
        let named = self.options.volumes.iter().filter_map(|volume| match &volume.source {
            VolumeSource::Named(name) => {
                let backing = Backing::parse(&volume.driver_options).unwrap();
                Some((name.clone(), NamedVolume { data: format!("/v/{name}/_data").into(), backing }))
            }
            _ => None,
        });
        build(Input {
            id: &self.id,
            image: &self.image,
            options: &self.options,
            root: &self.root,
            parts: &self.parts,
            masked_paths: &["/var/lib/husk".to_owned()],
            identity: &self.identity,
            host: &self.host,
            variable: &variable,
            variables: &variables,
            user_namespace: self
                .maps
                .as_ref()
                .map(|maps| UserNamespace { maps, allows_setgroups: self.allows_setgroups }),
            seccomp: None,
            cgroups_path: format!("/husk/{ID}"),
            joined: &self.joined,
            edits: &self.edits,
            mounted_images: &self.mounted_images,
            users: &self.users,
            volumes: &named.collect(),
            directory: Path::new("/c"),
            is_host: self.is_host,
        })
    }

    fn spec(&self) -> Value {
        let built = self.build().unwrap();
        let spec = serde_json::to_value(&built.spec).unwrap();
        // What the engine writes must pass what the runtime demands. The mount that is the root is the runtime's own
        // agreement with the engine, which a foreign configuration may not use.
        let mut judged = spec.clone();
        judged["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/");
        validate::validate(load::parse("config.json", judged.to_string().as_bytes()).unwrap()).unwrap();
        spec
    }

    fn fails(&self) -> String {
        self.build().map(|built| serde_json::to_string(&built.spec).unwrap()).unwrap_err().report()
    }

    fn args(&self) -> Vec<String> {
        serde_json::from_value(self.spec()["process"]["args"].clone()).unwrap()
    }

    fn env(&self) -> Vec<String> {
        serde_json::from_value(self.spec()["process"]["env"].clone()).unwrap()
    }

    fn mounts(&self) -> Vec<(String, String, String)> {
        let spec = self.spec();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let options = |value: &Value| value.as_array().unwrap().iter().map(text).collect::<Vec<_>>().join(",");
        let mounts = spec["mounts"].as_array().unwrap().iter();
        mounts.map(|mount| (text(&mount["destination"]), text(&mount["source"]), options(&mount["options"]))).collect()
    }

    fn mount(&self, destination: &str) -> Option<(String, String)> {
        let mut found = self.mounts().into_iter().filter(|(found, ..)| found == destination);
        let mount = found.next().map(|(_, source, options)| (source, options));
        assert!(found.next().is_none(), "{destination} stands twice");
        mount
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn capability_names(set: &Value) -> BTreeSet<String> {
    set.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_plain_container_is_dockers() {
    let mut spec = Case::new().spec();
    let capabilities = spec["process"]["capabilities"].take();
    let expected = "CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD \
        CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_CHROOT";
    for set in ["bounding", "effective", "permitted"] {
        assert_eq!(capability_names(&capabilities[set]), words(expected).into_iter().collect(), "{set}");
    }
    for set in ["inheritable", "ambient"] {
        assert!(capability_names(&capabilities[set]).is_empty(), "{set}");
    }
    assert_eq!(
        spec["process"],
        json!({
            "terminal": false,
            "user": {"uid": 0, "gid": 0, "umask": 0o022, "additionalGids": [0, 10]},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=0123456789ab", "HOME=/root",
            ],
            "cwd": "/",
            "capabilities": null,
            "noNewPrivileges": false,
        })
    );
    let devices = spec["linux"]["resources"].take();
    assert_eq!(devices["devices"][0], json!({"allow": false, "access": "rwm"}));
    assert_eq!(devices.as_object().unwrap().len(), 1, "no limits: {devices}");
    assert_eq!(
        spec["linux"],
        json!({
            "namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}, {"type": "cgroup"},
            ],
            "cgroupsPath": format!("/husk/{ID}"),
            "resources": null,
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"},
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/dev/block",
                "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux",
                "/sys/devices/system/cpu/cpu0/thermal_throttle", "/sys/devices/system/cpu/cpu3/thermal_throttle",
                "/var/lib/husk",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        })
    );
    assert_eq!((&spec["hostname"], &spec["root"]), (&json!("0123456789ab"), &json!({"path": "/c/rootfs"})));
    let fields: BTreeSet<_> = spec.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(["ociVersion", "root", "mounts", "process", "hostname", "linux"]));
    let mounts = Case::new().mounts();
    let expected = [
        ("/", "overlay", "lowerdir=/s/high:/s/l\\:o\\,w,upperdir=/c/upper,workdir=/c/work"),
        ("/proc", "proc", "nosuid,noexec,nodev"),
        ("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        ("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
        ("/sys/fs/cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
        ("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
        ("/dev/shm", "shm", "nosuid,noexec,nodev,mode=1777,size=67108864"),
        ("/etc/hosts", "/c/hosts", "bind,rprivate"),
        ("/etc/hostname", "/c/hostname", "bind,rprivate"),
        ("/etc/resolv.conf", "/c/resolv.conf", "bind,rprivate"),
    ];
    assert_eq!(mounts, expected.map(|(one, two, three)| (one.to_owned(), two.to_owned(), three.to_owned())));
}

#[test]
fn entry_point_and_arguments_follow_docker() {
    // image entry point | image arguments | --entrypoint | arguments | what runs
    let rows: &[(&str, &str, Option<&str>, &str, &str)] = &[
        ("", "sh", None, "", "sh"),
        ("", "sh", None, "ls -l", "ls -l"),
        ("init", "serve", None, "", "init serve"),
        ("init", "serve", None, "stop", "init stop"),
        ("init", "", None, "", "init"),
        ("init", "serve", Some("debug"), "", "debug"),
        ("init", "serve", Some("debug"), "now", "debug now"),
        ("init", "serve", Some(""), "sh", "sh"),
    ];
    for (entrypoint, arguments, replaced, given, expected) in rows {
        let case = Case::new().with(|case| {
            case.image.entrypoint = words(entrypoint);
            case.image.cmd = words(arguments);
            case.options.entrypoint = replaced.map(words);
            case.options.command = words(given);
        });
        assert_eq!(case.args(), words(expected), "{entrypoint:?} {arguments:?} {replaced:?} {given:?}");
    }
    let empty = Case::new().with(|case| {
        case.image.entrypoint = words("init");
        case.options.entrypoint = Some(Vec::new());
    });
    assert_eq!(empty.fails(), "no command specified");
    let nameless = Case::new().with(|case| case.options.command = vec![String::new()]);
    assert_eq!(nameless.build().unwrap_err().kind(), Kind::ExecutableNotFound);
}

#[test]
fn environments_are_laid_over_each_other() {
    let case = Case::new().with(|case| {
        case.image.env = words("PATH=/bin A=image B=image C=image EMPTY=");
        case.options.environment.entries =
            ["A=user", "CANARY", "B", "HOME=/h", "N=1", "N=2", "MISSING"].map(|text| text.parse().unwrap()).into();
        case.options.terminal = true;
    });
    let expected = "PATH=/bin HOSTNAME=0123456789ab TERM=xterm A=user C=image EMPTY= CANARY=sings HOME=/h N=2";
    assert_eq!(case.env(), words(expected));
}

#[test]
fn an_images_environment_takes_nothing_from_the_caller() {
    for entry in ["CANARY", "*", "CANA*", "=x", "", "A\0=B", "A=\0"] {
        let case = Case::new().with(|case| case.image.env = vec![entry.to_owned()]);
        assert_eq!(case.fails(), format!("image config Env: {entry:?} is not NAME=value"));
    }
    assert!(!Case::new().env().iter().any(|entry| entry.contains("sings")));
    let home = Case::new().with(|case| case.image.env = vec!["HOME=/x\nr::0:0::/:".to_owned(), "HOME=/y".to_owned()]);
    assert_eq!(home.env().iter().filter(|entry| entry.starts_with("HOME=")).collect::<Vec<_>>(), ["HOME=/y"]);
}

#[test]
fn labels_of_an_image_steer_nothing() {
    let keys = [
        "org.systemd.property.ExecStartPre",
        "io.podman.annotations.privileged",
        "containerd.io/runc/oom-kill",
        "cdi.k8s.io/gpu",
        "run.oci.handler",
        "run.oci.hooks.stdout",
        "module.wasm.image/variant",
        "org.criu.config",
        "husk.anything",
    ];
    let labelled = Case::new().with(|case| {
        case.image.labels = keys.into_iter().map(|key| (key.to_owned(), "x".to_owned())).collect();
    });
    // As text, capabilities come in the order of a hash.
    let spec = |case: &Case| case.build().unwrap().spec;
    assert_eq!(spec(&labelled), spec(&Case::new()));
    let annotated =
        Case::new().with(|case| drop(case.options.annotations.insert("org.systemd.property.X".into(), "1".into())));
    assert_eq!(annotated.spec()["annotations"], json!({"org.systemd.property.X": "1"}));
}

#[test]
fn working_directories_are_absolute() {
    let case = |image: &str, asked: Option<&str>| {
        Case::new().with(|case| {
            case.image.working_dir = image.to_owned();
            case.options.working_directory = asked.map(str::to_owned);
        })
    };
    for (image, asked, expected) in [
        ("", None, "/"),
        ("/app", None, "/app"),
        ("app", None, "/app"),
        ("/app", Some("/x"), "/x"),
        ("/app", Some(""), "/app"),
    ] {
        assert_eq!(case(image, asked).spec()["process"]["cwd"], expected);
    }
    assert_eq!(case("", Some("x/y")).fails(), "working directory \"x/y\" is not an absolute path");
}

#[test]
fn volumes_of_the_image_are_the_containers_own() {
    let case = Case::new().with(|case| {
        case.image.volumes = words("/data /lnk /cache//x/.");
        case.options.volumes = ["/host:/lnk", "/anonymous"].map(|text| text.parse().unwrap()).into();
    });
    let built = case.build().unwrap();
    let volumes: Vec<_> =
        built.volumes.iter().map(|volume| (volume.directory.to_str().unwrap(), volume.destination.as_str())).collect();
    assert_eq!(volumes, [("/c/volumes/0", "/anonymous"), ("/c/volumes/1", "/data"), ("/c/volumes/2", "/cache/x")]);
    assert_eq!(case.mount("/lnk").unwrap().0, "/host");
    assert_eq!(case.mount("/data"), Some(("/c/volumes/1".into(), "rbind,rprivate".into())));
    for path in ["", "/", "/..", "/../../etc", "relative", "/a/../../b", "/a\0"] {
        let case = Case::new().with(|case| case.image.volumes = vec![path.to_owned()]);
        assert!(case.fails().starts_with("image config Volumes: destination"), "{path:?}: {}", case.fails());
    }
}

#[test]
fn volumes_with_a_type_are_mounts_of_the_containers_own() {
    let case = |mount: &str| {
        Case::new().with(|case| match mount.parse().unwrap() {
            MountRequest::Volume(volume) => case.options.volumes = vec![*volume],
            MountRequest::Tmpfs(_) => unreachable!(),
        })
    };
    for (mount, source, options) in [
        ("source=vv,dst=/d,volume-opt=type=tmpfs,\"volume-opt=o=size=1m,uid=5\"", "tmpfs", "size=1m,uid=5,tmpcopyup"),
        ("source=vv,dst=/d,ro,volume-nocopy,volume-opt=type=tmpfs", "tmpfs", "ro"),
        ("source=vv,dst=/d,volume-opt=type=none,volume-opt=device=/x,volume-opt=o=bind", "/x", "rprivate,bind"),
        ("source=vv,dst=/d,volume-opt=type=ext4,volume-opt=device=/dev/x", "/dev/x", ""),
    ] {
        assert_eq!(case(mount).mount("/d"), Some((source.into(), options.into())), "{mount}");
    }
    let part = "source=vv,dst=/d,volume-subpath=a,volume-opt=type=tmpfs";
    assert_eq!(case(part).fails(), "volume vv: a subpath is not supported for a volume of type tmpfs");
}

#[test]
fn mounts_that_are_asked_for_come_last_and_from_the_top() {
    let case = Case::new().with(|case| {
        let volumes = ["/h/deep:/a/b/c", "/h/shm:/dev/shm:ro", "/h/a:/a:slave"];
        case.options.volumes = volumes.map(|text| text.parse().unwrap()).into();
        case.options.tmpfs = vec!["/a/b".parse().unwrap()];
    });
    let destinations: Vec<_> = case.mounts().into_iter().map(|(destination, ..)| destination).collect();
    let expected = "/ /proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /a /dev/shm /a/b /etc/hosts /etc/hostname \
        /etc/resolv.conf /a/b/c";
    assert_eq!(destinations, words(expected));
    assert_eq!(case.mount("/dev/shm"), Some(("/h/shm".into(), "rbind,rprivate,rro".into())));
    assert_eq!(case.mount("/a/b"), Some(("tmpfs".into(), "noexec,nosuid,nodev".into())));
    assert_eq!(case.spec()["linux"]["rootfsPropagation"], "rslave");

    let dev = Case::new().with(|case| case.options.volumes = vec!["/h/dev:/dev".parse().unwrap()]);
    assert_eq!(dev.mount("/dev").unwrap().0, "/h/dev");
    assert_eq!(dev.mount("/dev/pts"), None);
}

#[test]
fn what_cannot_be_mounted_is_refused() {
    for (volumes, report) in [
        (vec!["/a:/x", "/b:/x"], "duplicate mount point: /x"),
        (vec!["/a:/x", "/b:/x/."], "duplicate mount point: /x"),
        (vec!["./data:/x"], "volume source ./data is not an absolute path"),
    ] {
        let case =
            Case::new().with(|case| case.options.volumes = volumes.iter().map(|text| text.parse().unwrap()).collect());
        assert_eq!(case.fails(), report);
    }
}

#[test]
fn an_init_of_the_users_is_bound() {
    let case = Case::new().with(|case| {
        case.options.init = true;
        case.options.init_path = Some("/h/init".into());
    });
    assert_eq!(case.mount("/sbin/docker-init"), Some(("/h/init".into(), "bind,rprivate,ro,nosuid,nodev".into())));
    assert_eq!(case.spec()["process"]["args"], json!(["/sbin/docker-init", "--", "sh"]));
    let own = Case::new().with(|case| case.options.init = true);
    assert_eq!((own.mount("/sbin/docker-init"), own.spec()["process"]["args"].clone()), (None, json!(["sh"])));
}

#[test]
fn a_user_namespace_gets_what_its_ids_allow() {
    let ranges = |length| vec![IdRange { inside: 0, outside: 1000, length }];
    let single = || {
        Case::new().with(|case| {
            case.maps = Some(IdMaps { uids: ranges(1), gids: ranges(1) });
            case.allows_setgroups = false;
        })
    };
    let spec = single().spec();
    assert_eq!(spec["linux"]["namespaces"][0], json!({"type": "user"}));
    assert_eq!(spec["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
    assert_eq!(spec["process"]["user"], json!({"uid": 0, "gid": 0, "umask": 0o022}));
    assert_eq!(spec["linux"]["sysctl"], json!({"net.ipv4.ip_unprivileged_port_start": "0"}));
    assert_eq!(single().mount("/dev/pts").unwrap().1, "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620");
    assert_eq!(single().mount("/sys").unwrap().0, "sysfs");

    let wide = Case::new().with(|case| case.maps = Some(IdMaps { uids: ranges(8), gids: ranges(8) }));
    assert_eq!(wide.spec()["process"]["user"]["additionalGids"], json!([0]), "group 10 is not mapped");
    assert!(wide.mount("/dev/pts").unwrap().1.ends_with("gid=5"));

    let host = single().with(|case| case.options.network = Network::Host);
    assert_eq!(host.mount("/sys"), Some(("/sys".into(), "rbind,rprivate,nosuid,noexec,nodev,ro".into())));

    for (uid, gid, what) in [(1000, 0, "user 1000"), (0, 7, "group 7")] {
        let case = single().with(|case| {
            (case.identity.uid, case.identity.gid) = (uid, gid);
        });
        assert_eq!(case.fails(), format!("{what} does not exist in the container's user namespace"));
    }
    let empty = Case::new().with(|case| case.maps = Some(IdMaps::default()));
    assert!(empty.build().is_err());
}

#[test]
fn the_hosts_network_brings_its_name_and_no_sysctls() {
    let case = Case::new().with(|case| case.options.network = Network::Host);
    let spec = case.spec();
    assert_eq!(spec["hostname"], "machine");
    assert!(!spec["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "network"})));
    assert_eq!(spec["linux"]["sysctl"], Value::Null);
    assert!(case.env().contains(&"HOSTNAME=machine".to_owned()));
}

#[test]
fn host_names_are_names() {
    let case = |name: &str| Case::new().with(|case| case.options.hostname = Some(name.to_owned()));
    let long = "a".repeat(64);
    for name in ["web", "web-1.example.org", "a_b", &long] {
        assert_eq!(case(name).spec()["hostname"], *name);
    }
    let too_long = "a".repeat(65);
    for name in ["", "a b", "a\n10.0.0.1 bank", "a/b", "-a", ".", "é", "a\0", &too_long] {
        assert!(case(name).fails().starts_with("hostname "), "{name:?}");
    }
}

#[test]
fn capabilities_are_added_and_dropped_as_docker_does() {
    let set = |added: &str, dropped: &str| {
        capabilities(&RunOptions {
            added_capabilities: words(added),
            dropped_capabilities: words(dropped),
            ..RunOptions::default()
        })
    };
    let default: Capabilities = defaults::CAPABILITIES.iter().copied().collect();
    let all: Capabilities = defaults::ALL_CAPABILITIES.iter().copied().collect();
    let only = |list: &[Capability]| list.iter().copied().collect::<Capabilities>();
    let without = |one: Capability| default.iter().filter(|other| **other != one).copied().collect::<Capabilities>();
    let all_but_one = all.iter().filter(|other| **other != Capability::SysAdmin).copied().collect();
    for (added, dropped, expected) in [
        ("", "", default.clone()),
        ("net_admin CAP_CHOWN", "", default.iter().copied().chain([Capability::NetAdmin]).collect()),
        ("", "CAP_KILL", without(Capability::Kill)),
        ("KILL", "KILL", default.clone()),
        ("", "all", only(&[])),
        ("NET_ADMIN", "ALL", only(&[Capability::NetAdmin])),
        ("ALL", "", all),
        ("ALL", "sys_admin", all_but_one),
        ("ALL", "ALL", only(&[])),
    ] {
        assert_eq!(set(added, dropped).unwrap(), expected, "+{added} -{dropped}");
    }
    for name in ["NOPE", "CAP_CAP_KILL", "KILL ", "CAP_"] {
        let options = RunOptions { added_capabilities: vec![name.to_owned()], ..RunOptions::default() };
        assert_eq!(capabilities(&options).unwrap_err().report(), format!("cap-add {name:?}: unknown capability"));
    }
    let user = Case::new().with(|case| case.identity.uid = 1000).spec();
    let sets = &user["process"]["capabilities"];
    assert_eq!(capability_names(&sets["bounding"]).len(), 14);
    for set in ["effective", "permitted", "inheritable", "ambient"] {
        assert!(capability_names(&sets[set]).is_empty(), "{set}");
    }
}

#[test]
fn limits_mean_what_docker_means() {
    let case = |limits: Limits| Case::new().with(|case| case.options.limits = limits);
    let resources = |limits: Limits| {
        let mut spec = case(limits).spec();
        let mut resources = spec["linux"]["resources"].take();
        resources.as_object_mut().unwrap().remove("devices");
        resources
    };
    let none = Limits::default;
    let mib = 1_u64 << 20;
    for (limits, expected) in [
        (none(), json!({})),
        (Limits { memory: Some(64 * mib), ..none() }, json!({"memory": {"limit": 64 << 20, "swap": 128 << 20}})),
        (
            Limits { memory: Some(64 * mib), memory_swap: Some(SwapLimit::Unlimited), ..none() },
            json!({"memory": {"limit": 64 << 20, "swap": -1}}),
        ),
        (
            Limits { memory: Some(64 * mib), memory_swap: Some(SwapLimit::Bytes(64 * mib)), ..none() },
            json!({"memory": {"limit": 64 << 20, "swap": 64 << 20}}),
        ),
        (Limits { memory_reservation: Some(mib), ..none() }, json!({"memory": {"reservation": 1 << 20}})),
        (Limits { nano_cpus: Some(1_500_000_000), ..none() }, json!({"cpu": {"quota": 150_000, "period": 100_000}})),
        (Limits { cpu_shares: Some(1), ..none() }, json!({"cpu": {"shares": 2}})),
        (Limits { cpu_shares: Some(0), ..none() }, json!({})),
        (Limits { cpuset_cpus: Some("0-2,4".into()), ..none() }, json!({"cpu": {"cpus": "0-2,4"}})),
        (Limits { pids: Some(7), ..none() }, json!({"pids": {"limit": 7}})),
        (Limits { pids: Some(0), ..none() }, json!({})),
        (Limits { pids: Some(-1), ..none() }, json!({})),
        (Limits { blkio_weight: Some(500), ..none() }, json!({"blockIO": {"weight": 500}})),
    ] {
        assert_eq!(resources(limits.clone()), expected, "{limits:?}");
    }
    for (limits, report) in [
        (Limits { memory: Some(mib), ..none() }, "memory: less than 6 MiB"),
        (Limits { memory_swap: Some(SwapLimit::Bytes(mib)), ..none() }, "memory-swap: needs a limit of memory"),
        (
            Limits { memory: Some(64 * mib), memory_swap: Some(SwapLimit::Bytes(mib)), ..none() },
            "memory-swap: smaller than memory",
        ),
        (
            Limits { memory: Some(64 * mib), memory_reservation: Some(65 * mib), ..none() },
            "memory-reservation: larger than memory",
        ),
        (Limits { nano_cpus: Some(1), ..none() }, "cpus: less than 0.01"),
        (Limits { nano_cpus: Some(NANOS), cpu_quota: Some(1), ..none() }, "cpus: cannot be given together"),
        (Limits { cpuset_cpus: Some("0\n1".into()), ..none() }, "cpuset-cpus \"0\\n1\": not a list"),
        (Limits { cpuset_mems: Some("2-1".into()), ..none() }, "cpuset-mems \"2-1\": not a list"),
        (Limits { pids: Some(-2), ..none() }, "pids-limit: -2"),
        (Limits { blkio_weight: Some(5), ..none() }, "blkio-weight: 5"),
    ] {
        let found = case(limits).fails();
        assert!(found.starts_with(report), "{found}");
    }
}

const NANOS: u64 = 1_000_000_000;

#[test]
fn process_options_reach_the_process() {
    let case = Case::new().with(|case| {
        case.options.terminal = true;
        case.options.console_size = Some((24, 80));
        case.options.umask = Some(0o077);
        case.options.oom_score_adj = Some(100);
        case.options.read_only = true;
        case.options.shm_size = Some(1 << 20);
        case.options.ulimits = vec!["nofile=10:20".parse().unwrap()];
        case.options.security = SecurityOptions {
            no_new_privileges: true,
            masked: vec!["/proc/uptime".into()],
            unmasked: Unmasked::Paths(vec!["/proc/acpi".into(), "/proc/sys".into(), "/var/lib/husk".into()]),
            ..SecurityOptions::default()
        };
    });
    let spec = case.spec();
    let process = &spec["process"];
    assert_eq!(process["consoleSize"], json!({"height": 24, "width": 80}));
    assert_eq!(process["user"]["umask"], 0o077);
    assert_eq!(process["rlimits"], json!([{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]));
    assert_eq!((&process["oomScoreAdj"], &process["noNewPrivileges"]), (&json!(100), &json!(true)));
    assert_eq!(spec["root"]["readonly"], true);
    assert!(case.mount("/dev/shm").unwrap().1.ends_with("size=1048576"));
    let has = |field: &str, path: &str| spec["linux"][field].as_array().unwrap().contains(&json!(path));
    assert!(!has("maskedPaths", "/proc/acpi") && !has("readonlyPaths", "/proc/sys"));
    assert!(has("maskedPaths", "/proc/uptime") && has("maskedPaths", "/proc/kcore"));
    assert!(has("maskedPaths", "/var/lib/husk"), "the store is never shown");

    let open = Case::new().with(|case| case.options.security.unmasked = Unmasked::All).spec();
    assert_eq!(open["linux"]["maskedPaths"], json!(["/var/lib/husk"]));
    assert_eq!(open["linux"]["readonlyPaths"], json!([]));
    let twice =
        Case::new().with(|case| case.options.ulimits = vec!["nofile=1".parse().unwrap(), "nofile=2".parse().unwrap()]);
    assert_eq!(twice.fails(), "ulimit RLIMIT_NOFILE is given twice");
}

#[test]
fn parts_of_a_root_come_before_everything_else() {
    let overlay = PartSource::Overlay {
        lower: "/usr".into(),
        upper: "/c/0/upper".into(),
        work: "/c/0/work".into(),
        has_user_xattrs: true,
    };
    let part = |destination: &str, source| Part { destination: destination.into(), source };
    let case = Case::new().with(|case| {
        case.root = RootFs::Directory {
            path: "/c/rootfs".into(),
            parts: vec![part("/usr", overlay), part("/swap", PartSource::ReadOnlyBind("/swap".into()))],
        };
        case.parts = vec![
            part("/run", PartSource::Tmpfs(&["nosuid", "nodev", "mode=755"])),
            part("/tmp", PartSource::Bind("/c/tmp".into())),
        ];
        case.options.read_only = true;
    });
    let expected = [
        ("/usr", "overlay", "lowerdir=/usr,upperdir=/c/0/upper,workdir=/c/0/work,userxattr,ro"),
        ("/swap", "/swap", "bind,rprivate,ro,nosuid,nodev"),
        ("/run", "tmpfs", "nosuid,nodev,mode=755"),
        ("/tmp", "/c/tmp", "bind,rprivate,nosuid,nodev,ro"),
    ];
    let mounts: Vec<_> = case.mounts().into_iter().take(4).collect();
    assert_eq!(mounts, expected.map(|(one, two, three)| (one.to_owned(), two.to_owned(), three.to_owned())));
}

#[test]
fn cgroups_are_below_husks_own_or_a_slice() {
    let id = ID.parse().unwrap();
    let path = |manager, rootless, parent| cgroups_path(manager, rootless, parent, &id);
    for (manager, rootless, parent, expected) in [
        (CgroupManager::Cgroupfs, false, None, format!("/husk/{ID}")),
        (CgroupManager::Cgroupfs, true, Some("/ci/job/"), format!("/ci/job/{ID}")),
        (CgroupManager::Systemd, false, None, format!("system.slice:husk:{ID}")),
        (CgroupManager::Systemd, true, None, format!("user.slice:husk:{ID}")),
        (CgroupManager::Systemd, false, Some("ci.slice"), format!("ci.slice:husk:{ID}")),
    ] {
        assert_eq!(path(manager, rootless, parent).unwrap(), expected);
    }
    assert!(path(CgroupManager::Systemd, false, Some("/ci")).is_err());
    assert!(path(CgroupManager::Cgroupfs, false, Some("../other")).is_err());
}

#[test]
fn environments_are_changed_by_more_than_values() {
    let case = |change: fn(&mut EnvironmentOptions)| {
        let case = Case::new().with(|case| {
            case.image.env = words("PATH=/bin A=image");
            case.options.environment.entries = vec!["A=user".parse().unwrap()];
            change(&mut case.options.environment);
        });
        case.env().join(" ")
    };
    for (change, expected) in [
        (
            (|asked| asked.unset = vec!["PATH".into()]) as fn(&mut EnvironmentOptions),
            "HOSTNAME=0123456789ab A=user HOME=/root",
        ),
        (
            |asked| asked.unsets_all = true,
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOSTNAME=0123456789ab A=user HOME=/root",
        ),
        (
            |asked| asked.takes_callers = true,
            "PATH=/bin HOSTNAME=0123456789ab A=user CANARY=sings OTHER=too HOME=/root",
        ),
        (
            |asked| asked.merged = vec!["PATH=${PATH}:/x".parse().unwrap(), "B=$A".parse().unwrap()],
            "PATH=/bin:/x HOSTNAME=0123456789ab A=user B=image HOME=/root",
        ),
    ] {
        assert_eq!(case(change), expected);
    }
}

#[test]
fn names_are_in_files_of_the_containers_own() {
    let content = |case: &Case, name: &str| {
        let files = case.build().unwrap().files;
        files.into_iter().find(|file| file.name == name).map(|file| file.content)
    };
    let plain = Case::new();
    let hosts = content(&plain, "hosts").unwrap();
    assert!(hosts.starts_with("127.0.0.1\tlocalhost\n") && hosts.ends_with("127.0.1.1\t0123456789ab\n"), "{hosts}");
    assert_eq!(content(&plain, "hostname").unwrap(), "0123456789ab\n");
    assert_eq!(content(&plain, "resolv.conf").unwrap(), "nameserver 10.0.0.53\nsearch example.org\noptions ndots:2\n");

    let asked = Case::new().with(|case| {
        let hosts = &mut case.options.hosts;
        hosts.added = vec!["db:10.0.0.7".parse().unwrap()];
        hosts.servers = vec!["9.9.9.9".parse().unwrap()];
        hosts.search = vec![".".into()];
        hosts.options = vec!["timeout:1".into()];
        case.options.read_only = true;
    });
    assert!(content(&asked, "hosts").unwrap().ends_with("10.0.0.7\tdb\n"));
    assert_eq!(content(&asked, "resolv.conf").unwrap(), "nameserver 9.9.9.9\noptions timeout:1\n");
    assert_eq!(asked.mount("/etc/hosts"), Some(("/c/hosts".into(), "bind,rprivate,ro".into())));

    let shared = Case::new().with(|case| {
        case.options.network = Network::Host;
        case.host.hosts = Some("127.0.0.1 machine".into());
        case.options.hosts.added = vec!["h:host-gateway".parse().unwrap()];
    });
    assert_eq!(content(&shared, "hosts").unwrap(), "127.0.0.1 machine\n127.0.0.1\th\n");
    let gateway = Case::new().with(|case| case.options.hosts.added = vec!["h:host-gateway".parse().unwrap()]);
    assert_eq!(gateway.fails(), "add-host h: host-gateway needs a network");

    let own = Case::new().with(|case| case.options.volumes = vec!["/h/hosts:/etc/hosts".parse().unwrap()]);
    assert_eq!(own.mount("/etc/hosts").unwrap().0, "/h/hosts");
    let host = Case::new().with(|case| case.is_host = true);
    assert_eq!(host.build().unwrap().files, []);
}

#[test]
fn a_privileged_container_is_hidden_nothing() {
    let fuse = || Node {
        source: "/dev/fuse".into(),
        destination: "/dev/fuse".into(),
        kind: 'c',
        major: 10,
        minor: 229,
        mode: 0o666,
        uid: 0,
        gid: 0,
        access: "rwm".into(),
    };
    let case = Case::new().with(|case| {
        case.options.privileged = true;
        case.host.all_devices = vec![fuse()];
    });
    let spec = case.spec();
    assert_eq!(spec["linux"]["maskedPaths"], json!(["/var/lib/husk"]), "the store is never shown");
    assert_eq!(spec["linux"]["readonlyPaths"], json!([]));
    assert_eq!(capability_names(&spec["process"]["capabilities"]["effective"]).len(), 41);
    assert_eq!(case.mount("/sys").unwrap().1, "nosuid,noexec,nodev");
    assert_eq!(case.mount("/sys/fs/cgroup").unwrap().1, "nosuid,noexec,nodev");
    let expected =
        json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0}]);
    assert_eq!(spec["linux"]["devices"], expected);
    let rules = spec["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(rules.last().unwrap(), &json!({"allow": true, "access": "rwm"}));

    let asked = Case::new().with(|case| {
        case.host.devices = vec![Node { destination: "/dev/f".into(), access: "r".into(), ..fuse() }];
        case.options.device_rules = vec!["b 8:* rw".parse().unwrap()];
    });
    let rules = asked.spec()["linux"]["resources"]["devices"].clone();
    let last: Vec<_> = rules.as_array().unwrap().iter().rev().take(2).collect();
    assert_eq!(last[1], &json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"}));
    assert_eq!(last[0], &json!({"allow": true, "type": "b", "major": 8, "access": "rw"}));

    let maps = vec![IdRange { inside: 0, outside: 1000, length: 1 }];
    let bound = asked.with(|case| case.maps = Some(IdMaps { uids: maps.clone(), gids: maps.clone() }));
    assert_eq!(bound.mount("/dev/f"), Some(("/dev/fuse".into(), "bind,rprivate,nosuid,noexec".into())));
    assert_eq!(bound.spec()["linux"]["devices"], Value::Null);
}

#[test]
fn namespaces_are_own_shared_or_joined() {
    let case = Case::new().with(|case| {
        let modes = &mut case.options.namespaces;
        (modes.pid, modes.ipc, modes.uts) =
            ("host".parse().unwrap(), "ns:/proc/7/ns/ipc".parse().unwrap(), "host".parse().unwrap());
        modes.cgroup = "ns:/run/cgroup".parse().unwrap();
        case.joined =
            Joined { ipc: Some("/proc/7/ns/ipc".into()), cgroup: Some("/run/cgroup".into()), ..Joined::default() };
    });
    let spec = case.spec();
    assert_eq!(
        spec["linux"]["namespaces"],
        json!([
            {"type": "mount"}, {"type": "ipc", "path": "/proc/7/ns/ipc"}, {"type": "network"},
            {"type": "cgroup", "path": "/run/cgroup"},
        ])
    );
    assert_eq!(spec["hostname"], Value::Null);
    assert!(case.env().contains(&"HOSTNAME=machine".to_owned()));

    let named = Case::new().with(|case| {
        case.options.namespaces.uts = "host".parse().unwrap();
        case.options.hostname = Some("web".into());
    });
    assert_eq!(named.fails(), "hostname: cannot be changed where uts is host");
    let shared = Case::new().with(|case| {
        case.options.namespaces.ipc = "host".parse().unwrap();
        case.host.has_queues = true;
    });
    assert_eq!(shared.mount("/dev/shm").unwrap().0, "/dev/shm");
    assert_eq!(shared.mount("/dev/mqueue").unwrap().0, "/dev/mqueue");
}

#[test]
fn memory_goes_with_the_ipc_namespace() {
    let case = |mode: &str| {
        Case::new().with(|case| {
            case.options.namespaces.ipc = mode.parse().unwrap();
            case.joined.ipc = mode.starts_with("container").then(|| "/proc/7/ns/ipc".into());
        })
    };
    assert_eq!(case("none").mount("/dev/shm"), None);
    assert_eq!(case("private").mount("/dev/shm").unwrap().0, "shm");
    // A path that is none: only the runtime finds it.
    assert_eq!(case("container:web").mount("/dev/shm").unwrap().0, "container:web");
}

#[test]
fn images_are_mounted_read_only_or_below_a_layer() {
    let mount = |text: &str| {
        Case::new().with(|case| {
            let Ok(MountRequest::Volume(volume)) = text.parse() else { panic!("{text}") };
            case.options.volumes = vec![*volume];
        })
    };
    let case = mount("type=image,source=tools,target=/t");
    assert_eq!(case.mount("/t"), Some(("overlay".into(), "lowerdir=/s/tools:/c/volumes/0/upper,ro".into())));
    let case = mount("type=image,source=tools,target=/t,rw=true");
    let writable = "lowerdir=/s/tools,upperdir=/c/volumes/0/upper,workdir=/c/volumes/0/work";
    assert_eq!(case.mount("/t"), Some(("overlay".into(), writable.into())));
    let spec = mount("type=image,source=tools,target=/t,subpath=bin").spec();
    let mounts: Vec<_> =
        spec["mounts"].as_array().unwrap().iter().filter(|mount| mount["destination"] == "/t").collect();
    assert_eq!((mounts[1]["source"].as_str(), mounts.len()), (Some("/c/rootfs/t/bin"), 2));
}

#[test]
fn users_that_the_image_does_not_know_get_a_line() {
    let case = |uid: u32, entry: &str| {
        Case::new().with(|case| {
            case.identity = Identity { uid, gid: 7, groups: vec![7], home: None };
            case.options.passwd_entry = Some(entry.to_owned());
        })
    };
    let entry = "me:*:$UID:$GID:$NAME:$HOME:/bin/sh\n";
    let built = case(1000, entry).build().unwrap();
    let file = built.files.iter().find(|file| file.name == "passwd").unwrap();
    assert_eq!(file.content, "root:x:0:0::/root:/bin/sh\nme:*:1000:7:container user:/:/bin/sh\n");
    assert_eq!(case(1000, entry).mount("/etc/passwd").unwrap().0, "/c/passwd");
    assert_eq!(case(0, entry).mount("/etc/passwd"), None, "root has a line");
    for entry in ["me", "me:*:$UID:$GID:x:/:/bin/sh:more", "a:b:0:0:x:/:/bin/sh\nb:c:0:0:x:/:/bin/sh"] {
        assert!(case(1, entry).fails().starts_with("passwd-entry"), "{entry:?}");
    }
    let kept = Case::new().with(|case| {
        case.options.namespaces.user = "keep-id".parse().unwrap();
        case.identity = Identity { uid: 1000, gid: 1000, groups: vec![1000], home: None };
        let [name, group, home] = ["alice", "staff", "/home/alice"].map(str::to_owned);
        case.host.caller = Some(facts::CallersName { name, group, home });
    });
    let files = kept.build().unwrap().files;
    let of =
        |name: &str| files.iter().find(|file| file.name == name).unwrap().content.lines().last().unwrap().to_owned();
    assert_eq!(of("passwd"), "alice:*:1000:1000:alice:/home/alice:/bin/sh");
    assert_eq!(of("group"), "staff:x:1000:alice");
}

#[test]
fn volumes_have_layers_and_owners() {
    let case = Case::new().with(|case| {
        case.options.volumes = ["/h:/a:O", "/g:/b:U,ro", "/c", "data:/d:ro"].map(|text| text.parse().unwrap()).into();
        case.options.read_only = true;
        case.options.read_only_tmpfs = true;
        case.host.timezone = Some("/usr/share/zoneinfo/UTC".into());
    });
    let built = case.build().unwrap();
    assert_eq!(case.mount("/a").unwrap().1, "lowerdir=/h,upperdir=/c/volumes/0/upper,workdir=/c/volumes/0/work");
    assert_eq!(built.directories, ["/c/volumes/0", "/c/volumes/0/upper", "/c/volumes/0/work"].map(PathBuf::from));
    assert_eq!(built.given, [PathBuf::from("/g")]);
    assert_eq!(case.mount("/d"), Some(("/v/data/_data".into(), "rbind,rprivate,rro".into())));
    assert_eq!(built.volumes[0].directory, Path::new("/c/volumes/1"));
    assert_eq!(case.mount("/tmp"), Some(("tmpfs".into(), "nosuid,nodev,mode=1777".into())));
    assert_eq!(case.mount("/etc/localtime"), Some(("/usr/share/zoneinfo/UTC".into(), "bind,rprivate,ro".into())));
    for (manner, expected) in [("tmpfs", Some("tmpfs")), ("ignore", None), ("bind", Some("/c/volumes/0"))] {
        let case = Case::new().with(|case| {
            case.image.volumes = words("/data");
            case.options.image_volumes = manner.parse().unwrap();
        });
        assert_eq!(case.mount("/data").map(|(source, _)| source).as_deref(), expected, "{manner}");
    }
}

#[test]
fn block_devices_of_limits_have_numbers() {
    let case = Case::new().with(|case| {
        case.options.limits.device_read_bps = vec!["/dev/sda:1m".parse().unwrap()];
        case.options.limits.blkio_weight_devices = vec!["/dev/sda:200".parse().unwrap()];
        case.options.limits.unified.insert("memory.high".into(), "1000000".into());
        case.host.block_devices.insert("/dev/sda".into(), (8, 0));
    });
    let mut resources = case.spec()["linux"]["resources"].take();
    resources.as_object_mut().unwrap().remove("devices");
    assert_eq!(
        resources,
        json!({
            "unified": {"memory.high": "1000000"},
            "blockIO": {
                "weightDevice": [{"major": 8, "minor": 0, "weight": 200}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1 << 20}],
            },
        })
    );
    let missing = case.with(|case| case.host.block_devices.clear());
    assert_eq!(missing.fails(), "/dev/sda is not a block device");
}
