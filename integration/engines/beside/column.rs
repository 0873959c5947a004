//! One engine's answers to the table: runs its lines in order, and makes alike what differs between any two runs. Compares
//! nothing.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::table::{Claim, Peer, Section};
use crate::support::Invocation;

/// In seconds: longer than any line takes on a busy machine.
const TIME_LIMIT: &str = "20";

/// What a line came to.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// An engine's turn at all lines, ready to be run by a thread of its own.
pub(super) struct Column {
    /// `None` for what this engine is not asked.
    commands: Vec<Option<Command>>,
}

impl Column {
    /// Prepares the lines. `shell` begins each: who runs it, where. `function` defines `e`; `peer` is `None` for husk.
    pub(super) fn prepare<'a>(
        sections: &[Section<'_>],
        peer: Option<Peer>,
        directory: &Path,
        function: &str,
        shell: impl Fn() -> Invocation<'a>,
    ) -> Self {
        let mut commands = Vec::new();
        for section in sections {
            let place = directory.join(peer.map_or("husk", Peer::name)).join(section.name);
            std::fs::create_dir_all(&place).expect("make a directory");
            for row in &section.rows {
                let is_asked = peer.is_none_or(|peer| !matches!(row.claim(peer), Claim::NotRun(_)));
                let script = format!("cd '{}' || exit; {function}\n{}", place.display(), row.line);
                let command = || {
                    let mut invocation = shell();
                    invocation.args(["-k", "1", TIME_LIMIT, "sh", "-c", &script]).env("i", super::IMAGE);
                    invocation.prepare()
                };
                commands.push(is_asked.then(command));
            }
        }
        Self { commands }
    }

    /// Runs the lines, one after the other.
    pub(super) fn answers(self) -> Vec<Option<Answer>> {
        self.commands.into_iter().map(|command| command.map(answer)).collect()
    }
}

fn answer(mut command: Command) -> Answer {
    let output = command.stdin(Stdio::null()).output().expect("start a shell");
    let status = output.status;
    Answer {
        status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
        stdout: alike(&String::from_utf8_lossy(&output.stdout)),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Writes ids as such, and several blanks as two.
fn alike(text: &str) -> String {
    let mut result = String::new();
    for line in text.split_inclusive('\n') {
        let mut blanks = 0;
        for word in line.split(' ') {
            if !word.is_empty() {
                result.push_str(&"  "[..blanks.min(2)]);
                hide_ids(word, &mut result);
                blanks = 0;
            }
            blanks += 1;
        }
    }
    result
}

/// Copies a word; hexadecimal digits, as many as an id has or its beginning, become `<id>`.
fn hide_ids(word: &str, result: &mut String) {
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        let is_id = matches!(run.len(), 12 | 64) && run.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        result.push_str(if is_id { "<id>" } else { run });
        let next = after.find(|letter: char| letter.is_ascii_alphanumeric()).unwrap_or(after.len());
        result.push_str(&after[..next]);
        rest = &after[next..];
    }
}
