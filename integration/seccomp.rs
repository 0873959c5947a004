//! System call filters: actions, arguments, error numbers, architectures.
//!
//! `alarm` (37) stands for any call: it takes one number, never fails, and the probe is gone before it rings.

use std::process::Stdio;

use serde_json::{Value, json};

use super::support::husk::read_host;
use super::support::{Bundle, Need, Scene, Test, Who, test};

pub(crate) fn tests() -> Vec<Test> {
    if cfg!(not(target_arch = "x86_64")) {
        return Vec::new(); // The numbers below are those of x86-64.
    }
    vec![
        test!(a_filter_is_installed).and_plain(),
        test!(error_numbers_are_each_rules_own).and_plain(),
        test!(a_default_error_number),
        test!(operators_compare_as_they_should).and_plain(),
        test!(numbers_have_64_bits),
        test!(all_arguments_must_match),
        test!(one_of_several_rules_must_match),
        test!(the_i386_entry_is_filtered_too),
        test!(an_unlisted_architecture_is_refused),
        test!(killing_actions_end_the_process),
        test!(log_lets_the_call_through),
        test!(a_trace_without_tracer_fails),
        test!(without_no_new_privileges).root(),
        test!(our_own_calls_need_not_be_allowed).and_plain().needs(Need::Husk),
        test!(nobody_keeps_what_the_filter_wanted).root().needs(Need::Husk),
        test!(without_capset_there_is_no_workload).and_plain().needs(Need::Husk),
        test!(hooks_inside_are_filtered).and_plain().needs(Need::Busybox),
        test!(unknown_names_are_ignored),
        test!(an_unknown_action_is_refused),
        test!(an_unknown_operator_is_refused).needs(Need::NotCrun),
        test!(an_unknown_architecture_is_refused).needs(Need::NotCrun),
        test!(an_allow_list_runs_a_program).and_plain(),
        test!(calls_newer_than_the_profile_are_unknown).needs(Need::NotCrun),
    ]
}

fn bundle_with(scene: &Scene, profile: Value) -> Bundle<'_> {
    let mut bundle = scene.bundle();
    bundle.config["linux"]["seccomp"] = profile;
    bundle
}

/// A profile that allows all but some rules, on x86-64 and i386.
#[expect(clippy::needless_pass_by_value, reason = "a literal at every call")]
fn rules(rules: Value) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": rules,
    })
}

fn a_filter_is_installed(scene: &Scene) {
    assert_eq!(scene.bundle().report()["seccomp"], 0);
    let profile = rules(json!([{ "names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }]));
    assert_eq!(bundle_with(scene, profile).report()["seccomp"], 2);
}

fn error_numbers_are_each_rules_own(scene: &Scene) {
    let mut bundle = bundle_with(
        scene,
        rules(json!([
            { "names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42 },
            { "names": ["getpgid", "getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 61 },
            { "names": ["times"], "action": "SCMP_ACT_ERRNO" },
        ])),
    );
    bundle.tries(["syscall:37:18", "syscall:121:0", "syscall:124:0", "syscall:100:0"]);
    let tries = bundle.report()["tries"].clone();
    assert_eq!(tries["syscall:37:18"], "ENOMSG");
    assert_eq!(tries["syscall:121:0"], "ENODATA");
    assert_eq!(tries["syscall:124:0"], "ENODATA");
    assert_eq!(tries["syscall:100:0"], "EPERM", "EPERM is the default");
}

fn a_default_error_number(scene: &Scene) {
    let mut profile = allow_list();
    profile["defaultErrnoRet"] = json!(43);
    let mut bundle = bundle_with(scene, profile);
    bundle.tries(["syscall:37:18"]);
    assert_eq!(bundle.report()["tries"]["syscall:37:18"], "EIDRM");
}

fn operators_compare_as_they_should(scene: &Scene) {
    // Operator, value, second value, numbers that match, numbers that don't.
    type Row = (&'static str, u64, u64, &'static [i64], &'static [i64]);
    let rows: [Row; 7] = [
        ("SCMP_CMP_NE", 5, 0, &[4, 6], &[5]),
        ("SCMP_CMP_LT", 5, 0, &[0, 4], &[5, 6]),
        ("SCMP_CMP_LE", 5, 0, &[4, 5], &[6]),
        ("SCMP_CMP_EQ", 5, 0, &[5], &[4, 6, 0]),
        ("SCMP_CMP_GE", 5, 0, &[5, 6], &[4]),
        ("SCMP_CMP_GT", 5, 0, &[6, 100], &[5, 4]),
        ("SCMP_CMP_MASKED_EQ", 0o70, 0o20, &[0o20, 0o27, 0o120], &[0o30, 0o7, 0]),
    ];
    for (operator, value, second, matching, others) in rows {
        let argument = json!({ "index": 0, "value": value, "valueTwo": second, "op": operator });
        let rule = json!({ "names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42, "args": [argument] });
        let mut bundle = bundle_with(scene, rules(json!([rule])));
        let call = |number: &i64| format!("syscall:37:{number}");
        bundle.tries(matching.iter().chain(others).map(call).collect::<Vec<_>>().iter().map(String::as_str));
        let report = bundle.report();
        for number in matching {
            assert_eq!(report["tries"][call(number)], "ENOMSG", "{operator} {value} must match {number}");
        }
        for number in others {
            assert_eq!(report["tries"][call(number)], "ok", "{operator} {value} must not match {number}");
        }
    }
}

/// A comparison of only the low halves would match 4294967301 as 5.
fn numbers_have_64_bits(scene: &Scene) {
    let high = 0x1_0000_0005_i64;
    let rule = |value: i64, operator: &str, error: u32| {
        let argument = json!({ "index": 0, "value": value, "op": operator });
        json!({ "names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": error, "args": [argument] })
    };
    let rows = [
        (rule(5, "SCMP_CMP_EQ", 42), [5, high, high + (1 << 32)], ["ENOMSG", "ok", "ok"]),
        (rule(high, "SCMP_CMP_EQ", 42), [5, high, high + (1 << 32)], ["ok", "ENOMSG", "ok"]),
        (rule(high, "SCMP_CMP_GT", 42), [high, high + 1, 0xffff_ffff], ["ok", "ENOMSG", "ok"]),
        (rule(high, "SCMP_CMP_LT", 42), [high, high - 1, 0xffff_ffff], ["ok", "ENOMSG", "ENOMSG"]),
    ];
    for (rule, numbers, expected) in rows {
        let calls = numbers.map(|number| format!("syscall:37:{number}"));
        let mut bundle = bundle_with(scene, rules(json!([rule.clone()])));
        bundle.tries(calls.iter().map(String::as_str));
        let tries = bundle.report()["tries"].clone();
        assert_eq!(calls.map(|call| tries[call].clone()), expected.map(Value::from), "{rule}");
    }
}

fn all_arguments_must_match(scene: &Scene) {
    let arguments = json!([
        { "index": 0, "value": 7, "op": "SCMP_CMP_EQ" },
        { "index": 1, "value": 8, "op": "SCMP_CMP_EQ" },
    ]);
    let rule = json!({ "names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42, "args": arguments });
    let mut bundle = bundle_with(scene, rules(json!([rule])));
    bundle.tries(["syscall:37:7:8", "syscall:37:7:9", "syscall:37:6:8"]);
    let expected = json!({ "syscall:37:7:8": "ENOMSG", "syscall:37:7:9": "ok", "syscall:37:6:8": "ok" });
    assert_eq!(bundle.report()["tries"], expected);
}

fn one_of_several_rules_must_match(scene: &Scene) {
    let rule = |value: u64| {
        json!({
            "names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42,
            "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }],
        })
    };
    let mut bundle = bundle_with(scene, rules(json!([rule(1), rule(2)])));
    bundle.tries(["syscall:37:1", "syscall:37:2", "syscall:37:3"]);
    let expected = json!({ "syscall:37:1": "ENOMSG", "syscall:37:2": "ENOMSG", "syscall:37:3": "ok" });
    assert_eq!(bundle.report()["tries"], expected);
}

/// alarm is 27 there; 37 is another call.
fn the_i386_entry_is_filtered_too(scene: &Scene) {
    let rule = json!({ "names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42 });
    let mut bundle = bundle_with(scene, rules(json!([rule])));
    bundle.tries(["syscall:37:18", "syscall32:27:18", "syscall32:20"]);
    let tries = bundle.report()["tries"].clone();
    assert_eq!(tries["syscall:37:18"], "ENOMSG");
    // A kernel without the entry answers otherwise for every call: then there is nothing to filter.
    if tries["syscall32:20"] == "ok" {
        assert_eq!(tries["syscall32:27:18"], "ENOMSG");
    }
}

fn an_unlisted_architecture_is_refused(scene: &Scene) {
    let mut profile = rules(json!([{ "names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42 }]));
    profile["architectures"] = json!(["SCMP_ARCH_X86_64"]);
    let mut bundle = bundle_with(scene, profile);
    bundle.tries(["syscall32:20"]);
    let outcome = bundle.run();
    if outcome.code() == 0 {
        let answer = outcome.report()["tries"]["syscall32:20"].clone();
        assert_ne!(answer, "ok", "a call of an architecture that the profile does not list went through");
    } else {
        outcome.exits_with(128 + 31);
    }
}

fn killing_actions_end_the_process(scene: &Scene) {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let mut bundle = bundle_with(scene, rules(json!([{ "names": ["times"], "action": action }])));
        bundle.tries(["syscall:100:0"]);
        let outcome = bundle.run();
        assert_eq!(outcome.code(), 128 + 31, "{action}");
    }
}

fn log_lets_the_call_through(scene: &Scene) {
    let mut bundle = bundle_with(scene, rules(json!([{ "names": ["times"], "action": "SCMP_ACT_LOG" }])));
    bundle.tries(["syscall:100:0"]);
    assert_eq!(bundle.report()["tries"]["syscall:100:0"], "ok");
}

fn a_trace_without_tracer_fails(scene: &Scene) {
    let mut bundle =
        bundle_with(scene, rules(json!([{ "names": ["times"], "action": "SCMP_ACT_TRACE", "errnoRet": 7 }])));
    bundle.tries(["syscall:100:0"]);
    assert_eq!(bundle.report()["tries"]["syscall:100:0"], "ENOSYS");
}

/// Without no_new_privs the filter goes in while the process still has CAP_SYS_ADMIN, before its user is changed: a
/// filter that forbids changing users must not come too early either.
fn without_no_new_privileges(scene: &Scene) {
    let rule = json!({ "names": ["alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42 });
    let mut bundle = bundle_with(scene, rules(json!([rule])));
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    bundle.tries(["syscall:37:18"]);
    let report = bundle.report();
    assert_eq!((&report["seccomp"], &report["no_new_privs"]), (&json!(2), &json!(false)));
    assert_eq!(report["tries"]["syscall:37:18"], "ENOMSG");
}

/// What husk makes on the way, with and without noNewPrivileges: behind the filter there is only the exec; and without,
/// the drop of the capability that the filter wanted.
fn our_own_calls_need_not_be_allowed(scene: &Scene) {
    let calls = "execveat memfd_create close_range openat2 open_tree move_mount mount_setattr fsopen fsconfig fspick mount \
        pivot_root chdir fchdir setsid setgroups setresuid setresgid seccomp sendmsg recvmsg socketpair clone clone3 \
        unshare setns keyctl fchown umask";
    let calls: Vec<&str> = calls.split_whitespace().collect();
    let may_be_other = scene.who == Who::Root;
    for (no_new_privileges, uid) in [(true, 0), (false, 0), (true, 1000), (false, 1000)] {
        if uid != 0 && !may_be_other {
            continue;
        }
        let profile = rules(json!([{ "names": calls, "action": "SCMP_ACT_KILL_PROCESS" }]));
        let mut bundle = bundle_with(scene, profile);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["process"]["user"] = json!({ "uid": uid, "gid": 0 });
        bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 100 }]);
        bundle.args(["/probe", "--quiet"]);
        bundle.run().success();
        bundle.args(["/probe", "--quiet", "--block"]);
        bundle.write();
        let verb = |words: &[&str]| scene.runtime().args(words).run().success();
        let mut create = scene.runtime();
        create.args(["create", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
        create.start_with(Stdio::null(), Stdio::null(), Stdio::null()).finish().success();
        verb(&["start", &bundle.id]);
        verb(&["exec", &bundle.id, "/probe", "--quiet"]);
        verb(&["delete", "--force", &bundle.id]);
    }
}

/// Without noNewPrivileges the filter wants CAP_SYS_ADMIN, and nobody but its loading has it: neither who waits for
/// `start`, nor the workload, whose sets are those of the configuration.
fn nobody_keeps_what_the_filter_wanted(scene: &Scene) {
    const STATUS: &str = "/proc/self/status";
    const SYS_ADMIN: u64 = 1 << 21;
    let sets = |status: &str| {
        let masks = status.lines().filter_map(|line| line.strip_prefix("Cap")?.split_once(":\t"));
        masks.map(|(name, mask)| (name.to_owned(), u64::from_str_radix(mask, 16).unwrap())).collect::<Vec<_>>()
    };
    for uid in [0, 1000] {
        let rule = json!({ "names": ["alarm"], "action": "SCMP_ACT_ERRNO" });
        let mut bundle = bundle_with(scene, rules(json!([rule])));
        bundle.config["process"]["user"] = json!({ "uid": uid, "gid": 0 });
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            bundle.config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_CHOWN"]);
        }
        bundle.probe(["--read", STATUS]);
        let seen = [true, false].map(|no_new_privileges| {
            bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            sets(bundle.report()["reads"][STATUS].as_str().unwrap())
        });
        assert_eq!(
            seen[1],
            [("Inh", 33), ("Prm", 33), ("Eff", 33), ("Bnd", 33), ("Amb", 33)].map(|(n, m)| (n.to_owned(), m))
        );
        assert_eq!(seen[0], seen[1]);
        bundle.write();
        let mut create = scene.runtime();
        create.args(["create", "--bundle"]).arg(&bundle.directory).arg(&bundle.id);
        create.start_with(Stdio::null(), Stdio::null(), Stdio::null()).finish().success();
        let state = scene.runtime().args(["state", &bundle.id]).run().success().stdout;
        let state: Value = serde_json::from_str(&state).unwrap();
        let waiting = sets(&read_host(format!("/proc/{}/status", state["pid"])));
        scene.runtime().args(["delete", "--force", &bundle.id]).run().success();
        assert_eq!(waiting.len(), 5);
        assert!(waiting.iter().all(|(_, mask)| mask & SYS_ADMIN == 0), "{waiting:?}");
    }
}

/// Rather none than one with the capability that husk has kept for the filter.
fn without_capset_there_is_no_workload(scene: &Scene) {
    let rule = json!({ "names": ["capset"], "action": "SCMP_ACT_ERRNO" });
    let mut bundle = bundle_with(scene, rules(json!([rule])));
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    let outcome = bundle.run_as_husk().exits_with(1).says("drop capabilities: operation not permitted (EPERM)");
    assert_eq!(outcome.stdout, "");
    outcome.says("hint: without noNewPrivileges the seccomp profile must allow capset");
    bundle.config["process"]["noNewPrivileges"] = json!(true);
    assert_eq!(bundle.report()["seccomp"], 2);
}

/// startContainer is the last that happens before the workload, and inside.
fn hooks_inside_are_filtered(scene: &Scene) {
    for no_new_privileges in [true, false] {
        let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS" });
        let mut bundle = bundle_with(scene, rules(json!([rule])));
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
        let hook = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
        bundle.config["hooks"]["startContainer"] = hook("exec mkdir /dev/shm/x");
        // The words are runc's.
        bundle.run().exits_with(1).says("error running startContainer hook").says("bad system call");
        bundle.config["hooks"]["startContainer"] = hook("true");
        assert_eq!(bundle.report()["seccomp"], 2);
    }
}

/// Profiles name calls of kernels to come and of other architectures.
fn unknown_names_are_ignored(scene: &Scene) {
    let mut bundle = bundle_with(
        scene,
        rules(json!([{ "names": ["call_of_the_future", "alarm"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42 }])),
    );
    bundle.tries(["syscall:37:18"]);
    assert_eq!(bundle.report()["tries"]["syscall:37:18"], "ENOMSG");
}

fn an_unknown_action_is_refused(scene: &Scene) {
    let profile = rules(json!([{ "names": ["alarm"], "action": "SCMP_ACT_BLESS" }]));
    bundle_with(scene, profile).run().exits_with(1).says("SCMP_ACT_BLESS");
}

fn an_unknown_operator_is_refused(scene: &Scene) {
    let argument = json!({ "index": 0, "value": 1, "op": "SCMP_CMP_LIKE" });
    let profile = rules(json!([{ "names": ["alarm"], "action": "SCMP_ACT_ERRNO", "args": [argument] }]));
    bundle_with(scene, profile).run().exits_with(1).says("SCMP_CMP_LIKE");
}

fn an_unknown_architecture_is_refused(scene: &Scene) {
    let mut profile = rules(json!([{ "names": ["alarm"], "action": "SCMP_ACT_ERRNO" }]));
    profile["architectures"] = json!(["SCMP_ARCH_PDP11"]);
    bundle_with(scene, profile).run().exits_with(1).says("SCMP_ARCH_PDP11");
}

/// What the probe and its C library need, by name; alarm is not among them.
fn allow_list() -> Value {
    let names = "access arch_prctl brk capget clock_gettime clone close dup execve exit exit_group fcntl fstat futex \
        getcwd getdents64 getegid geteuid getgid getgroups getpgrp getpid getppid getrandom getresgid getresuid \
        getrlimit getsid getuid ioctl lseek lstat madvise mmap mprotect mremap munmap newfstatat open openat poll \
        ppoll prctl prlimit64 pread64 read readlink readlinkat rseq rt_sigaction rt_sigprocmask rt_sigreturn \
        sched_getaffinity set_robust_list set_tid_address sigaltstack stat statx sysinfo tgkill umask uname write writev \
        faccessat faccessat2 statfs fstatfs epoll_pwait nanosleep sched_yield capset setgid setgroups setuid chdir fchdir close_range";
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": names.split_whitespace().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW" }],
    })
}

fn an_allow_list_runs_a_program(scene: &Scene) {
    let mut bundle = bundle_with(scene, allow_list());
    bundle.tries(["syscall:37:18", "mkdir:/tmp/x", "syscall:165"]);
    let tries = bundle.report()["tries"].clone();
    assert_eq!(tries, json!({ "syscall:37:18": "EPERM", "mkdir:/tmp/x": "EPERM", "syscall:165": "EPERM" }));
}

/// Programs fall back when a call is unknown (ENOSYS) and give up when it is forbidden (EPERM): a call that is newer than
/// every name of the profile must look unknown.
fn calls_newer_than_the_profile_are_unknown(scene: &Scene) {
    let mut bundle = bundle_with(scene, allow_list());
    bundle.tries(["syscall:459", "syscall:165"]);
    assert_eq!(bundle.report()["tries"], json!({ "syscall:459": "ENOSYS", "syscall:165": "EPERM" }));
}
