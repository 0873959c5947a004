//! The engine's default profile, as data. Compiles nothing: it is written into config.json like any other profile.
//!
//! It follows Docker's: everything fails with EPERM but what is listed here; what needs a capability that the container
//! doesn't have stays closed even in a user namespace, where the capability would be had again. Beyond Docker's:
//! socketcall(2) is closed, since the address family behind its pointer can't be seen (CVE-2026-31431 and its kin reached
//! AF_ALG that way), and families are compared in all 64 bits, of which the kernel then drops the upper half.

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::abi::Abi;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Calls that act on what the caller has open, owns or may reach by its own rights.
const FILES: &str = "\
    _llseek _newselect access cachestat chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 \
    dup3 faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown \
    fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr file_getattr file_setattr flistxattr flock fremovexattr \
    fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents \
    getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown \
    lchown32 lgetxattr link linkat listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat \
    lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv \
    preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename \
    renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statmount \
    statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs tee truncate truncate64 umask unlink \
    unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev";

/// Waiting for descriptors, and asynchronous input and output. io_uring stays closed: it has had more holes than users.
const EVENTS: &str = "\
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
    eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit poll ppoll \
    ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4";

/// Sockets, once made; socket(2) itself is in [`SOCKET_FAMILIES`].
const SOCKETS: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 \
    recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair";

/// Memory of the caller. (userfaultfd stays closed: it stops the kernel in the middle of things.)
const MEMORY: &str = "\
    brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 \
    mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages";

/// Processes and threads, but for what makes namespaces: see [`default_profile`] for clone and clone3.
const PROCESSES: &str = "\
    arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area get_tls getcpu \
    getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid gettid ioprio_get ioprio_set kill \
    landlock_add_rule landlock_create_ruleset landlock_restrict_self modify_ldt pause pidfd_open pidfd_send_signal \
    prctl prlimit64 process_mrelease process_vm_readv process_vm_writev ptrace restart_syscall rseq rseq_slice_yield \
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address set_tls setpgid \
    setpriority setrlimit setsid sysinfo tgkill times tkill ugetrlimit uname uprobe uretprobe vfork wait4 waitid \
    waitpid";

/// Users and groups of the caller.
const IDENTITY: &str = "\
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid \
    getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 \
    setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32";

/// Signals.
const SIGNALS: &str = "\
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn";

/// Clocks and timers; setting the clock needs CAP_SYS_TIME, and adjtimex without it only reads.
const TIME: &str = "\
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete \
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
    timerfd_gettime64 timerfd_settime timerfd_settime64";

/// Talking between processes, and randomness.
const COMMUNICATION: &str = "\
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake getrandom ipc mq_getsetattr mq_notify mq_open \
    mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd \
    semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget";

/// What single machines need: arm without an instruction for it, riscv to learn what it can do.
const MACHINE: &str = "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush riscv_flush_icache riscv_hwprobe";

/// Calls for those who have a capability.
const WITH_CAPABILITY: &[(Capability, &str)] = &[
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listns lookup_dcookie lsm_get_self_attr \
         lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open \
         quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "perf_event_open"),
];

/// The address families that socket(2) may make, as first and last of a run (linux/socket.h).
///
/// Left out: AF_ALG (38), the kernel's ciphers, which nobody needs and CVE-2026-31431 did; AF_VSOCK (40), which goes to the
/// hypervisor whatever the network namespace (until Linux 7.0); families that kernels have dropped since (DECnet, Econet,
/// ATMSVC, IrDA, Wanpipe, ISDN, CAIF), whose modules an old kernel would load for anybody; and what comes after AF_MCTP.
const SOCKET_FAMILIES: &[(u64, u64)] = &[(0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

/// `CLONE_NEW*` in clone(2)'s flags: NS, CGROUP, UTS, IPC, USER, PID, NET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// personality(2): PER_LINUX and PER_LINUX32, each with or without UNAME26.
const PERSONALITIES: u64 = 0x0002_0008;
/// personality(2): tell, and change nothing.
const CURRENT_PERSONALITY: u64 = 0xffff_ffff;

/// Gives the default profile for a container whose bounding set is `capabilities`.
pub fn default_profile(capabilities: &Capabilities) -> LinuxSeccomp {
    let mut rules = Vec::with_capacity(64);
    let always = [FILES, EVENTS, SOCKETS, MEMORY, PROCESSES, IDENTITY, SIGNALS, TIME, COMMUNICATION, MACHINE];
    rules.push(allow(&always.join(" "), None));
    for (first, last) in SOCKET_FAMILIES {
        rules.extend(within(*first, *last).map(|test| allow("socket", Some(test))));
    }
    rules.push(refuse("socketcall", ENOSYS));
    rules.push(allow("personality", Some(test(LinuxSeccompOperator::ScmpCmpMaskedEq, !PERSONALITIES, 0))));
    rules.push(allow("personality", Some(test(LinuxSeccompOperator::ScmpCmpEq, CURRENT_PERSONALITY, 0))));
    for (capability, names) in WITH_CAPABILITY {
        if capabilities.contains(capability) {
            rules.push(allow(names, None));
        }
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        rules.push(allow("clone", Some(test(LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACE_FLAGS, 0))));
        // Its flags are behind a pointer. ENOSYS makes C libraries fall back to clone.
        rules.push(refuse("clone3", ENOSYS));
    }
    let architectures: Vec<Arch> = Abi::OF_THIS_MACHINE.iter().map(|abi| abi.to_oci()).collect();
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(architectures))
        .set_syscalls(Some(rules));
    profile
}

/// Gives tests that together hold for `first` to `last` and nothing else.
///
/// The comparisons of one rule can't look at one argument twice (see the module's documentation), so a run that doesn't
/// start at 0 is cut into aligned blocks, each of which is one masked comparison.
fn within(first: u64, last: u64) -> impl Iterator<Item = LinuxSeccompArg> {
    let mut next = first;
    std::iter::from_fn(move || {
        if next > last {
            return None;
        }
        if next == 0 {
            next = last + 1;
            return Some(test(LinuxSeccompOperator::ScmpCmpLe, last, 0));
        }
        let mut size = 1;
        while next.is_multiple_of(size * 2) && next + size * 2 - 1 <= last {
            size *= 2;
        }
        let block = test(LinuxSeccompOperator::ScmpCmpMaskedEq, !(size - 1), next);
        next += size;
        Some(block)
    })
}

/// Makes a test of the first argument.
fn test(operator: LinuxSeccompOperator, value: u64, value_two: u64) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default().index(0_usize).op(operator).value(value).value_two(value_two);
    argument.build().expect("every field has a value")
}

fn allow(names: &str, test: Option<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split(' ').map(ToOwned::to_owned).collect())
        .set_action(LinuxSeccompAction::ScmpActAllow)
        .set_args(test.map(|test| vec![test]));
    rule
}

fn refuse(names: &str, errno: u32) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.split(' ').map(ToOwned::to_owned).collect())
        .set_action(LinuxSeccompAction::ScmpActErrno)
        .set_errno_ret(Some(errno));
    rule
}

#[cfg(test)]
mod tests {
    use super::super::compile::compile_for;
    use super::super::model::{Call, number_of, run};
    use super::super::policy::UnknownNames;
    use super::super::table::Row;
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const REFUSED: u32 = 0x0005_0000 + EPERM;
    const UNKNOWN: u32 = 0x0005_0000 + ENOSYS;
    const X86: &[Abi] = &[Abi::X86_64, Abi::I386, Abi::X32];

    /// Decides a call of a container with no capability, on an x86 machine.
    fn decide(abi: Abi, name: &str, argument: u64) -> u32 {
        decide_with(&Capabilities::new(), abi, name, argument)
    }

    fn decide_with(capabilities: &Capabilities, abi: Abi, name: &str, argument: u64) -> u32 {
        let mut profile = default_profile(capabilities);
        profile.set_architectures(Some(X86.iter().map(|abi| abi.to_oci()).collect()));
        let program = compile_for(&profile, X86, UnknownNames::Skip).unwrap();
        let number = number_of(abi, name).unwrap();
        run(&program.filter, &Call { number, architecture: abi.audit_architecture(), arguments: [argument; 6] })
    }

    /// CVE-2026-31431, CVE-2026-112917, CVE-2026-123876: AF_ALG and AF_VSOCK, on every ABI and by every road.
    #[test]
    fn dangerous_socket_families_are_closed_everywhere() {
        let closed = [12, 19, 20, 23, 25, 34, 37, 38, 40];
        for abi in X86 {
            for family in 0..=255 {
                let expected = if closed.contains(&family) || family > 45 { REFUSED } else { ALLOW };
                assert_eq!(decide(*abi, "socket", family), expected, "{abi:?} socket({family})");
            }
            // The kernel drops the upper half of an int.
            for family in closed {
                assert_eq!(decide(*abi, "socket", family | 1 << 32), REFUSED, "{abi:?} socket({family} | 1 << 32)");
            }
        }
        for call in 0..25 {
            assert_eq!(decide(Abi::I386, "socketcall", call), UNKNOWN, "socketcall({call})");
        }
    }

    #[test]
    fn namespaces_need_a_capability() {
        for abi in X86 {
            for bit in 0..32 {
                let makes_namespace = NAMESPACE_FLAGS >> bit & 1 == 1;
                let expected = if makes_namespace { REFUSED } else { ALLOW };
                assert_eq!(decide(*abi, "clone", 1 << bit), expected, "{abi:?} clone(1 << {bit})");
            }
            assert_eq!(decide(*abi, "clone3", 0), UNKNOWN);
            assert_eq!(decide(*abi, "unshare", 0), REFUSED);
            let admin = Capabilities::from([Capability::SysAdmin]);
            for name in ["clone", "clone3", "unshare", "mount"] {
                assert_eq!(decide_with(&admin, *abi, name, NAMESPACE_FLAGS), ALLOW, "{abi:?} {name}");
            }
        }
    }

    #[test]
    fn only_plain_personalities_can_be_set() {
        for (value, expected) in [
            (0, ALLOW),
            (8, ALLOW),
            (0x20000, ALLOW),
            (0x20008, ALLOW),
            (0xffff_ffff, ALLOW),
            (0x0040_0000, REFUSED), // ADDR_NO_RANDOMIZE
            (9, REFUSED),
        ] {
            assert_eq!(decide(Abi::X86_64, "personality", value), expected, "personality({value:#x})");
        }
    }

    #[test]
    fn what_is_dangerous_is_closed_without_its_capability() {
        let names = "add_key bpf io_uring_setup kexec_load keyctl mount open_by_handle_at perf_event_open pivot_root \
            reboot request_key setns swapon unshare userfaultfd";
        for name in names.split(' ').filter(|name| !name.is_empty()) {
            assert_eq!(decide(Abi::X86_64, name, 0), REFUSED, "{name}");
        }
        for (capability, names) in WITH_CAPABILITY {
            let capabilities = Capabilities::from([*capability]);
            for name in names.split(' ').filter(|name| number_of(Abi::I386, name).is_some()) {
                assert_eq!(decide_with(&capabilities, Abi::I386, name, 0), ALLOW, "{name} with {capability}");
            }
        }
    }

    #[test]
    fn every_name_is_a_system_call() {
        for rule in default_profile(&WITH_CAPABILITY.iter().map(|(capability, _)| *capability).collect())
            .syscalls()
            .iter()
            .flatten()
        {
            for name in rule.names() {
                assert!(Row::find(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn a_run_is_covered_exactly() {
        for (first, last) in [(0, 0), (0, 11), (1, 1), (13, 18), (26, 33), (41, 45), (1, 62)] {
            let tests: Vec<_> = within(first, last).collect();
            for value in 0..70_u64 {
                let holds = tests.iter().any(|test| match test.op() {
                    LinuxSeccompOperator::ScmpCmpLe => value <= test.value(),
                    _ => value & test.value() == test.value_two().unwrap_or(0),
                });
                assert_eq!(holds, (first..=last).contains(&value), "{value} in {first}..={last}");
            }
        }
    }
}
