//! Runs commands under the stopwatch and gathers what it says. Knows no runtime.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Result;
use crate::cases::OTHER_CRUN_VARIABLE;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub nanoseconds: u64,
    /// The most memory that one of the processes had.
    pub kilobytes: u64,
    /// Nanoseconds of processor time.
    pub processor: u64,
    /// Bytes written to files on disks.
    pub written: u64,
}

/// A command line, the program first.
pub type CommandLine = Vec<String>;

/// What is run: commands that are timed together, and what stands around the whole series.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub before: Vec<CommandLine>,
    pub timed: Vec<CommandLine>,
    pub after: Vec<CommandLine>,
    /// What is added to the environment.
    pub environment: Vec<(String, String)>,
    /// Who runs it, as user and group; else root.
    pub user: Option<u32>,
}

/// How a series of runs is made.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// How long to rest before each.
    pub rest: Duration,
    pub times: u32,
    /// What `{n}` in the arguments becomes first.
    pub first: u32,
}

/// Carries a plan out, with what is timed again and again.
pub fn time(stopwatch: &Path, plan: &Plan, series: Series) -> Result<Vec<Sample>> {
    let run = |words: &CommandLine| run(words, plan);
    let prepared = plan.before.iter().try_for_each(run);
    let samples = prepared.and_then(|()| time_commands(stopwatch, plan, series));
    let cleared = plan.after.iter().map(run).fold(Ok(()), Result::and);
    let samples = samples?;
    cleared.map(|()| samples)
}

/// Runs a command as a plan has it, whose output nobody reads.
pub fn run(words: &CommandLine, plan: &Plan) -> Result<()> {
    // No pipe: a container that stays would keep it open.
    let null = Stdio::null;
    let mut command = program(words[0].as_ref(), plan);
    command.args(&words[1..]);
    let mut errors = tempfile::tempfile()?;
    let status = command.stdin(null()).stdout(null()).stderr(errors.try_clone()?).status()?;
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    errors.seek(SeekFrom::Start(0))?;
    errors.read_to_end(&mut text)?;
    Err(format!("{}: {status}: {}", words.join(" "), String::from_utf8_lossy(&text).trim()).into())
}

/// Runs a command as a plan has it, and gives what it says.
pub fn read(words: &CommandLine, plan: &Plan) -> Result<String> {
    let output = program(words[0].as_ref(), plan).args(&words[1..]).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}: {}", words.join(" "), output.status, errors.trim()).into())
}

fn program(path: &Path, plan: &Plan) -> Command {
    let mut command = Command::new(path);
    command.env_remove(OTHER_CRUN_VARIABLE).envs(plan.environment.iter().cloned());
    if let Some(user) = plan.user {
        command.uid(user).gid(user);
    }
    command
}

fn time_commands(stopwatch: &Path, plan: &Plan, series: Series) -> Result<Vec<Sample>> {
    let mut command = program(stopwatch, plan);
    command.args([series.rest.as_micros().to_string(), series.times.to_string(), series.first.to_string()]);
    command.args(plan.timed.join(&"+".to_owned()));
    // To a file: a container that a failed run leaves behind would keep a pipe open.
    let mut errors = tempfile::tempfile()?;
    let output = command.stdin(Stdio::null()).stderr(errors.try_clone()?).output()?;
    if !output.status.success() {
        let mut text = Vec::new();
        errors.seek(SeekFrom::Start(0))?;
        errors.read_to_end(&mut text)?;
        let errors = String::from_utf8_lossy(&text);
        let first = errors.lines().find(|line| !line.is_empty()).unwrap_or("no message");
        return Err(format!("{first} ({})", output.status).into());
    }
    let lines = String::from_utf8(output.stdout)?;
    let samples = lines.lines().map(|line| -> Result<Sample> {
        let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        let [nanoseconds, kilobytes, processor, written] = numbers[..] else {
            return Err("the stopwatch prints four numbers".into());
        };
        Ok(Sample { nanoseconds, kilobytes, processor, written })
    });
    samples.collect()
}

/// What a process weighs while its container runs, in kilobytes.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    /// VmHWM: the most that was ever resident.
    pub peak: u64,
    /// The proportional share of what is resident now.
    pub proportional: u64,
}

/// Runs a container whose payload waits, and weighs the process that was started.
pub fn weigh(arguments: &CommandLine) -> Result<Weight> {
    let mut child = Command::new(&arguments[0])
        .args(&arguments[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut output = child.stdout.take().ok_or("stdout is piped")?;
    // The payload's first byte: everything is set up, and the runtime only waits.
    let started = output.read(&mut [0; 1]);
    let process = format!("/proc/{}", child.id());
    let weight = || -> Result<Weight> {
        Ok(Weight {
            peak: kilobytes(&std::fs::read_to_string(format!("{process}/status"))?, "VmHWM:")?,
            proportional: kilobytes(&std::fs::read_to_string(format!("{process}/smaps_rollup"))?, "Pss:")?,
        })
    };
    let weight = weight();
    // The payload ends with its input.
    drop(child.stdin.take());
    let finished = child.wait_with_output()?;
    if started? == 0 || !finished.status.success() {
        let errors = String::from_utf8_lossy(&finished.stderr);
        return Err(format!("{} ({})", errors.lines().next().unwrap_or("no message"), finished.status).into());
    }
    weight
}

/// Reads a line of `status` or `smaps_rollup`.
pub fn kilobytes(text: &str, field: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)).ok_or_else(|| format!("no {field}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The middle and the least of many samples.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub median: u64,
    pub least: u64,
}

/// Gives the middle and the least, if there is anything.
pub fn summarize(mut values: Vec<u64>) -> Option<Summary> {
    values.sort_unstable();
    let least = *values.first()?;
    let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    Some(Summary { median: u64::midpoint(low, high), least })
}

/// Puts a list into another order each time; good enough for a fair turn.
pub struct Shuffler(u64);

impl Shuffler {
    pub fn new() -> Self {
        Self(u64::from(std::process::id()) << 32 | 0x9e37_79b9)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let other = usize::try_from(self.0 % (last as u64 + 1)).unwrap_or(0);
            items.swap(last, other);
        }
    }
}

/// Shows progress on a terminal's error stream, one line that is written over.
pub fn show_progress(text: &str) {
    let mut errors = std::io::stderr();
    if std::io::IsTerminal::is_terminal(&errors) {
        let _ = write!(errors, "\r\x1b[K{text}");
    }
}
