//! Hands the listener of a seccomp filter to whoever answers for the container: one JSON document, with the descriptor
//! beside it (runtime-spec, "The Container Process State").

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::state::OCI_VERSION;
use crate::error::{Context, Error, Result};
use crate::seccomp::Listener;

/// What the document calls the descriptor.
const SECCOMP_FD: &str = "seccompFd";

/// The document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: Value,
}

/// Sends the listener of process `pid` of the container whose state `state` is, as hooks get it.
pub(super) fn send(listener: &Listener, fd: &OwnedFd, pid: i32, state: &[u8]) -> Result<()> {
    let path = listener.path.as_deref().ok_or_else(no_path)?;
    let document = ContainerProcessState {
        oci_version: OCI_VERSION,
        fds: [SECCOMP_FD],
        pid,
        metadata: listener.metadata.as_deref(),
        state: serde_json::from_slice(state).context("read the container's state")?,
    };
    let document = serde_json::to_vec(&document).context("write the container process state")?;
    crate::sys::tty::send_fd_to_socket(path, &document, fd.as_fd())
        // The words are runc's.
        .context("failed to connect with seccomp agent specified in the seccomp profile")
        .with_context(|| format!("linux.seccomp.listenerPath: {}", path.display()))
}

/// Finds who gets the notifications: the profile names one, else crun's annotation, else its variable.
pub(super) fn complete(listener: &mut Listener, annotation: Option<&str>, variable: Option<PathBuf>) -> Result<()> {
    if listener.path.is_none() {
        listener.path = annotation.map(PathBuf::from).or(variable);
        if let Some(path) = listener.path.as_deref().filter(|path| !path.is_absolute()) {
            return Err(Error::invalid(format!("the seccomp receiver {} is not an absolute path", path.display())));
        }
    }
    listener.path.as_deref().map(|_: &Path| ()).ok_or_else(no_path)
}

fn no_path() -> Error {
    // The words at the end are runc's.
    Error::invalid("linux.seccomp: SCMP_ACT_NOTIFY: seccomp listenerPath is not set")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_comes_before_the_annotation_and_that_before_the_variable() {
        let find = |path: Option<&str>, annotation, variable: Option<&str>| {
            let mut listener = Listener { path: path.map(PathBuf::from), metadata: None, may_ask_for_sendmsg: false };
            complete(&mut listener, annotation, variable.map(PathBuf::from)).map(|()| listener.path.unwrap())
        };
        assert_eq!(find(Some("/a"), Some("/b"), Some("/c")).unwrap(), Path::new("/a"));
        assert_eq!(find(None, Some("/b"), Some("/c")).unwrap(), Path::new("/b"));
        assert_eq!(find(None, None, Some("/c")).unwrap(), Path::new("/c"));
        assert!(find(None, None, None).unwrap_err().report().ends_with("seccomp listenerPath is not set"));
        assert!(find(None, Some("b"), None).unwrap_err().report().ends_with("receiver b is not an absolute path"));
    }

    #[test]
    fn the_document_is_the_specifications() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent");
        let server = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let listener = Listener { path: Some(path), metadata: Some("x".to_owned()), may_ask_for_sendmsg: false };
        let fd = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        send(&listener, &fd, 7, br#"{"id":"c","status":"creating"}"#).unwrap();
        let (stream, _) = server.accept().unwrap();
        let mut buffer = [0; 4096];
        let (length, received) = crate::sys::fdpass::receive(&stream, &mut buffer).unwrap();
        assert!(received.is_some());
        assert_eq!(
            std::str::from_utf8(&buffer[..length]).unwrap(),
            format!(
                r#"{{"ociVersion":"{OCI_VERSION}","fds":["seccompFd"],"pid":7,"metadata":"x","state":{{"id":"c","status":"creating"}}}}"#
            )
        );
    }
}
