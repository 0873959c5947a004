//! Which of its two faces the executable shows: by the name it is called by, and by the words after it.
//!
//! Under the plain name a runtime's verb is taken for what it is where nothing else could be meant:
//!
//! - after one of the runtime's global flags (`--root`, `--log`, …), which the engine does not have;
//! - `state`, `delete`, `list`, `spec`, which are no commands of the engine, and `start` and `kill`, which are not yet;
//! - `create` and `run` with `--bundle`;
//! - `exec` with `--process`;
//! - everything after `oci`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// What the executable is this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Face {
    /// An OCI runtime.
    Runtime {
        /// Whether the first word, `oci`, is not the runtime's.
        drop_first_word: bool,
    },
    /// The engine.
    Engine,
}

/// Names under which the executable is a runtime alone.
const RUNTIME_NAMES: [&str; 3] = ["runc", "husk-runc", "crun"];

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

/// Verbs that are the runtime's alone.
const RUNTIME_VERBS: [&str; 6] = ["state", "delete", "list", "spec", "start", "kill"];

/// Decides from the whole argument list.
pub(super) fn choose(args: &[OsString]) -> Face {
    let mut words = args.iter().map(OsString::as_os_str);
    let name = words.next().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let runtime = Face::Runtime { drop_first_word: false };
    if RUNTIME_NAMES.iter().any(|known| name == *known) {
        return runtime;
    }
    let Some(first) = words.next() else { return Face::Engine };
    if first == "oci" {
        return Face::Runtime { drop_first_word: true };
    }
    let is_flag = |word: &OsStr, flag: &str| {
        word.to_str()
            .is_some_and(|word| word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
    };
    if RUNTIME_FLAGS.iter().any(|flag| is_flag(first, flag)) || RUNTIME_VERBS.iter().any(|verb| first == *verb) {
        return runtime;
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
        const RUNTIME: Face = Face::Runtime { drop_first_word: false };
        for (line, face) in [
            ("runc run x", RUNTIME),
            ("/usr/bin/husk-runc --version", RUNTIME),
            ("crun list", RUNTIME),
            ("husk", Face::Engine),
            ("husk --version", Face::Engine),
            ("husk run alpine", Face::Engine),
            ("husk oci run x", Face::Runtime { drop_first_word: true }),
            ("husk --root /r create x", RUNTIME),
            ("husk --root=/r state x", RUNTIME),
            ("husk --rooted", Face::Engine),
            ("husk run --bundle /b x", RUNTIME),
            ("husk run -b /b x", RUNTIME),
            ("husk run --rm host: -- sh -b", Face::Engine),
            ("husk create --bundle=/b x", RUNTIME),
            ("husk state x", RUNTIME),
            ("husk start x", RUNTIME),
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
}
