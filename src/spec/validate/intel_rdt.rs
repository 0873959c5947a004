//! `linux.intelRdt`: a name is that of one directory, a schema is one line. What the machine has is the plan's to say.

use oci_spec::runtime::LinuxIntelRdt;

use super::bad;
use crate::error::Result;

/// Judges the section.
pub(super) fn check(wanted: &LinuxIntelRdt) -> Result<()> {
    if let Some(name) = wanted.clos_id()
        && (matches!(&name[..], "." | "..") || name.len() > 1 && name.contains('/') || name.contains('\0'))
    {
        // The words are runc's.
        return Err(bad("linux.intelRdt.closID", format_args!("invalid intelRdt.ClosID {name:?}")));
    }
    let fields = [
        ("l3CacheSchema", wanted.l3_cache_schema().as_slice(), ""),
        ("memBwSchema", wanted.mem_bw_schema().as_slice(), "MB:"),
        ("schemata", wanted.schemata().as_deref().unwrap_or_default(), ""),
    ];
    for (field, lines, prefix) in fields {
        for line in lines.iter().filter(|line| !line.is_empty()) {
            if line.contains('\n') {
                return Err(bad(format_args!("linux.intelRdt.{field}"), format_args!("{line:?} is more than a line")));
            }
            if !line.starts_with(prefix) {
                let what = format_args!("{line:?} does not begin with {prefix:?}");
                return Err(bad(format_args!("linux.intelRdt.{field}"), what));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::refusal;

    #[test]
    fn names_and_lines_are_judged() {
        for (wanted, field) in [
            (json!({"closID": ".."}), "linux.intelRdt.closID"),
            (json!({"closID": "a/b"}), "linux.intelRdt.closID"),
            (json!({"closID": "/a"}), "linux.intelRdt.closID"),
            (json!({"memBwSchema": "L3:0=f"}), "linux.intelRdt.memBwSchema"),
            (json!({"l3CacheSchema": "L3:0=f\nMB:0=1"}), "linux.intelRdt.l3CacheSchema"),
            (json!({"schemata": ["L3:0=f\n"]}), "linux.intelRdt.schemata"),
        ] {
            let report = refusal("linux.intelRdt", &wanted);
            assert!(report.starts_with(field), "{report}");
        }
        for wanted in [json!({}), json!({"closID": "/"}), json!({"closID": "gold", "enableMonitoring": true})] {
            assert_eq!(refusal("linux.intelRdt", &wanted), "");
        }
    }
}
