//! One limit on its way into one file, and the order in which limits that depend on each other get there.
//!
//! Knows how to write and what the kernel means by refusing; which values to write is for `legacy` and `unified`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::file;
use crate::error::{Error, IntoError as _};

/// A value for a file of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Where it comes from, below `linux.resources`.
    pub(super) field: &'static str,
    pub(super) file: Cow<'static, str>,
    /// One setting a line; each is written by itself.
    pub(super) value: String,
    pub(super) when_missing: WhenMissing,
}

/// What to do on a kernel that does not have the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WhenMissing {
    Fail,
    /// The kernel already behaves as the value says, or the value only repeats another one.
    Skip,
    Instead(&'static str, String),
}

/// Settings that the kernel checks against each other (memory against memory plus swap, quota against period).
///
/// They are written in order, and what the kernel finds to contradict a value still in force (EINVAL) is tried again
/// once another one has got through. That needs no knowledge of the values in force, and no reading.
pub(super) type Step = Vec<Setting>;

#[expect(clippy::needless_pass_by_value, reason = "numbers for the most part")]
impl Setting {
    pub(super) fn new(field: &'static str, file: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        Self { field, file: file.into(), value: value.to_string(), when_missing: WhenMissing::Fail }
    }

    pub(super) fn or_skip(mut self) -> Self {
        self.when_missing = WhenMissing::Skip;
        self
    }

    pub(super) fn or(mut self, file: &'static str, value: impl ToString) -> Self {
        self.when_missing = WhenMissing::Instead(file, value.to_string());
        self
    }

    fn write(&self, directory: &mut PathBuf) -> Result<(), Errno> {
        let answer = try_write(directory, &self.file, &self.value);
        match (&self.when_missing, answer) {
            (WhenMissing::Skip, Err(Errno::NOENT)) => Ok(()),
            (WhenMissing::Instead(file, value), Err(Errno::NOENT)) => try_write(directory, file, value),
            (_, answer) => answer,
        }
    }
}

fn try_write(directory: &mut PathBuf, file: &str, value: &str) -> Result<(), Errno> {
    directory.push(file);
    let answer = file::try_write(directory, value);
    directory.pop();
    answer
}

/// A setting that the kernel did not take.
pub(super) struct Refusal<'a> {
    pub(super) setting: &'a Setting,
    pub(super) errno: Errno,
}

/// Writes the settings of a step. `directory` is a buffer that holds the path of the cgroup, before and after.
pub(super) fn apply<'a>(step: &'a [Setting], directory: &mut PathBuf) -> Result<(), Refusal<'a>> {
    // Bit n: setting n is still to be written. Steps have two or three settings.
    let mut pending = (1_u32 << step.len()) - 1;
    while pending != 0 {
        let before = pending;
        let mut refused = None;
        for (index, setting) in step.iter().enumerate().filter(|(index, _)| before & 1 << index != 0) {
            match setting.write(directory) {
                Ok(()) => pending &= !(1 << index),
                Err(Errno::INVAL) => refused = Some(Refusal { setting, errno: Errno::INVAL }),
                Err(errno) => return Err(Refusal { setting, errno }),
            }
        }
        if let (Some(refusal), true) = (refused, pending == before) {
            return Err(refusal);
        }
    }
    Ok(())
}

impl Refusal<'_> {
    /// Says what was refused and why, as far as the kernel lets us know.
    pub(super) fn explain(&self, directory: &Path) -> Error {
        let Setting { field, file, value, .. } = self.setting;
        let path = directory.join(&**file);
        let controller = file.split('.').next().unwrap_or_default();
        let error = match self.errno {
            Errno::NOENT => match available(directory) {
                Some(list) if controller != "cgroup" && !list.split_whitespace().any(|name| name == controller) => {
                    Error::unsupported(format!(
                        "the {controller} controller is not enabled for {}",
                        directory.display()
                    ))
                    .with_hint(
                        "it has to be in cgroup.subtree_control of every cgroup above; the kernel allows that only \
                         where no processes are, and systemd only with Delegate=yes",
                    )
                }
                _ => Error::unsupported(format!("this kernel has no {file} in {}", directory.display())),
            },
            // runc's words, which tools look for.
            Errno::BUSY if &**file == "memory.limit_in_bytes" => {
                let number = |name| file::read_value(&directory.join(name)).unwrap_or_default();
                let (usage, peak) = (number("memory.usage_in_bytes"), number("memory.max_usage_in_bytes"));
                Errno::BUSY.into_error().context(format!(
                    "unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak})"
                ))
            }
            errno => {
                let value = value.replace('\n', ", ");
                errno.into_error().context(format!("write `{value}` to {}", path.display()))
            }
        };
        error.context(format!("set linux.resources.{field}"))
    }
}

/// Gives the controllers enabled for a v2 cgroup; nothing on v1.
fn available(directory: &Path) -> Option<String> {
    file::read_value(&directory.join("cgroup.controllers")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes empty files that stand for cgroup files.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::OpenOptions::new().create_new(true).write(true).open(directory.path().join(file)).unwrap();
        }
        directory
    }

    fn content(directory: &tempfile::TempDir, file: &str) -> String {
        std::fs::read_to_string(directory.path().join(file)).unwrap()
    }

    #[test]
    fn a_missing_file_fails_or_is_skipped_or_replaced() {
        let directory = tree(&["io.weight"]);
        let mut path = directory.path().to_owned();
        let weight = Setting::new("blockIO.weight", "io.bfq.weight", 500).or("io.weight", 4950);
        assert!(apply(&[weight], &mut path).is_ok());
        assert_eq!(content(&directory, "io.weight"), "4950");
        assert!(apply(&[Setting::new("x", "memory.swap.max", 0).or_skip()], &mut path).is_ok());
        let limit = [Setting::new("memory.limit", "memory.max", 1)];
        let refusal = apply(&limit, &mut path).err().unwrap();
        assert_eq!(refusal.errno, Errno::NOENT);
        let text = refusal.explain(&path).report();
        assert!(text.starts_with("set linux.resources.memory.limit: this kernel has no memory.max in "), "{text}");
        assert_eq!(path, directory.path());
    }

    #[test]
    fn a_controller_that_is_not_enabled_is_named() {
        let directory = tree(&["cgroup.controllers"]);
        file::try_write(&directory.path().join("cgroup.controllers"), "cpu pids").unwrap();
        let step = [Setting::new("memory.limit", "memory.max", 1)];
        let mut path = directory.path().to_owned();
        let error = apply(&step, &mut path).err().unwrap().explain(&path);
        assert!(error.report().contains("the memory controller is not enabled for"), "{error:?}");
        assert!(error.hint().is_some());
    }
}
