//! The five capability sets, value for value.
//!
//! What the process shows after exec follows capabilities(7): root gains the bounding and inheritable sets, anybody else
//! keeps the ambient set alone.

use serde_json::{Value, json};

use super::support::{Need, Scene, Test, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(sets_are_exact),
        test!(sets_of_a_single_id).and_plain(),
        test!(root_gains_nothing_without_new_privileges).and_plain(),
        test!(an_unknown_name_is_named).needs(Need::NotCrun),
        test!(no_new_privileges).and_plain(),
    ]
}

const KILL: u64 = 1 << 5;
const CHOWN: u64 = 1;
const NET_RAW: u64 = 1 << 13;

/// What is asked for, and what the kernel makes of it at exec: permitted = effective, inheritable, bounding, ambient.
struct Row {
    name: &'static str,
    uid: u32,
    bounding: &'static [&'static str],
    permitted: &'static [&'static str],
    inheritable: &'static [&'static str],
    ambient: &'static [&'static str],
    expected: [u64; 4],
}

const NONE: &[&str] = &[];
const TWO: &[&str] = &["CAP_CHOWN", "CAP_KILL"];

const ROWS: [Row; 7] = [
    Row {
        name: "none at all",
        uid: 0,
        bounding: NONE,
        permitted: NONE,
        inheritable: NONE,
        ambient: NONE,
        expected: [0, 0, 0, 0],
    },
    Row {
        name: "root has what is bounding",
        uid: 0,
        bounding: TWO,
        permitted: TWO,
        inheritable: NONE,
        ambient: NONE,
        expected: [CHOWN | KILL, 0, CHOWN | KILL, 0],
    },
    Row {
        name: "anybody else has none of it",
        uid: 1000,
        bounding: TWO,
        permitted: TWO,
        inheritable: NONE,
        ambient: NONE,
        expected: [0, 0, CHOWN | KILL, 0],
    },
    Row {
        name: "anybody else has what is ambient",
        uid: 1000,
        bounding: TWO,
        permitted: TWO,
        inheritable: &["CAP_KILL"],
        ambient: &["CAP_KILL"],
        expected: [KILL, KILL, CHOWN | KILL, KILL],
    },
    Row {
        name: "inheritable alone gives nothing",
        uid: 1000,
        bounding: TWO,
        permitted: TWO,
        inheritable: TWO,
        ambient: NONE,
        expected: [0, CHOWN | KILL, CHOWN | KILL, 0],
    },
    Row {
        name: "root with ambient",
        uid: 0,
        bounding: &["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        permitted: TWO,
        inheritable: &["CAP_KILL"],
        ambient: &["CAP_KILL"],
        expected: [CHOWN | KILL | NET_RAW, KILL, CHOWN | KILL | NET_RAW, 0],
    },
    Row {
        name: "bounding without permitted",
        uid: 1000,
        bounding: &["CAP_NET_RAW"],
        permitted: NONE,
        inheritable: NONE,
        ambient: NONE,
        expected: [0, 0, NET_RAW, 0],
    },
];

fn sets_are_exact(scene: &Scene) {
    for row in &ROWS {
        check(scene, row);
    }
}

fn sets_of_a_single_id(scene: &Scene) {
    for row in ROWS.iter().filter(|row| row.uid == 0) {
        check(scene, row);
    }
}

#[track_caller]
fn check(scene: &Scene, row: &Row) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["user"] = json!({ "uid": row.uid, "gid": row.uid });
    // With it, root would gain nothing at exec.
    bundle.config["process"]["noNewPrivileges"] = json!(false);
    bundle.config["process"]["capabilities"] = json!({
        "bounding": row.bounding,
        "permitted": row.permitted,
        "effective": row.permitted,
        "inheritable": row.inheritable,
        "ambient": row.ambient,
    });
    let found = &bundle.report()["caps"];
    let [permitted, inheritable, bounding, ambient] = row.expected.map(|mask| Value::from(format!("{mask:016x}")));
    let mut expected = json!({
        "permitted": permitted,
        "effective": permitted,
        "inheritable": inheritable,
        "bounding": bounding,
        "ambient": ambient,
    });
    // An exec by root clears the ambient set only when the file gives privileges; both are right by capabilities(7).
    if row.uid == 0 {
        expected["ambient"] = found["ambient"].clone();
        let asked = if row.ambient.is_empty() { 0 } else { KILL };
        let shown = u64::from_str_radix(found["ambient"].as_str().unwrap(), 16).unwrap();
        assert_eq!(shown & !asked, 0, "{}: ambient", row.name);
    }
    assert_eq!(*found, expected, "{}", row.name);
}

fn an_unknown_name_is_named(scene: &Scene) {
    let mut bundle = scene.bundle();
    for set in ["bounding", "permitted", "effective"] {
        bundle.config["process"]["capabilities"][set] = json!(["CAP_KILL", "CAP_BOGUS"]);
    }
    bundle.run().says("CAP_BOGUS");
}

fn root_gains_nothing_without_new_privileges(scene: &Scene) {
    let mut bundle = scene.bundle();
    bundle.config["process"]["noNewPrivileges"] = json!(true);
    bundle.config["process"]["capabilities"] = json!({ "bounding": TWO, "permitted": ["CAP_KILL"], "effective": NONE });
    let found = &bundle.report()["caps"];
    assert_eq!(
        (&found["permitted"], &found["bounding"]),
        (&json!(format!("{KILL:016x}")), &json!(format!("{:016x}", KILL | CHOWN)))
    );
}

fn no_new_privileges(scene: &Scene) {
    for wanted in [true, false] {
        let mut bundle = scene.bundle();
        bundle.config["process"]["noNewPrivileges"] = json!(wanted);
        assert_eq!(bundle.report()["no_new_privs"], wanted);
    }
}
