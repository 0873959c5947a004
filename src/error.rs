//! The library's one error type: what was tried on what, why it failed, and the way out where it is known.
//!
//! An [`Error`] is a chain. Each link says one thing (`mount tmpfs on /dev/shm`) and never repeats the link below it;
//! [`Error::report`] joins the links with `: `. A hint is kept apart from the message, since it is advice and not fact.
//! [`Kind`] tells a caller what it can do about the failure; it decides exit codes and nothing else.

use std::borrow::Cow;
use std::fmt;

use rustix::io::Errno;

/// A result whose error is husk's own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The input (a file, an argument, an image) is wrong; trying again does not help.
    Invalid,
    /// The thing named does not exist.
    NotFound,
    /// The thing to be made exists already.
    Exists,
    /// The container is in a state that does not allow the operation.
    State,
    /// The workload's executable does not exist (exit status 127).
    ExecutableNotFound,
    /// The workload's executable exists and cannot be executed (exit status 126).
    NotExecutable,
    /// This host or this build cannot do what was asked.
    Unsupported,
    /// A system call failed.
    System(Errno),
    /// Anything else.
    Other,
}

enum Source {
    Link(Error),
    Foreign(Box<dyn std::error::Error + Send + Sync>),
}

struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    source: Option<Source>,
}

/// A chain of what was tried, ending in the cause.
pub struct Error(Box<Inner>);

impl Error {
    /// Makes an error of a kind with a message that names the object and the cause.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hint: None, source: None }))
    }

    /// Makes an error about wrong input.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Makes an error about something this host or this build cannot do.
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// Wraps this error in a link that says what was being done.
    #[must_use]
    pub fn context(self, message: impl Into<Cow<'static, str>>) -> Self {
        let kind = self.0.kind;
        Self(Box::new(Inner { kind, message: message.into(), hint: None, source: Some(Source::Link(self)) }))
    }

    /// Adds the way out, printed on a line of its own.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Changes what a caller can do about the error, keeping its words.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Says what a caller can do about the error.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Gives the error number at the bottom of the chain, if a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        let mut link = self;
        loop {
            if let Kind::System(errno) = link.0.kind {
                return Some(errno);
            }
            match &link.0.source {
                Some(Source::Link(next)) => link = next,
                _ => return None,
            }
        }
    }

    /// Gives the outermost hint of the chain.
    pub fn hint(&self) -> Option<&str> {
        let mut link = self;
        loop {
            if let Some(hint) = &link.0.hint {
                return Some(hint);
            }
            match &link.0.source {
                Some(Source::Link(next)) => link = next,
                _ => return None,
            }
        }
    }

    /// Joins the whole chain into one line, without hints.
    ///
    /// Control characters are escaped: what an image or a document holds is in some messages, and is not to reach a
    /// terminal or a log as anything but text.
    pub fn report(&self) -> String {
        let line = self.join();
        if !line.contains(char::is_control) {
            return line;
        }
        let escape =
            |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.to_string() };
        line.chars().map(escape).collect()
    }

    fn join(&self) -> String {
        let mut line = self.0.message.to_string();
        let mut link = self;
        loop {
            match &link.0.source {
                None => return line,
                Some(Source::Link(next)) => {
                    line.push_str(": ");
                    line.push_str(&next.0.message);
                    link = next;
                }
                Some(Source::Foreign(error)) => {
                    let mut cause: Option<&dyn std::error::Error> = Some(&**error);
                    while let Some(error) = cause {
                        line.push_str(": ");
                        line.push_str(&error.to_string());
                        cause = error.source();
                    }
                    return line;
                }
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{:?}]", self.report(), self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            None => None,
            Some(Source::Link(next)) => Some(next),
            Some(Source::Foreign(error)) => Some(&**error),
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::new(Kind::System(errno), crate::sys::errno::describe(errno))
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Errno::from_raw_os_error(code).into(),
            None => Self(Box::new(Inner {
                kind: Kind::Other,
                message: Cow::Owned(error.to_string()),
                hint: None,
                source: error
                    .into_inner()
                    .and_then(|inner| inner.source().map(ToString::to_string))
                    .map(|text| Source::Link(Self::new(Kind::Other, text))),
            })),
        }
    }
}

/// Adds what was being done to the error of a result.
pub trait Context<T> {
    /// Wraps the error in a fixed message.
    fn context(self, message: impl Into<Cow<'static, str>>) -> Result<T>;
    /// Wraps the error in a message that is only made on failure.
    fn with_context<M: Into<Cow<'static, str>>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: IntoError> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl Into<Cow<'static, str>>) -> Result<T> {
        self.map_err(|error| error.into_error().context(message))
    }

    fn with_context<M: Into<Cow<'static, str>>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| error.into_error().context(message()))
    }
}

/// What can stand at the bottom of a chain.
pub trait IntoError {
    /// Turns a foreign error into a link.
    fn into_error(self) -> Error;
}

impl IntoError for Error {
    fn into_error(self) -> Error {
        self
    }
}

impl IntoError for Errno {
    fn into_error(self) -> Error {
        self.into()
    }
}

impl IntoError for std::io::Error {
    fn into_error(self) -> Error {
        self.into()
    }
}

/// Implements [`IntoError`] for errors of libraries, kept as they are at the end of the chain.
macro_rules! foreign {
    ($($error:ty => $kind:expr),+ $(,)?) => {$(
        impl IntoError for $error {
            fn into_error(self) -> Error {
                Error(Box::new(Inner {
                    kind: $kind,
                    message: Cow::Owned(self.to_string()),
                    hint: None,
                    source: std::error::Error::source(&self).map(|cause| Source::Foreign(cause.to_string().into())),
                }))
            }
        }

        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                error.into_error()
            }
        }
    )+};
}

foreign! {
    serde_json::Error => Kind::Invalid,
    std::ffi::NulError => Kind::Invalid,
    std::num::ParseIntError => Kind::Invalid,
    std::str::Utf8Error => Kind::Invalid,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_joins_the_links_and_keeps_the_errno() {
        let error = Err::<(), _>(Errno::PERM)
            .context("mount tmpfs on /dev/shm")
            .context("set up the root file system")
            .unwrap_err();
        assert_eq!(
            error.report(),
            "set up the root file system: mount tmpfs on /dev/shm: operation not permitted (EPERM)"
        );
        assert_eq!(error.errno(), Some(Errno::PERM));
    }

    #[test]
    fn a_report_is_one_line_of_text() {
        let error = Error::invalid("user \"a\nb\u{1b}[2J\": neither");
        assert_eq!(error.report(), "user \"a\\nb\\u{1b}[2J\": neither");
    }

    #[test]
    fn the_outermost_hint_wins() {
        let error = Error::invalid("inner").with_hint("inner way").context("outer");
        assert_eq!(error.hint(), Some("inner way"));
        assert_eq!(error.with_hint("outer way").hint(), Some("outer way"));
    }
}
