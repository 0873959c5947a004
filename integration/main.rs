//! End-to-end tests of the husk executable, and the harness that they stand on.
//!
//! This one executable has three faces: the suite (under `cargo test`), the probe that runs inside containers, and the
//! launcher that prepares a process before it becomes husk. Each test is a function that takes a [`support::Scene`];
//! a file holds the tests of one feature and lists them in its `tests()`.
//!
//! `HUSK=/usr/bin/runc` runs the tests of the OCI verbs against another runtime: the harness itself is proved so.

mod additional_stores;
mod annotations;
mod applications;
mod bad_bundle;
mod bad_image;
mod bind_flags;
mod boot;
mod callers;
mod capabilities;
mod cdi;
mod cgroups;
mod checkpoint;
mod completion;
mod connecting;
mod containers_files;
mod copy;
mod crowd;
mod descriptors;
mod devices;
mod dns;
mod doctor;
mod egress;
mod engines;
mod exec;
mod exec_cgroups;
mod exec_security;
mod exec_terminal;
mod executable;
mod happening;
mod hooks;
mod host;
mod identity;
mod image_config;
mod image_files;
mod image_mounts;
mod images;
mod init;
mod ipc;
mod kill;
mod labels;
mod landlock;
mod lifecycle;
mod limits;
mod logging;
mod login;
mod making;
mod mount_namespace;
mod mount_sharing;
mod mounts;
mod mounts_verb;
mod namespaces;
mod net_devices;
mod network_recovery;
mod network_storm;
mod networks;
mod notify;
mod orphans;
mod patience;
mod pivot;
mod policy;
mod probe;
mod process;
mod pull;
mod pull_limits;
mod push;
mod referrers;
mod registries;
mod rootless;
mod rootless_net;
mod routing;
mod run_flags;
mod search;
mod seccomp;
mod seccomp_notify;
mod secrets;
mod security;
mod security_cgroups;
mod security_identity;
mod security_mounts;
mod security_seccomp;
mod self_check;
mod shared_pids;
mod showing;
mod signals;
mod storm;
mod supervision;
mod support;
mod sweep;
mod terminal;
mod upkeep;
mod userns;
mod verbs;
mod volumes;
mod ways;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    if let Some(arguments) = probe::arguments(&argv) {
        return probe::main(arguments);
    }
    if let Some(arguments) = support::launch::arguments(&argv) {
        return support::launch::main(arguments);
    }
    support::suite::main(tests)
}

fn tests() -> Vec<support::Test> {
    [
        self_check::tests,
        namespaces::tests,
        identity::tests,
        capabilities::tests,
        labels::tests,
        lifecycle::tests,
        orphans::tests,
        patience::tests,
        storm::tests,
        supervision::tests,
        limits::tests,
        additional_stores::tests,
        annotations::tests,
        applications::tests,
        landlock::tests,
        process::tests,
        pull::tests,
        pull_limits::tests,
        push::tests,
        ways::tests,
        why::tests,
        doctor::tests,
        boot::tests,
        containers_files::tests,
        copy::tests,
        image_files::tests,
        mounts::tests,
        bind_flags::tests,
        mount_sharing::tests,
        mount_namespace::tests,
        dns::tests,
        net_devices::tests,
        network_recovery::tests,
        network_storm::tests,
        networks::tests,
        shared_pids::tests,
        showing::tests,
        happening::tests,
        mounts_verb::tests,
        security_mounts::tests,
        devices::tests,
        search::tests,
        seccomp::tests,
        seccomp_notify::tests,
        signals::tests,
        terminal::tests,
        verbs::tests,
        making::tests,
        callers::tests,
        hooks::tests,
        descriptors::tests,
        notify::tests,
        cgroups::tests,
        pivot::tests,
        rootless::tests,
        rootless_net::tests,
        bad_bundle::tests,
        executable::tests,
        images::tests,
        image_config::tests,
        run_flags::tests,
        init::tests,
        secrets::tests,
        completion::tests,
        connecting::tests,
        egress::tests,
        routing::tests,
        userns::tests,
        cdi::tests,
        ipc::tests,
        image_mounts::tests,
        volumes::tests,
        host::tests,
        bad_image::tests,
        logging::tests,
        login::tests,
        policy::tests,
        referrers::tests,
        registries::tests,
        exec::tests,
        exec_terminal::tests,
        exec_cgroups::tests,
        exec_security::tests,
        kill::tests,
        sweep::tests,
        upkeep::tests,
        crowd::tests,
        security::tests,
        checkpoint::tests,
        engines::tests,
        security_cgroups::tests,
        security_identity::tests,
        security_seccomp::tests,
    ]
    .into_iter()
    .flat_map(|tests: fn() -> Vec<support::Test>| tests())
    .collect()
}
