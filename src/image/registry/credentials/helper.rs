//! Helper programs: `docker-credential-NAME`, which keep logins in a keyring, as docker's protocol has it.
//!
//! A verb is the program's argument, its input goes to standard input, and JSON comes back. The name comes from a file: it is
//! a word of letters and digits, sought in `PATH`, and never a path. A helper has a limit of time and of output, and what
//! it prints comes into no message but for the line in which it says why it failed, without the secret.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};
use crate::image::registry::login::{Login, Secret};

/// Long enough for somebody who is asked to unlock a keyring.
const HELPER_SECONDS: u64 = 120;

/// An answer is one login; the longest are lists.
const ANSWER_BYTES: usize = 1 << 20;

/// Why a helper says that it has none; docker's library compares this very text.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// The user name by which a helper says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What it means that the program is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It was chosen for this very host.
    IsAnError,
    /// It was chosen for all hosts, perhaps by a desktop that is gone: what needs no login still works.
    KnowsNothing,
}

/// A helper program.
pub(super) struct Helper {
    name: String,
    missing: Missing,
    search_path: Option<OsString>,
    limit: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    username: &'a str,
    secret: &'a str,
}

impl Helper {
    /// Takes a helper's name, and the `PATH` to seek it in.
    pub(super) fn new(name: &str, missing: Missing, search_path: Option<OsString>) -> Result<Self> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(is_word) {
            return Err(Error::invalid(format!("credential helper {name:?}: not a program's name")));
        }
        Ok(Self { name: name.to_owned(), missing, search_path, limit: Duration::from_secs(HELPER_SECONDS) })
    }

    /// Gives the program's name.
    pub(super) fn program(&self) -> String {
        format!("docker-credential-{}", self.name)
    }

    /// Asks for the login of a server.
    pub(super) fn get(&self, server: &str) -> Result<Option<Login>> {
        let Some(answer) = self.call("get", server.as_bytes(), None)? else { return Ok(None) };
        // The library's message would quote the secret.
        let Answer { username, secret } = serde_json::from_slice(&answer)
            .map_err(|_| Error::invalid(format!("{} get {server}: what it answers is no login", self.program())))?;
        Ok(match &username[..] {
            _ if secret.is_empty() => None,
            TOKEN_USER => Some(Login::IdentityToken(Secret::new(secret))),
            "" => None,
            _ => Some(Login::Basic { user: username, password: Secret::new(secret) }),
        })
    }

    /// Gives a login to keep.
    pub(super) fn store(&self, server: &str, login: &Login) -> Result<()> {
        let (username, secret) = match login {
            Login::Basic { user, password } => (&user[..], password),
            Login::IdentityToken(token) => (TOKEN_USER, token),
        };
        let question = Question { server, username, secret: secret.expose() };
        let text = serde_json::to_vec(&question).expect("strings can be written");
        match self.call("store", &text, Some(secret))? {
            Some(_) => Ok(()),
            None => Err(Error::new(Kind::NotFound, format!("{} is not in PATH", self.program()))),
        }
    }

    /// Has the login of a server forgotten; says whether it was known.
    pub(super) fn erase(&self, server: &str) -> Result<bool> {
        Ok(self.call("erase", server.as_bytes(), None)?.is_some())
    }

    /// Lists the servers whose logins it keeps.
    pub(super) fn list(&self) -> Result<Vec<String>> {
        let Some(answer) = self.call("list", b"", None)? else { return Ok(Vec::new()) };
        let servers: std::collections::BTreeMap<String, String> = serde_json::from_slice(&answer)
            .map_err(|_| Error::invalid(format!("{} list: what it answers is no list", self.program())))?;
        Ok(servers.into_keys().collect())
    }

    /// Runs the program for one verb; `None` where it knows nothing.
    fn call(&self, verb: &str, input: &[u8], secret: Option<&Secret>) -> Result<Option<Vec<u8>>> {
        let mut command = Command::new(self.program());
        if let Some(path) = &self.search_path {
            command.env("PATH", path);
        }
        let started = command
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It may ask for a passphrase there.
            .stderr(Stdio::inherit())
            .spawn();
        let mut process = match started {
            Ok(process) => Running(process),
            Err(error) if error.kind() == ErrorKind::NotFound && self.missing == Missing::KnowsNothing => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("run {}", self.program())),
        };
        let (is_good, answer) = process
            .converse(input, Instant::now() + self.limit)
            .with_context(|| format!("{} {verb}", self.program()))?;
        if is_good {
            return Ok(Some(answer));
        }
        let text = String::from_utf8_lossy(&answer);
        let mut line = text.trim().lines().next().unwrap_or_default().to_owned();
        if line == NOT_FOUND {
            return Ok(None);
        }
        if let Some(secret) = secret.filter(|secret| !secret.expose().is_empty()) {
            line = line.replace(secret.expose(), "…");
        }
        Err(Error::new(Kind::Other, format!("{} {verb} failed: {line}", self.program())))
    }
}

/// A helper at work; killed with its guard.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where it has ended, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Writes the input, reads the answer, and waits for the end; says whether that was a good one.
    fn converse(&mut self, input: &[u8], deadline: Instant) -> Result<(bool, Vec<u8>)> {
        let stdin = OwnedFd::from(self.0.stdin.take().expect("piped"));
        let stdout = OwnedFd::from(self.0.stdout.take().expect("piped"));
        // Input and output are in turn only by custom: neither may block the other.
        rustix::io::ioctl_fionbio(&stdin, true)?;
        rustix::io::ioctl_fionbio(&stdout, true)?;
        let (mut stdin, mut input, mut answer) = (Some(stdin), input, Vec::new());
        loop {
            if let Some(pipe) = stdin.take_if(|_| input.is_empty()) {
                drop(pipe);
            }
            let mut fds = vec![PollFd::new(&stdout, PollFlags::IN)];
            fds.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
            wait(&mut fds, deadline)?;
            let may_write = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
            if let Some(pipe) = stdin.as_ref().filter(|_| may_write) {
                match rustix::io::write(pipe, input) {
                    Ok(count) => input = &input[count..],
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    // It ended without reading all of it: its answer says why.
                    Err(Errno::PIPE) => stdin = None,
                    Err(errno) => return Err(errno).context("write to it"),
                }
            }
            let mut part = [0; 4096];
            match rustix::io::read(&stdout, &mut part) {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&part[..count]),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno).context("read from it"),
            }
            if answer.len() > ANSWER_BYTES {
                return Err(Error::invalid(format!("it answers more than {ANSWER_BYTES} bytes")));
            }
        }
        drop(stdin);
        let pid = rustix::process::Pid::from_child(&self.0);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).context("wait for it")?;
        wait(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], deadline)?;
        let status = self.0.wait().context("wait for it")?;
        Ok((status.success(), answer))
    }
}

/// Waits until something can be done, or the time is up.
fn wait(fds: &mut [PollFd<'_>], deadline: Instant) -> Result<()> {
    loop {
        let rest = deadline.saturating_duration_since(Instant::now());
        let rest = Timespec::try_from(rest).expect("a few minutes fit");
        match poll(fds, Some(&rest)) {
            Ok(0) => return Err(Error::new(Kind::Other, "it took too long")),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, input: &[u8], limit: Duration) -> Result<(bool, Vec<u8>)> {
        let child =
            Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Running(child).converse(input, Instant::now() + limit)
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn a_helper_is_heard_however_it_talks() {
        let megabyte = vec![b'x'; 1 << 20];
        assert_eq!(run("cat", &megabyte, LONG).unwrap(), (true, megabyte.clone()));
        assert_eq!(run("exec <&-; echo no; exit 1", &megabyte, LONG).unwrap(), (false, b"no\n".to_vec()));
        let report = run("cat; cat /dev/zero", b"x", LONG).unwrap_err().report();
        assert!(report.contains("more than 1048576 bytes"), "{report}");
    }

    #[test]
    fn a_helper_that_hangs_is_ended() {
        for script in ["exec sleep 1000", "exec >&-; exec sleep 1000"] {
            let begun = Instant::now();
            let report = run(script, b"", Duration::from_millis(50)).unwrap_err().report();
            assert_eq!(report, "it took too long");
            assert!(begun.elapsed() < Duration::from_secs(30));
        }
    }

    #[test]
    fn a_name_is_not_a_path() {
        for name in ["", "../x", "/bin/sh", "a b", "a\0"] {
            assert!(Helper::new(name, Missing::IsAnError, None).is_err(), "{name:?}");
        }
        assert_eq!(
            Helper::new("ecr-login", Missing::IsAnError, None).unwrap().program(),
            "docker-credential-ecr-login"
        );
    }

    #[test]
    fn a_program_that_is_missing() {
        let helper = |missing| Helper::new("husk-has-none-of-this-name", missing, None).unwrap();
        assert_eq!(helper(Missing::KnowsNothing).get("a").unwrap(), None);
        assert!(helper(Missing::IsAnError).get("a").unwrap_err().report().starts_with("run docker-credential-husk"));
        let login = Login::IdentityToken(Secret::new("x"));
        assert!(helper(Missing::KnowsNothing).store("a", &login).unwrap_err().report().contains("not in PATH"));
    }
}
