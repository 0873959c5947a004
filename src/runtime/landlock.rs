//! Landlock for a container, by the annotation `org.husk.landlock`: what the workload may do with files, ports and what
//! is outside of it, beyond what its user, its capabilities and its mounts leave it.
//!
//! The annotation is a JSON object whose rights are the kernel's numbers (linux/landlock.h), so that a right of a newer
//! kernel needs no newer husk and no new word:
//!
//! ```json
//! {"abi": 4, "handledAccessFs": 65535, "handledAccessNet": 3, "scoped": 0, "restrictFlags": 0, "bestEffort": false,
//!  "rules": [{"path": "/", "allowedAccess": 13}, {"port": 443, "allowedAccess": 2}]}
//! ```
//!
//! What the kernel does not have is an error, unless `bestEffort` is set: then it is left out, with a warning. Paths are
//! the container's, looked up inside its root after the pivot. This file decides nothing but that; it knows no right.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;

use crate::error::{Context, Error, Result};
use crate::spec::load;
use crate::support::root::Root;
use crate::sys::landlock::{self, Handled};

/// The annotation that asks for it.
pub const ANNOTATION: &str = "org.husk.landlock";

/// What to restrict, checked against this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landlock {
    handled: Handled,
    /// Of landlock_restrict_self(2).
    pub(super) flags: u32,
    rules: Vec<Rule>,
    skips_missing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    object: Object,
    access: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Object {
    Path(PathBuf),
    Port(u16),
}

/// The annotation as it is written. A word that nobody knows is refused: it may be a right that was to be taken away.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(default)]
    abi: u32,
    #[serde(default)]
    handled_access_fs: u64,
    #[serde(default)]
    handled_access_net: u64,
    #[serde(default)]
    scoped: u64,
    #[serde(default)]
    restrict_flags: u32,
    #[serde(default)]
    best_effort: bool,
    #[serde(default)]
    rules: Vec<RuleDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleDocument {
    path: Option<PathBuf>,
    port: Option<u16>,
    allowed_access: u64,
}

/// Gives the version of Landlock that this kernel has, if any.
pub fn abi() -> Option<u32> {
    landlock::abi().ok()
}

/// Reads the annotation, if there is one, and holds it against the kernel.
pub(super) fn plan(text: Option<&str>, warnings: &mut Vec<String>) -> Result<Option<Landlock>> {
    let Some(text) = text else { return Ok(None) };
    let document = load::parse_json(text.as_bytes()).context(ANNOTATION)?;
    fit(document, &Kernel::of_this_machine(), warnings).context(ANNOTATION)
}

/// What is asked of the kernel, faked in tests.
struct Kernel {
    abi: Result<u32, Errno>,
    takes: fn(&Handled) -> Result<(), Errno>,
}

impl Kernel {
    fn of_this_machine() -> Self {
        Self { abi: landlock::abi(), takes: |handled| landlock::create_ruleset(handled).map(drop) }
    }
}

fn fit(document: Document, kernel: &Kernel, warnings: &mut Vec<String>) -> Result<Option<Landlock>> {
    let Document { abi, handled_access_fs, handled_access_net, scoped, restrict_flags, best_effort, rules } = document;
    let rules = rules.into_iter().enumerate().map(|(index, rule)| check(index, rule)).collect::<Result<Vec<_>>>()?;
    let asked = Handled { fs: handled_access_fs, net: handled_access_net, scoped };
    if asked == Handled::default() {
        return Err(Error::invalid("handles nothing: handledAccessFs, handledAccessNet and scoped are 0"));
    }
    let has = match kernel.abi {
        Ok(has) => has,
        Err(_) if best_effort => {
            warnings.push(format!("{ANNOTATION}: this kernel has no Landlock: nothing is restricted by it"));
            return Ok(None);
        }
        Err(errno) => return Err(explain_missing(errno)),
    };
    if abi > has && !best_effort {
        return Err(Error::unsupported(format!("abi: asks for Landlock {abi}, and this kernel has {has}")));
    }
    let handled = match (kernel.takes)(&asked) {
        Ok(()) => asked,
        Err(Errno::INVAL | Errno::TOOBIG) if best_effort => reduce(asked, kernel, warnings),
        Err(errno @ (Errno::INVAL | Errno::TOOBIG)) => {
            return Err(Error::from(errno)
                .context(format!("a handled right that this kernel's Landlock (ABI {has}) does not have"))
                .with_hint("\"bestEffort\": true leaves out what the kernel lacks"));
        }
        Err(errno) => return Err(errno).context("make a Landlock ruleset"),
    };
    if handled == Handled::default() {
        return Ok(None);
    }
    // Flags came with ABI 7; what a flag means to the log is no restriction.
    let flags = if best_effort && has < 7 { 0 } else { restrict_flags };
    Ok(Some(Landlock { handled, flags, rules: give_way(rules, asked, handled), skips_missing: best_effort }))
}

fn explain_missing(errno: Errno) -> Error {
    let hint = if errno == Errno::OPNOTSUPP {
        "it is built in and off: add landlock to the kernel's parameter lsm="
    } else {
        "Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK has it"
    };
    Error::unsupported("this kernel has no Landlock").with_hint(hint)
}

fn check(index: usize, rule: RuleDocument) -> Result<Rule> {
    let RuleDocument { path, port, allowed_access: access } = rule;
    let object = match (path, port) {
        (Some(path), None) if path.is_absolute() => Object::Path(path),
        (Some(path), None) => {
            return Err(Error::invalid(format!(
                "rules[{index}].path: {:?} is not an absolute path",
                path.to_string_lossy()
            )));
        }
        (None, Some(port)) => Object::Port(port),
        _ => return Err(Error::invalid(format!("rules[{index}]: needs either a path or a port"))),
    };
    Ok(Rule { object, access })
}

/// Leaves out what the kernel does not take, by asking for each right alone.
fn reduce(asked: Handled, kernel: &Kernel, warnings: &mut Vec<String>) -> Handled {
    let keep = |bits: u64, make: fn(u64) -> Handled| {
        let each = (0..u64::BITS).map(|bit| 1 << bit).filter(|bit| bits & bit != 0);
        each.filter(|bit| (kernel.takes)(&make(*bit)).is_ok()).fold(0, |all, bit| all | bit)
    };
    let kept = Handled {
        fs: keep(asked.fs, |fs| Handled { fs, ..Handled::default() }),
        net: keep(asked.net, |net| Handled { net, ..Handled::default() }),
        scoped: keep(asked.scoped, |scoped| Handled { scoped, ..Handled::default() }),
    };
    for (name, asked, kept) in [
        ("handledAccessFs", asked.fs, kept.fs),
        ("handledAccessNet", asked.net, kept.net),
        ("scoped", asked.scoped, kept.scoped),
    ] {
        if asked != kept {
            warnings
                .push(format!("{ANNOTATION}: {name}: {:#x} is not known to this kernel and left out", asked & !kept));
        }
    }
    kept
}

/// Takes out of the rules what is handled no more. What was never handled stays, for the kernel to refuse.
fn give_way(rules: Vec<Rule>, asked: Handled, handled: Handled) -> Vec<Rule> {
    let fit = |rule: Rule| {
        let lost = match rule.object {
            Object::Path(_) => asked.fs & !handled.fs,
            Object::Port(_) => asked.net & !handled.net,
        };
        let access = rule.access & !lost;
        (access != 0 || rule.access == 0).then_some(Rule { access, ..rule })
    };
    rules.into_iter().filter_map(fit).collect()
}

impl Landlock {
    /// Makes the ruleset, with the paths looked up inside the container's root.
    pub(super) fn make_ruleset(&self, root: &Root) -> Result<OwnedFd> {
        let ruleset = landlock::create_ruleset(&self.handled).context("make a Landlock ruleset").context(ANNOTATION)?;
        for (index, rule) in self.rules.iter().enumerate() {
            self.add(rule, &ruleset, root).with_context(|| format!("{ANNOTATION}: rules[{index}]"))?;
        }
        Ok(ruleset)
    }

    fn add(&self, rule: &Rule, ruleset: &OwnedFd, root: &Root) -> Result<()> {
        match &rule.object {
            Object::Port(port) => landlock::allow_port(ruleset.as_fd(), rule.access, u64::from(*port))
                .map_err(|errno| explain_rule(errno, Error::from(errno).context(format!("port {port}")))),
            Object::Path(path) => {
                let path_fd = match root.open_at(path, OFlags::PATH, Mode::empty()) {
                    Err(Errno::NOENT) if self.skips_missing => return Ok(()),
                    answer => answer.with_context(|| format!("open {} in the container", path.display()))?,
                };
                landlock::allow_path(ruleset.as_fd(), rule.access, path_fd.as_fd()).map_err(|errno| {
                    explain_rule(errno, Error::from(errno).context(format!("path {}", path.display())))
                })
            }
        }
    }
}

fn explain_rule(errno: Errno, error: Error) -> Error {
    match errno {
        Errno::INVAL => error
            .with_hint("allowedAccess has a right that is not handled, or one of directories on what is no directory"),
        Errno::NOMSG => error.with_hint("allowedAccess is 0: leave the rule out"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel with ABI 4: sixteen rights on files, two on ports, no scope.
    const FOUR: Kernel = Kernel {
        abi: Ok(4),
        takes: |handled| {
            if handled.fs >> 16 != 0 || handled.net >> 2 != 0 {
                Err(Errno::INVAL)
            } else if handled.scoped != 0 {
                Err(Errno::TOOBIG)
            } else {
                Ok(())
            }
        },
    };

    fn fit_text(text: &str, kernel: &Kernel) -> (Result<Option<Landlock>>, Vec<String>) {
        let mut warnings = Vec::new();
        let answer = load::parse_json(text.as_bytes()).and_then(|document| fit(document, kernel, &mut warnings));
        (answer, warnings)
    }

    #[test]
    fn what_the_kernel_has_is_planned_as_it_is() {
        let text = r#"{"abi": 4, "handledAccessFs": 65535, "handledAccessNet": 3, "restrictFlags": 1,
            "rules": [{"path": "/x", "allowedAccess": 4}, {"port": 443, "allowedAccess": 2}]}"#;
        let (plan, warnings) = fit_text(text, &FOUR);
        let plan = plan.unwrap().unwrap();
        assert_eq!(plan.handled, Handled { fs: 65535, net: 3, scoped: 0 });
        assert_eq!((plan.flags, plan.rules.len(), plan.skips_missing), (1, 2, false));
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_it_lacks_is_refused_or_left_out_aloud() {
        let body = r#""handledAccessFs": 4295032831, "handledAccessNet": 7, "scoped": 1,
            "rules": [{"path": "/x", "allowedAccess": 4294967300}, {"port": 1, "allowedAccess": 4}]"#;
        let (strict, _) = fit_text(&format!("{{{body}}}"), &FOUR);
        assert!(strict.unwrap_err().report().starts_with("a handled right that this kernel's Landlock (ABI 4)"));
        let (plan, warnings) = fit_text(&format!("{{\"bestEffort\": true, {body}}}"), &FOUR);
        let plan = plan.unwrap().unwrap();
        assert_eq!(plan.handled, Handled { fs: 65535, net: 3, scoped: 0 });
        assert_eq!(plan.rules, [Rule { object: Object::Path("/x".into()), access: 4 }]);
        assert_eq!(
            warnings,
            [
                "org.husk.landlock: handledAccessFs: 0x100000000 is not known to this kernel and left out",
                "org.husk.landlock: handledAccessNet: 0x4 is not known to this kernel and left out",
                "org.husk.landlock: scoped: 0x1 is not known to this kernel and left out",
            ]
        );
    }

    #[test]
    fn a_kernel_without_it_is_an_error_unless_told_otherwise() {
        for (errno, hint) in [(Errno::NOSYS, "Linux 5.13"), (Errno::OPNOTSUPP, "lsm=")] {
            let kernel = Kernel { abi: Err(errno), takes: |_| Err(Errno::NOSYS) };
            let (answer, _) = fit_text(r#"{"handledAccessFs": 4}"#, &kernel);
            let error = answer.unwrap_err();
            assert_eq!(error.report(), "this kernel has no Landlock");
            assert!(error.hint().unwrap().contains(hint));
            let (answer, warnings) = fit_text(r#"{"handledAccessFs": 4, "bestEffort": true}"#, &kernel);
            assert_eq!((answer.unwrap(), warnings.len()), (None, 1));
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("{}", "handles nothing: handledAccessFs"),
            (r#"{"handledAccessFS": 1}"#, "handledAccessFS: unknown field `handledAccessFS`"),
            (r#"{"handledAccessFs": -1}"#, "handledAccessFs: invalid value: integer `-1`"),
            (r#"{"handledAccessFs": "read"}"#, "handledAccessFs: invalid type: string"),
            (r#"{"abi": 5, "handledAccessFs": 1}"#, "abi: asks for Landlock 5, and this kernel has 4"),
            (r#"{"handledAccessFs": 1, "rules": [{"allowedAccess": 1}]}"#, "rules[0]: needs either a path or a port"),
            (
                r#"{"handledAccessFs": 1, "rules": [{"path": "/", "port": 1, "allowedAccess": 1}]}"#,
                "rules[0]: needs either a path or a port",
            ),
            (
                r#"{"handledAccessFs": 1, "rules": [{"path": "x", "allowedAccess": 1}]}"#,
                "rules[0].path: \"x\" is not an absolute path",
            ),
            (
                r#"{"handledAccessFs": 1, "rules": [{"port": 65536, "allowedAccess": 1}]}"#,
                "rules[0].port: invalid value",
            ),
            (r#"{"handledAccessFs": 1, "rules": [{"path": "/"}]}"#, "rules[0]: missing field `allowedAccess`"),
        ] {
            let report = fit_text(text, &FOUR).0.unwrap_err().report();
            assert!(report.starts_with(message), "{text}: {report}");
        }
    }
}
