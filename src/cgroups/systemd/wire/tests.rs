//! Against messages that systemd 252's own client and dbus-daemon exchanged (`busctl capture`).

use proptest::prelude::*;

use super::*;

const START: &[u8] = include_bytes!("../recorded/start_transient_unit.bin");
const GET_VERSION: &[u8] = include_bytes!("../recorded/get_version.bin");
const VERSION: &[u8] = include_bytes!("../recorded/version.bin");
const JOB: &[u8] = include_bytes!("../recorded/job.bin");
const JOB_REMOVED: &[u8] = include_bytes!("../recorded/job_removed.bin");
const UNIT_EXISTS: &[u8] = include_bytes!("../recorded/unit_exists.bin");

const MANAGER: &str = "org.freedesktop.systemd1.Manager";

fn pairs(pairs: &[(&str, &str)]) -> Value {
    let tuple = |(a, b): &(&str, &str)| Value::Tuple(vec![Value::text(*a), Value::text(*b)]);
    Value::Array("(ss)".into(), pairs.iter().map(tuple).collect())
}

fn start_body(pid: u32) -> Vec<Value> {
    let properties = [
        ("Description".to_owned(), Value::text("libcontainer container x")),
        ("Delegate".to_owned(), Value::Bool(true)),
        ("PIDs".to_owned(), Value::Array("u".into(), vec![Value::Uint32(pid)])),
        ("MemoryMax".to_owned(), Value::Uint64(67_108_864)),
        ("DeviceAllow".to_owned(), pairs(&[("/dev/char/1:3", "rwm"), ("char-136", "rw")])),
        ("AllowedCPUs".to_owned(), Value::bytes([1])),
    ];
    vec![
        Value::text("rec-1.scope"),
        Value::text("fail"),
        Value::properties(&properties),
        Value::Array("(sa(sv))".into(), Vec::new()),
    ]
}

/// The pid that was recorded.
fn recorded_pid() -> u32 {
    let Value::Array(_, properties) = &Incoming::decode(START).unwrap().body[2] else { panic!() };
    let Value::Tuple(fields) = &properties[2] else { panic!() };
    let Value::Variant(value) = &fields[1] else { panic!() };
    let Value::Array(_, pids) = &**value else { panic!() };
    let [Value::Uint32(pid)] = pids[..] else { panic!() };
    pid
}

#[test]
fn a_call_with_a_body_of_every_shape_is_read_and_written_as_recorded() {
    let message = Incoming::decode(START).unwrap();
    assert_eq!((message.kind, &*message.member), (Kind::Call, "StartTransientUnit"));
    let body = start_body(recorded_pid());
    assert_eq!(message.body, body);
    let call = Call {
        destination: Some("org.freedesktop.systemd1"),
        path: "/org/freedesktop/systemd1",
        interface: MANAGER,
        member: "StartTransientUnit",
        body: &body,
    };
    let ours = call.encode(2).unwrap();
    let body_bytes = |message: &[u8]| {
        let length = u32::from_le_bytes(message[4..8].try_into().unwrap()) as usize;
        message[message.len() - length..].to_vec()
    };
    assert_eq!(body_bytes(&ours), body_bytes(START));
    assert_eq!(message_length(ours.first_chunk().unwrap()).unwrap(), ours.len());
    assert_eq!(message_length(START.first_chunk().unwrap()).unwrap(), START.len());
}

/// The recorded header has one field more, the sender, which the daemon adds behind the others.
#[test]
fn a_header_is_written_as_recorded() {
    let body = [Value::text(MANAGER), Value::text("Version")];
    let call = Call {
        destination: Some("org.freedesktop.systemd1"),
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.DBus.Properties",
        member: "Get",
        body: &body,
    };
    let ours = call.encode(2).unwrap();
    let fields = u32::from_le_bytes(ours[12..16].try_into().unwrap()) as usize;
    assert_eq!(ours[..12], GET_VERSION[..12]);
    assert_eq!(ours[16..16 + fields], GET_VERSION[16..16 + fields]);
}

#[test]
fn answers_failures_and_signals_are_told_apart() {
    let version = Incoming::decode(VERSION).unwrap();
    assert_eq!((version.kind, version.answers), (Kind::Answer, Some(2)));
    assert_eq!(version.body[0].as_text(), Some("252.39-1~deb12u2"));
    let job = Incoming::decode(JOB).unwrap();
    assert_eq!(job.body, [Value::Path("/org/freedesktop/systemd1/job/336".into())]);
    let removed = Incoming::decode(JOB_REMOVED).unwrap();
    assert_eq!((removed.kind, &*removed.member), (Kind::Signal, "JobRemoved"));
    assert_eq!(removed.body[1..], [job.body[0].clone(), Value::text("rec-1.scope"), Value::text("done")]);
    let failure = Incoming::decode(UNIT_EXISTS).unwrap();
    assert_eq!((failure.kind, failure.answers), (Kind::Failure, Some(2)));
    assert_eq!(failure.error_name, "org.freedesktop.systemd1.UnitExists");
    assert_eq!(failure.body[0].as_text(), Some("Unit rec-1.scope was already loaded or has a fragment file."));
}

#[test]
fn a_message_that_is_cut_or_bent_is_an_error_and_no_more() {
    for recorded in [START, VERSION, JOB, JOB_REMOVED, UNIT_EXISTS] {
        for end in 0..recorded.len() {
            assert!(Incoming::decode(&recorded[..end]).is_err(), "cut at {end}");
        }
        for at in 0..recorded.len() {
            for value in [0, 1, b'a', b'(', b'v', 0x7f, 0xff] {
                let mut bent = recorded.to_vec();
                bent[at] = value;
                let _ = Incoming::decode(&bent);
            }
        }
    }
    let mut preamble = *START.first_chunk::<PREAMBLE_BYTES>().unwrap();
    preamble[4..8].fill(0xff);
    assert!(message_length(&preamble).is_err());
    preamble[0] = b'B';
    assert!(message_length(&preamble).is_err());
}

#[test]
fn signatures_are_split_into_complete_types() {
    for (signature, first) in
        [("sv", "s"), ("a(sv)u", "a(sv)"), ("aay", "aay"), ("(s(uu))b", "(s(uu))"), ("a{sv}", "a{sv}")]
    {
        assert_eq!(split_type(signature).unwrap().0, first, "{signature}");
    }
    for signature in ["a", "(s", ")", "aaa"] {
        assert!(split_type(signature).is_err(), "{signature}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut message = vec![b'l', 2, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0];
        message.extend(bytes);
        let _ = Incoming::decode(&message);
    }

    #[test]
    fn texts_and_numbers_come_back(text in "[a-z/.:\u{e9}]{0,20}", number in any::<u64>(), list in proptest::collection::vec(any::<u32>(), 0..4)) {
        let body = vec![
            Value::Byte(7),
            Value::text(text),
            Value::Tuple(vec![Value::Uint64(number), Value::Variant(Value::Bool(true).into())]),
            Value::Array("u".into(), list.into_iter().map(Value::Uint32).collect()),
            Value::Array("t".into(), Vec::new()),
            Value::Double(0.5),
        ];
        let call = Call { destination: None, path: "/", interface: "a.b", member: "C", body: &body };
        prop_assert_eq!(Incoming::decode(&call.encode(9).unwrap()).unwrap().body, body);
    }
}
