//! Which of its two faces the executable shows: by the name it is called by, and by the words after it.
//!
//! Under the plain name a runtime's verb is taken for what it is where nothing else could be meant:
//!
//! - after one of the runtime's global flags (`--root`, `--log`, …), which the engine does not have;
//! - its verbs that are no commands of the engine, bare as Podman and buildah call them: `state`, `delete`, `resume` …;
//! - those that the engine has too, such as `start` and `kill`, where a word after them is the id of a container in the
//!   runtime's state root: it wins over the engine's container of that name;
//! - `update` with `--resources`;
//! - `create` and `run` with `--bundle`;
//! - `exec` with `--process`;
//! - everything after `oci`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::oci::global;

/// What the executable is this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Face {
    /// An OCI runtime.
    Runtime {
        /// Whether the first word, `oci`, is not the runtime's.
        drop_first_word: bool,
        /// How it speaks.
        manners: Manners,
    },
    /// The engine.
    Engine,
}

/// Whose words a runtime uses where the peers differ and their callers look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    /// husk's own, close to runc's.
    Husk,
    Runc,
    Crun,
}

/// Names under which the executable is a runtime alone.
const RUNTIME_NAMES: [(&str, Manners); 3] =
    [("runc", Manners::Runc), ("husk-runc", Manners::Runc), ("crun", Manners::Crun)];

/// Global flags of the runtime that the engine does not have.
const RUNTIME_FLAGS: [&str; 9] = [
    "--root",
    "--log",
    "--log-format",
    "--log-level",
    "--debug",
    "--systemd-cgroup",
    "--rootless",
    "--cgroup-manager",
    "--criu",
];

/// Verbs of the runtime that its callers use without a flag before them.
const RUNTIME_VERBS: [&str; 13] = [
    "checkpoint",
    "delete",
    "events",
    "features",
    "kill",
    "list",
    "pause",
    "restore",
    "resume",
    "spec",
    "start",
    "state",
    "update",
];

/// Those of them that the engine has under the same name.
const SHARED_VERBS: [&str; 5] = ["events", "kill", "pause", "start", "update"];

/// Decides from the whole argument list.
pub(super) fn choose(args: &[OsString]) -> Face {
    decide(args, &SHARED_VERBS, &|id| global::default_root().open(id).is_ok())
}

/// Decides, given the shared verbs and who is a container of the runtime's.
fn decide(args: &[OsString], shared: &[&str], is_container: &dyn Fn(&str) -> bool) -> Face {
    let mut words = args.iter().map(OsString::as_os_str);
    let name = words.next().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    if let Some((_, manners)) = RUNTIME_NAMES.iter().find(|(known, _)| name == *known) {
        return Face::Runtime { drop_first_word: false, manners: *manners };
    }
    let runtime = Face::Runtime { drop_first_word: false, manners: Manners::Husk };
    let Some(first) = words.next() else { return Face::Engine };
    if first == "oci" {
        return Face::Runtime { drop_first_word: true, manners: Manners::Husk };
    }
    let is_flag = |word: &OsStr, flag: &str| {
        word.to_str()
            .is_some_and(|word| word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
    };
    if RUNTIME_FLAGS.iter().any(|flag| is_flag(first, flag)) {
        return runtime;
    }
    if RUNTIME_VERBS.iter().any(|verb| first == *verb) {
        let names_one =
            || words.clone().filter_map(OsStr::to_str).any(|word| !word.starts_with('-') && is_container(word));
        // A document of limits is the runtime's way alone.
        let has_document = first == "update" && words.clone().any(|word| word == "-r" || is_flag(word, "--resources"));
        let is_shared = shared.iter().any(|verb| first == *verb);
        return if !is_shared || has_document || names_one() { runtime } else { Face::Engine };
    }
    let is_bundle = |word: &OsStr| word == "-b" || is_flag(word, "--bundle");
    if (first == "create" || first == "run") && words.take_while(|word| *word != "--").any(is_bundle) {
        return runtime;
    }
    if first == "exec" && has_process(args[2..].iter().map(OsString::as_os_str)) {
        return runtime;
    }
    Face::Engine
}

/// Flags of `exec`, of the runtime's or the engine's, whose value may be the next word.
const EXEC_FLAGS_WITH_VALUES: [&str; 20] = [
    "--console-socket",
    "--pidfd-socket",
    "--cwd",
    "--env",
    "-e",
    "--user",
    "-u",
    "--additional-gids",
    "-g",
    "--pid-file",
    "--process-label",
    "--apparmor",
    "--cap",
    "-c",
    "--preserve-fds",
    "--cgroup",
    "--workdir",
    "-w",
    "--env-file",
    "--detach-keys",
];

/// Looks for `--process` among the flags of `exec`; what follows the container is the command's.
fn has_process<'a>(mut words: impl Iterator<Item = &'a OsStr>) -> bool {
    while let Some(word) = words.next() {
        let Some(word) = word.to_str().filter(|word| word.starts_with('-')) else { return false };
        if word == "-p" || word == "--process" || word.starts_with("--process=") {
            return true;
        }
        if EXEC_FLAGS_WITH_VALUES.contains(&word) {
            words.next();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faces() {
        const RUNTIME: Face = Face::Runtime { drop_first_word: false, manners: Manners::Husk };
        const RUNC: Face = Face::Runtime { drop_first_word: false, manners: Manners::Runc };
        const CRUN: Face = Face::Runtime { drop_first_word: false, manners: Manners::Crun };
        for (line, face) in [
            ("runc run x", RUNC),
            ("/usr/bin/husk-runc --version", RUNC),
            ("crun list", CRUN),
            ("husk", Face::Engine),
            ("husk --version", Face::Engine),
            ("husk run alpine", Face::Engine),
            ("husk oci run x", Face::Runtime { drop_first_word: true, manners: Manners::Husk }),
            ("husk --root /r create x", RUNTIME),
            ("husk --root=/r state x", RUNTIME),
            ("husk --rooted", Face::Engine),
            ("husk run --bundle /b x", RUNTIME),
            ("husk run -b /b x", RUNTIME),
            ("husk run --rm host: -- sh -b", Face::Engine),
            ("husk create --bundle=/b x", RUNTIME),
            ("husk state x", RUNTIME),
            ("husk pause x", Face::Engine),
            ("husk resume x", RUNTIME),
            ("husk update --resources=/f x", RUNTIME),
            ("husk update -m 64m x", Face::Engine),
            ("husk events --since 1h", Face::Engine),
            ("husk features", RUNTIME),
            ("husk checkpoint --help", RUNTIME),
            ("husk restore --lsm-mount-context", RUNTIME),
            ("husk kill x", Face::Engine),
            ("husk delete --force x", RUNTIME),
            ("husk start x", Face::Engine),
            ("husk --debug create x", RUNTIME),
            ("husk ps", Face::Engine),
            ("husk exec --process /p --detach --pid-file /f x", RUNTIME),
            ("husk exec --pid-file /f --process /p --detach x", RUNTIME),
            ("husk exec --detach --process=/p x", RUNTIME),
            ("husk exec -d -p /p x", RUNTIME),
            ("husk exec web mkdir -p /x", Face::Engine),
            ("husk exec -it -e A=1 web mkdir --process /x", Face::Engine),
            ("husk exec --process-label x web true", Face::Engine),
            ("husk exec", Face::Engine),
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(choose(&args), face, "{line}");
        }
    }

    #[test]
    fn an_id_of_the_runtimes_wins() {
        const RUNTIME: Face = Face::Runtime { drop_first_word: false, manners: Manners::Husk };
        for (line, face) in [
            ("husk start known", RUNTIME),
            ("husk start web", Face::Engine),
            ("husk kill known 9", RUNTIME),
            ("husk kill --all known 9", RUNTIME),
            ("husk kill --signal 9 web", Face::Engine),
            ("husk state web", RUNTIME),
            ("husk delete --force web", RUNTIME),
            ("husk --root /r start web", RUNTIME),
            ("husk oci start web", Face::Runtime { drop_first_word: true, manners: Manners::Husk }),
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(decide(&args, &["start", "kill"], &|id| id == "known"), face, "{line}");
        }
    }
}
