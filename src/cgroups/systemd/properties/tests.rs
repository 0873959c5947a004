//! The table, row by row, from a limit in a file to a property; and device rules.

use oci_spec::runtime::LinuxDeviceCgroup;

use super::*;

/// A release that knows everything.
const NEW: u32 = 257;

fn nothing(_: &str) -> Option<String> {
    None
}

fn of(file: &'static str, value: &str, version: u32) -> Properties {
    limits(&mut [vec![Setting::new("x", file, value)]], version, &nothing).unwrap()
}

fn numbers(list: &[(&str, u64)]) -> Properties {
    list.iter().map(|(name, value)| ((*name).to_owned(), Value::Uint64(*value))).collect()
}

#[test]
fn numbers_go_over_as_they_are() {
    for (file, value, name, number) in [
        ("memory.min", "1", "MemoryMin", 1),
        ("memory.low", "4096", "MemoryLow", 4096),
        ("memory.high", "max", "MemoryHigh", INFINITY),
        ("memory.max", "67108864", "MemoryMax", 67_108_864),
        ("memory.swap.max", "0", "MemorySwapMax", 0),
        ("memory.zswap.max", "9", "MemoryZSwapMax", 9),
        ("memory.limit_in_bytes", "-1", "MemoryLimit", INFINITY),
        ("cpu.weight", "100", "CPUWeight", 100),
        ("cpu.idle", "1", "CPUWeight", 0),
        ("cpu.shares", "1024", "CPUShares", 1024),
        ("pids.max", "23", "TasksMax", 23),
        ("pids.max", "max", "TasksMax", INFINITY),
        ("pids.max", "0", "TasksMax", 1),
        ("blkio.weight", "500", "BlockIOWeight", 500),
        ("io.weight", "default 200", "IOWeight", 200),
        ("io.weight", "300", "IOWeight", 300),
        ("io.bfq.weight", "100", "IOWeight", 100),
        ("io.bfq.weight", "10", "IOWeight", 10),
        ("io.bfq.weight", "1000", "IOWeight", 10_000),
    ] {
        assert_eq!(of(file, value, NEW), numbers(&[(name, number)]), "{file} = {value}");
    }
}

#[test]
fn what_systemd_does_not_know_is_left_to_the_files() {
    for (file, value, version) in [
        ("hugetlb.2MB.max", "0", NEW),
        ("rdma.max", "mlx5_0 hca_handle=1", NEW),
        ("cpu.max.burst", "5", NEW),
        ("cpu.idle", "0", NEW),
        ("cpu.idle", "1", 251),
        ("memory.zswap.max", "1", 252),
        ("memory.oom.group", "1", 252),
        ("cpuset.cpus", "0", 243),
        ("cpuset.mems", "0", 243),
        ("devices.allow", "c 1:3 rwm", NEW),
        ("made.up", "x", NEW),
    ] {
        assert_eq!(of(file, value, version), [], "{file} = {value} before {version}");
    }
    assert_eq!(of("memory.oom.group", "1", 253), [("OOMPolicy".into(), Value::text("kill"))]);
}

#[test]
fn cpu_time_is_a_share_of_a_second_in_whole_percents() {
    let period = ("CPUQuotaPeriodUSec", 200_000);
    for (text, version, wanted, written) in [
        ("50000 200000", NEW, vec![period, ("CPUQuotaPerSecUSec", 250_000)], "50000 200000"),
        ("50000 200000", 241, vec![("CPUQuotaPerSecUSec", 250_000)], "50000 200000"),
        ("max 200000", NEW, vec![period, ("CPUQuotaPerSecUSec", INFINITY)], "max 200000"),
        ("max", NEW, vec![("CPUQuotaPerSecUSec", INFINITY)], "max"),
        // 1.234 percent becomes 2.
        ("1234", NEW, vec![("CPUQuotaPerSecUSec", 20_000)], "2000"),
        ("2468 200000", NEW, vec![period, ("CPUQuotaPerSecUSec", 20_000)], "4000 200000"),
        ("400000 200000", NEW, vec![period, ("CPUQuotaPerSecUSec", 2_000_000)], "400000 200000"),
    ] {
        let mut steps = [vec![Setting::new("cpu.quota", "cpu.max", text)]];
        assert_eq!(limits(&mut steps, version, &nothing).unwrap(), numbers(&wanted), "{text}");
        assert_eq!(steps[0][0].value, written, "{text}");
    }
    // What names the file is written as it stands.
    let mut steps = [vec![Setting::new("unified", "cpu.max", "1234")]];
    assert_eq!(limits(&mut steps, NEW, &nothing).unwrap(), numbers(&[("CPUQuotaPerSecUSec", 20_000)]));
    assert_eq!(steps[0][0].value, "1234");
}

#[test]
fn cpu_time_on_v1_is_in_two_files() {
    let setting = |file: &'static str, value: &str| Setting::new("cpu", file, value);
    let mut steps = [vec![setting("cpu.cfs_period_us", "200000"), setting("cpu.cfs_quota_us", "2468")]];
    let wanted = numbers(&[("CPUQuotaPeriodUSec", 200_000), ("CPUQuotaPerSecUSec", 20_000)]);
    assert_eq!(limits(&mut steps, NEW, &nothing).unwrap(), wanted);
    assert_eq!((&*steps[0][0].value, &*steps[0][1].value), ("200000", "4000"));
    let mut steps = [vec![setting("cpu.cfs_quota_us", "-1")]];
    assert_eq!(limits(&mut steps, NEW, &nothing).unwrap(), numbers(&[("CPUQuotaPerSecUSec", INFINITY)]));
    // The other half is in force already.
    let current = |file: &str| (file == "cpu.cfs_period_us").then(|| "50000".to_owned());
    let mut steps = [vec![setting("cpu.cfs_quota_us", "25000")]];
    assert_eq!(limits(&mut steps, NEW, &current).unwrap(), numbers(&[("CPUQuotaPerSecUSec", 500_000)]));
    let current = |file: &str| (file == "cpu.cfs_quota_us").then(|| "25000".to_owned());
    let mut steps = [vec![setting("cpu.cfs_period_us", "50000")]];
    let wanted = numbers(&[("CPUQuotaPeriodUSec", 50_000), ("CPUQuotaPerSecUSec", 500_000)]);
    assert_eq!(limits(&mut steps, NEW, &current).unwrap(), wanted);
}

#[test]
fn a_quota_alone_counts_on_the_period_in_force() {
    let current = |file: &str| (file == "cpu.max").then(|| "max 50000".to_owned());
    let mut steps = [vec![Setting::new("cpu.quota", "cpu.max", "25000")]];
    assert_eq!(limits(&mut steps, NEW, &current).unwrap(), numbers(&[("CPUQuotaPerSecUSec", 500_000)]));
    assert_eq!(steps[0][0].value, "25000");
}

#[test]
fn an_idle_group_has_no_other_weight() {
    let mut steps = [vec![Setting::new("cpu.shares", "cpu.weight", 50), Setting::new("cpu.idle", "cpu.idle", 1)]];
    assert_eq!(limits(&mut steps, NEW, &nothing).unwrap(), numbers(&[("CPUWeight", 0)]));
    assert_eq!(limits(&mut steps, 251, &nothing).unwrap(), numbers(&[("CPUWeight", 50)]));
}

#[test]
fn lists_of_cpus_become_masks() {
    for (text, wanted) in [
        ("0", vec![1]),
        ("0-2,7", vec![0b1000_0111]),
        (" 1 , 8-9 ,", vec![0b10, 0b11]),
        ("16", vec![0, 0, 1]),
        ("0-15", vec![255, 255]),
    ] {
        assert_eq!(of("cpuset.cpus", text, NEW), [("AllowedCPUs".into(), Value::bytes(wanted.clone()))], "{text}");
        assert_eq!(of("cpuset.mems", text, NEW), [("AllowedMemoryNodes".into(), Value::bytes(wanted))], "{text}");
    }
    for text in ["", "x", "3-1", "1-", "-1", "99999999"] {
        let mut steps = [vec![Setting::new("cpu.cpus", "cpuset.cpus", text)]];
        let error = limits(&mut steps, NEW, &nothing).unwrap_err();
        assert!(error.report().starts_with("linux.resources.cpu.cpus: cpuset.cpus: "), "{text}: {error:?}");
    }
}

#[test]
fn limits_of_devices_name_nodes() {
    let one = |name: &str, device: &str, value: u64| (name.to_owned(), by_device(device, value));
    for (file, text, wanted) in [
        (
            "io.max",
            "8:0 rbps=1 wiops=max",
            vec![one("IOReadBandwidthMax", "8:0", 1), one("IOWriteIOPSMax", "8:0", INFINITY)],
        ),
        (
            "io.max",
            "8:0 wbps=5\n8:16 riops=7",
            vec![one("IOWriteBandwidthMax", "8:0", 5), one("IOReadIOPSMax", "8:16", 7)],
        ),
        (
            "io.weight",
            "default 50\n8:0 70",
            vec![("IOWeight".into(), Value::Uint64(50)), one("IODeviceWeight", "8:0", 70)],
        ),
        ("io.bfq.weight", "8:0 1000", vec![one("IODeviceWeight", "8:0", 10_000)]),
        ("blkio.throttle.read_bps_device", "8:0 9", vec![one("BlockIOReadBandwidth", "8:0", 9)]),
        ("blkio.throttle.write_bps_device", "8:0 9", vec![one("BlockIOWriteBandwidth", "8:0", 9)]),
    ] {
        assert_eq!(of(file, text, NEW), wanted, "{file}: {text}");
    }
    let pair = Value::Tuple(vec![Value::text("/dev/block/8:0"), Value::Uint64(9)]);
    assert_eq!(by_device("8:0", 9), Value::Array("(st)".into(), vec![pair]));
}

#[test]
fn what_is_no_number_is_named() {
    let error = limits(&mut [vec![Setting::new("unified", "memory.max", "lots")]], NEW, &nothing).unwrap_err();
    assert_eq!(error.report(), "linux.resources.unified: memory.max: `lots` is not a number");
}

fn rules(list: serde_json::Value) -> Rules {
    let entries: Vec<LinuxDeviceCgroup> = serde_json::from_value(list).unwrap();
    Rules::from_spec(&entries).unwrap()
}

fn allowed(properties: &Properties) -> (&str, Vec<(&str, &str)>) {
    let [(policy_name, policy), (allow_name, Value::Array(_, pairs))] = &properties[..] else {
        panic!("{properties:?}")
    };
    assert_eq!((&**policy_name, &**allow_name), ("DevicePolicy", "DeviceAllow"));
    let pairs = pairs.iter().map(|value| {
        let Value::Tuple(fields) = value else { panic!("{value:?}") };
        (fields[0].as_text().unwrap(), fields[1].as_text().unwrap())
    });
    (policy.as_text().unwrap(), pairs.collect())
}

#[test]
fn what_is_allowed_is_listed() {
    let rules = rules(serde_json::json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
        { "allow": true, "type": "b", "major": 8, "access": "r" },
    ]));
    let properties = devices(&rules, false);
    let (policy, list) = allowed(&properties);
    assert_eq!(policy, "strict");
    for entry in [
        ("/dev/char/10:229", "rw"),
        ("block-8", "r"),
        ("/dev/char/1:3", "rwm"),
        ("char-136", "rwm"),
        ("char-*", "m"),
        ("block-*", "m"),
    ] {
        assert!(list.contains(&entry), "{entry:?} in {list:?}");
    }
}

#[test]
fn what_systemd_can_not_say_is_left_to_the_filter() {
    let everything = serde_json::json!([{ "allow": true, "access": "rwm" }]);
    let all_but_one = serde_json::json!([{ "allow": true, "access": "rwm" }, { "allow": false, "type": "b", "major": 8, "access": "w" }]);
    let minor_alone = serde_json::json!([{ "allow": true, "type": "c", "minor": 5, "access": "r" }]);
    for list in [&everything, &all_but_one, &minor_alone] {
        assert_eq!(allowed(&devices(&rules(list.clone()), false)), ("auto", Vec::new()), "{list}");
    }
    let properties = devices(&rules(minor_alone), true);
    let (policy, list) = allowed(&properties);
    assert_eq!(policy, "strict");
    assert!(!list.is_empty() && list.iter().all(|(name, _)| !name.contains("*:")), "{list:?}");
}
