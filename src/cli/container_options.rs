//! The flags that `run` and `create` share: what the container is to be.
//!
//! Words become the plain values of [`RunOptions`] here, and nothing else happens: a flag has its grammar in the type that
//! it is parsed into, its meaning in [`engine::config`](crate::engine::config). A flag that is known and can't be served is
//! refused by name (`refused.rs`).

mod health;
mod limits;
mod refused;
mod security;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use clap::Args;

use health::SupervisionArgs;
use limits::LimitArgs;
use refused::RefusedArgs;
use security::SecurityArgs;

use super::progress::Bar;
use crate::engine::connecting;
use crate::engine::engine::Engine;
use crate::engine::options::environment::{self, EnvironmentEntry};
use crate::engine::options::hosts::{self, HostEntry, HostsSource};
use crate::engine::options::namespaces::{IpcMode, NamespaceMode, UserMode};
use crate::engine::options::network::{self, Alone};
use crate::engine::options::ports;
use crate::engine::options::secret::SecretRequest;
use crate::engine::options::{self, ImageVolumes, Network, PullPolicy, RunOptions, Stream};
use crate::engine::volume_option::{MountRequest, Tmpfs, Volume, VolumesFrom};
use crate::error::{Context, Error, Result};
use crate::image::platform::Platform;
use crate::network::egress::Policy;
use crate::network::lease::Mac;
use crate::support::passwd::{Principal, UserSpec};

/// Environment files and label files are read whole; nobody writes such a one by hand.
const FILE_BYTES: u64 = 16 << 20;

/// What follows `run` and `create` before the image.
#[derive(Debug, Args)]
pub(super) struct ContainerArgs {
    #[command(flatten)]
    general: GeneralArgs,
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    environment: EnvironmentArgs,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    security: SecurityArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    namespaces: NamespaceArgs,
    #[command(flatten)]
    supervision: SupervisionArgs,
    #[command(flatten)]
    refused: RefusedArgs,
}

/// What the container is called, and how the command relates to it.
#[derive(Debug, Args)]
struct GeneralArgs {
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Give the container a terminal
    #[arg(long, short)]
    tty: bool,
    /// Keep standard input open
    #[arg(long, short)]
    interactive: bool,
    /// Attach to stdin, stdout or stderr alone
    #[arg(long, short, value_name = "STREAM")]
    attach: Vec<Stream>,
    /// When to fetch the image: missing, always, never or newer
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pull: PullPolicy,
    /// Say nothing of the progress of a pull
    #[arg(long, short)]
    quiet: bool,
    /// Platform of the image, such as linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,
    /// The image is a directory, and becomes the root file system itself
    #[arg(long)]
    rootfs: bool,
    /// Give the container a name-value pair
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = options::parse_pair)]
    label: Vec<(String, String)>,
    /// Read labels from a file, one a line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Give the OCI runtime a name-value pair
    #[arg(long, value_name = "NAME=VALUE", value_parser = options::parse_pair)]
    annotation: Vec<(String, String)>,
    /// Write the container's id to a new file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Write the process's id to a file
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// What runs in it, and as whom.
#[derive(Debug, Args)]
struct ProcessArgs {
    /// Working directory in the container
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// User, and group, by name or id
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<UserSpec>,
    /// Another group of the user; keep-groups for the caller's
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Run this instead of the image's entry point; empty for none; a JSON list for several words
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Put a small init before the command, which reaps orphans
    #[arg(long)]
    init: bool,
    /// Take this program of the host's for it
    #[arg(long, value_name = "FILE")]
    init_path: Option<PathBuf>,
    /// Line of /etc/passwd for a user that the image does not know; $USERNAME, $UID, $GID, $NAME, $HOME
    #[arg(long, value_name = "LINE")]
    passwd_entry: Option<String>,
    /// Line of /etc/group for a group that the image does not know; $GROUPNAME, $GID, $USERLIST
    #[arg(long, value_name = "LINE")]
    group_entry: Option<String>,
    /// Mode bits that new files lack
    #[arg(long, value_name = "OCTAL", value_parser = options::parse_umask)]
    umask: Option<u32>,
    /// Time zone, or local for this machine's
    #[arg(long, alias = "timezone", value_name = "ZONE")]
    tz: Option<String>,
    /// Pass on so many descriptors, from 3 on
    #[arg(long, value_name = "NUMBER")]
    preserve_fds: Option<u32>,
}

/// What it is told by variables.
#[derive(Debug, Args)]
struct EnvironmentArgs {
    /// Set a variable; without a value, to the caller's
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<EnvironmentEntry>,
    /// Read variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Set a variable to a value in which $NAME is the image's
    #[arg(long, value_name = "NAME=VALUE")]
    env_merge: Vec<EnvironmentEntry>,
    /// Pass on all of the caller's variables
    #[arg(long)]
    env_host: bool,
    /// Leave out a variable of the image's
    #[arg(long, value_name = "NAME")]
    unsetenv: Vec<String>,
    /// Leave out all variables of the image's
    #[arg(long)]
    unsetenv_all: bool,
    /// Pass on the caller's proxy variables, which is the default
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    http_proxy: Option<bool>,
}

/// What it sees of files.
#[derive(Debug, Args)]
struct FileArgs {
    /// Bind a file or directory of the host, or mount a volume
    #[arg(long, short, value_name = "[SOURCE:]DESTINATION[:OPTIONS]")]
    volume: Vec<Volume>,
    /// Mount something: type=bind|volume|tmpfs|image,source=…,target=…
    #[arg(long, value_name = "KEY=VALUE,…")]
    mount: Vec<MountRequest>,
    /// Mount an empty file system in memory
    #[arg(long, value_name = "DESTINATION[:OPTIONS]")]
    tmpfs: Vec<Tmpfs>,
    /// Mount what another container has mounted
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<VolumesFrom>,
    /// What becomes of the image's volumes: bind, tmpfs or ignore
    #[arg(long, value_name = "MANNER", default_value = "bind")]
    image_volume: ImageVolumes,
    /// Give it a secret, as /run/secrets/NAME or as a variable
    #[arg(long, value_name = "SECRET[,KEY=VALUE…]")]
    secret: Vec<SecretRequest>,
    /// Mount the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// With --read-only: /run, /tmp and /var/tmp are in memory
    #[arg(long)]
    read_only_tmpfs: bool,
}

/// Who it is to others, and who others are to it.
#[derive(Debug, Args)]
struct NetworkArgs {
    /// Host name of the container
    #[arg(long, short = 'h', value_name = "NAME")]
    hostname: Option<String>,
    /// NIS domain name of the container
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Network of the container: a network's name, none, host, container:NAME or ns:PATH
    #[arg(long, alias = "net", value_name = "NETWORK[:KEY=VALUE,…]")]
    network: Vec<String>,
    /// IPv4 address in its network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// IPv6 address in its network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// MAC address in its network
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<Mac>,
    /// Another name in its networks
    #[arg(long, alias = "net-alias", value_name = "NAME", value_parser = network::parse_alias)]
    network_alias: Vec<String>,
    /// What it may reach: none, or allow=ITEM,… of names, *.NAME, addresses and blocks, each with [:PORT[-PORT]][/tcp|/udp]
    #[arg(long, value_name = "none|allow=ITEM,…")]
    egress: Vec<String>,
    /// Let a port of the host lead to one of the container
    #[arg(long, short, value_name = "[[ADDRESS:]PORT:]PORT[/PROTOCOL]")]
    publish: Vec<String>,
    /// Publish all ports that are exposed, on ports that are free
    #[arg(long, short = 'P')]
    publish_all: bool,
    /// Note that the container listens on a port
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<HostEntry>,
    /// Ask this server for names; none leaves the image's /etc/resolv.conf
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Search names in this domain; . for none
    #[arg(long, value_name = "DOMAIN", value_parser = hosts::parse_domain)]
    dns_search: Vec<String>,
    /// Option of the resolver
    #[arg(long, alias = "dns-opt", value_name = "OPTION", value_parser = hosts::parse_resolver_option)]
    dns_option: Vec<String>,
    /// Leave the image's /etc/hosts
    #[arg(long)]
    no_hosts: bool,
    /// Begin /etc/hosts with a file of the host's; none for nothing, image for the image's
    #[arg(long, value_name = "FILE")]
    hosts_file: Option<String>,
    /// Leave the image's /etc/hostname
    #[arg(long)]
    no_hostname: bool,
}

/// With whom it shares.
#[derive(Debug, Args)]
struct NamespaceArgs {
    /// Processes it sees: private, host, container:NAME, ns:PATH
    #[arg(long, value_name = "MODE", default_value = "")]
    pid: NamespaceMode,
    /// Shared memory and queues: shareable, private, none, host, container:NAME, ns:PATH
    #[arg(long, value_name = "MODE", default_value = "")]
    ipc: IpcMode,
    /// Host name: private, host, container:NAME, ns:PATH
    #[arg(long, value_name = "MODE", default_value = "")]
    uts: NamespaceMode,
    /// View of cgroups: private, host, container:NAME, ns:PATH
    #[arg(long, value_name = "MODE", default_value = "")]
    cgroupns: NamespaceMode,
    /// User ids: host, keep-id[:uid=,gid=], auto, nomap, container:NAME, ns:PATH
    #[arg(long, value_name = "MODE", default_value = "")]
    userns: UserMode,
}

impl ContainerArgs {
    /// Gives what shows a pull to the user.
    pub(super) fn bar(&self) -> Bar {
        Bar::new(self.general.quiet)
    }

    /// Gives what was asked for, with `command` for what followed the image.
    pub(super) fn into_options(self, engine: &Engine, command: Vec<String>) -> Result<RunOptions> {
        let Self { general, process, environment, files, security, limits, network, namespaces, supervision, refused } =
            self;
        refused.refuse()?;
        let mut options = RunOptions { command, ..RunOptions::default() };
        general.fill(&mut options)?;
        process.fill(&mut options)?;
        environment.fill(&mut options)?;
        files.fill(&mut options)?;
        security.fill(&mut options)?;
        limits.fill(&mut options)?;
        let names_network = !network.network.is_empty();
        network.fill(&mut options, engine)?;
        namespaces.fill(&mut options);
        if !names_network && !options.network.attachments().is_empty() {
            // What nobody asked for by name is no reason to fail.
            if let Some(reason) = connecting::default_is_out_of_reach(engine, &options.namespaces) {
                options.network = Network::None;
                super::report::note(&format!("the container has no network: {reason}"));
            }
        }
        supervision.fill(&mut options)?;
        Ok(options)
    }
}

impl GeneralArgs {
    fn fill(self, options: &mut RunOptions) -> Result<()> {
        let Self {
            rm,
            name,
            tty,
            interactive,
            attach,
            pull,
            quiet,
            platform,
            rootfs,
            label,
            label_file,
            annotation,
            cidfile,
            pidfile,
            help: _,
        } = self;
        let stdin = rustix::stdio::stdin();
        if tty && interactive && !rustix::termios::isatty(stdin) {
            return Err(Error::invalid("the input device is not a TTY").with_hint("leave out -t where no terminal is"));
        }
        let size = rustix::termios::tcgetwinsize(stdin).ok().filter(|_| tty);
        if let Some(path) = cidfile.as_deref().filter(|path| path.exists()) {
            return Err(Error::invalid(format!("container ID file found, {} exists", path.display()))
                .with_hint("remove it, if its container has ended"));
        }
        options.remove = rm;
        // An empty one is none, as with docker and podman: of scripts that have a variable there.
        options.name = name.filter(|name| !name.is_empty()).map(|name| name.parse()).transpose()?;
        options.terminal = tty;
        options.interactive = interactive;
        options.attached = attach;
        options.console_size = size.map(|size| (size.ws_row, size.ws_col));
        options.pull = pull;
        options.quiet = quiet;
        options.platform =
            platform.map(|text| Platform::parse(&text).map(|platform| platform.to_string())).transpose()?;
        options.is_rootfs = rootfs;
        for path in &label_file {
            options.labels.extend(read_file("label file", path, environment::parse_label_file)?);
        }
        options.labels.extend(label);
        options.annotations.extend(annotation);
        options.id_file = cidfile.map(std::path::absolute).transpose()?;
        options.pid_file = pidfile.map(std::path::absolute).transpose()?;
        Ok(())
    }
}

impl ProcessArgs {
    fn fill(self, options: &mut RunOptions) -> Result<()> {
        let Self {
            workdir,
            user,
            group_add,
            entrypoint,
            init,
            init_path,
            passwd_entry,
            group_entry,
            umask,
            tz,
            preserve_fds,
        } = self;
        options.working_directory = workdir;
        options.user = user;
        for group in &group_add {
            match group.as_str() {
                "keep-groups" => options.keeps_groups = true,
                name => options.additional_groups.push(Principal::group(name).context("group-add")?),
            }
        }
        if options.keeps_groups && !options.additional_groups.is_empty() {
            return Err(Error::invalid("group-add keep-groups: goes with no other group"));
        }
        options.entrypoint = entrypoint.as_deref().map(options::parse_entrypoint);
        if init_path.is_some() && !init {
            return Err(Error::invalid("init-path: goes with --init"));
        }
        options.init = init;
        options.init_path = init_path.map(std::path::absolute).transpose()?;
        (options.passwd_entry, options.group_entry) = (passwd_entry, group_entry);
        options.umask = umask;
        options.timezone = tz;
        options.preserved_fds = preserve_fds.unwrap_or(0);
        Ok(())
    }
}

impl EnvironmentArgs {
    fn fill(self, options: &mut RunOptions) -> Result<()> {
        let Self { env, env_file, env_merge, env_host, unsetenv, unsetenv_all, http_proxy } = self;
        let asked = &mut options.environment;
        for path in &env_file {
            asked.entries.extend(read_file("environment file", path, environment::parse_file)?);
        }
        asked.entries.extend(env);
        asked.merged = env_merge;
        asked.takes_callers = env_host;
        asked.unset = unsetenv;
        asked.unsets_all = unsetenv_all;
        asked.lacks_proxies = http_proxy == Some(false);
        Ok(())
    }
}

impl FileArgs {
    fn fill(self, options: &mut RunOptions) -> Result<()> {
        let Self { volume, mount, tmpfs, volumes_from, image_volume, secret, read_only, read_only_tmpfs } = self;
        options.secrets = secret;
        options.volumes = volume;
        options.tmpfs = tmpfs;
        for request in mount {
            match request {
                MountRequest::Volume(volume) => options.volumes.push(*volume),
                MountRequest::Tmpfs(tmpfs) => options.tmpfs.push(tmpfs),
            }
        }
        let here = std::env::current_dir()?;
        for volume in &mut options.volumes {
            volume.resolve_source(&here);
            volume.check_source()?;
        }
        options.volumes_from = volumes_from;
        options.image_volumes = image_volume;
        options.read_only = read_only;
        options.read_only_tmpfs = read_only_tmpfs;
        Ok(())
    }
}

impl NetworkArgs {
    fn fill(self, options: &mut RunOptions, engine: &Engine) -> Result<()> {
        let Self {
            hostname,
            domainname,
            network,
            ip,
            ip6,
            mac_address,
            network_alias,
            egress,
            publish,
            publish_all,
            expose,
            add_host,
            dns,
            dns_search,
            dns_option,
            no_hosts,
            hosts_file,
            no_hostname,
        } = self;
        options.hostname = hostname;
        options.domainname = domainname;
        let alone = Alone { ip, ip6, mac: mac_address, aliases: network_alias };
        options.network = network::parse(&network, alone, engine.settings.network.into())?;
        options.egress = Policy::parse(&egress)?;
        for word in &publish {
            options.published.extend(ports::parse_published(word)?);
        }
        ports::check_published(&options.published)?;
        options.publish_all = publish_all;
        for word in &expose {
            ports::parse_exposed(word)?;
        }
        options.exposed = expose;
        let asked = &mut options.hosts;
        asked.keeps_resolver = dns == ["none"];
        asked.added = add_host;
        asked.servers = if asked.keeps_resolver { Vec::new() } else { parse_servers(&dns)? };
        asked.search = dns_search;
        asked.options = dns_option;
        asked.keeps_hostname = no_hostname;
        asked.hosts = match hosts_file.as_deref() {
            _ if no_hosts => HostsSource::Image,
            None | Some("none") => HostsSource::Made,
            Some("image") => HostsSource::Image,
            Some(path) => HostsSource::File(std::path::absolute(path)?),
        };
        if asked.hosts == HostsSource::Image && !asked.added.is_empty() {
            return Err(Error::invalid("add-host: cannot be given where the image's /etc/hosts stays"));
        }
        Ok(())
    }
}

impl NamespaceArgs {
    fn fill(self, options: &mut RunOptions) {
        let Self { pid, ipc, uts, cgroupns, userns } = self;
        let modes = &mut options.namespaces;
        (modes.pid, modes.ipc, modes.uts, modes.cgroup, modes.user) = (pid, ipc, uts, cgroupns, userns);
    }
}

fn parse_servers(words: &[String]) -> Result<Vec<IpAddr>> {
    let parse = |word: &String| word.parse().map_err(|_| Error::invalid(format!("dns {word:?}: not an IP address")));
    words.iter().map(parse).collect()
}

fn read_file<T>(what: &str, path: &Path, parse: impl Fn(&[u8]) -> Result<T>) -> Result<T> {
    let read = || {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, FILE_BYTES + 1), &mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES {
            return Err(Error::invalid(format!("larger than {FILE_BYTES} bytes")));
        }
        parse(&bytes)
    };
    read().with_context(|| format!("{what} {}", path.display()))
}
