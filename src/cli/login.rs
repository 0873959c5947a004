//! `husk login [REGISTRY]`.

use std::io::Read;

use clap::Parser;

use super::images::Remote;
use super::prompt::Terminal;
use super::status::Status;
use super::{printer, report};
use crate::error::{Context, Error, Result};
use crate::image::reference::DEFAULT_REGISTRY;
use crate::image::registry::credentials::{Credentials, Scope, Stored};
use crate::image::registry::login::{Login as Credential, Secret};
use crate::support::caller::Caller;

/// A password of more is a file that was redirected by mistake.
const PASSWORD_BYTES: u64 = 64 << 10;

/// Log in to a registry
///
/// REGISTRY is HOST[:PORT], or a part of one as HOST[:PORT]/NAMESPACE; docker.io if it is left out. The login is kept where
/// podman and docker find it: in the file of --authfile or REGISTRY_AUTH_FILE, else in config.json of DOCKER_CONFIG, else
/// in auth.json of the session; or with the credential helper that this file names.
#[derive(Debug, Parser)]
#[command(name = "husk login", override_usage = "husk login [OPTIONS] [REGISTRY]")]
pub(super) struct Login {
    /// User to log in as
    #[arg(long, short, value_name = "USER")]
    username: Option<String>,
    /// Password; others on this machine can see it here
    #[arg(long, short, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Print the user who is logged in, and do nothing else
    #[arg(long = "get-login", conflicts_with_all = ["username", "password", "password_stdin"])]
    only_tells: bool,
    #[command(flatten)]
    pub(super) remote: Remote,
    /// Registry to log in to
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

/// Asks for what was not given, has the registry check it, and keeps it.
///
/// `verify` is given the registry's host and the login; what it refuses is not kept.
pub(super) fn run(args: Login, verify: &dyn Fn(&str, &Credential) -> Result<()>) -> Result<Status> {
    let Login { username, password, password_stdin, only_tells, remote, registry } = args;
    let scope = Scope::parse(registry.as_deref().unwrap_or(DEFAULT_REGISTRY))?;
    let credentials = Credentials::load(&Caller::current(), remote.authfile.as_deref());
    if only_tells {
        return print_user(&credentials, &scope);
    }
    let login = match (username, password) {
        (None, _) if password_stdin => return Err(Error::invalid("Must provide --username with --password-stdin")),
        (Some(user), _) if password_stdin => basic(user, read_password()?)?,
        (Some(user), Some(password)) => {
            report::note("a password on the command line can be seen by others; --password-stdin hides it");
            basic(user, Secret::new(password))?
        }
        (user, password) => ask(user, password, &scope)?,
    };
    verify(scope.host(), &login).with_context(|| format!("log in to {scope}"))?;
    if let Stored::File(path) = credentials.store(&scope, &login)? {
        report::note(&format!("the password is kept unencrypted in {}", path.display()));
    }
    if credentials.find(&scope)?.as_ref() != Some(&login) {
        report::note(&format!(
            "another login for {scope} comes first, of DOCKER_AUTH_CONFIG or a file that is read before"
        ));
    }
    printer::print("Login Succeeded\n")?;
    Ok(Status::Success)
}

fn print_user(credentials: &Credentials, scope: &Scope) -> Result<Status> {
    match credentials.find(scope)? {
        Some(Credential::Basic { user, .. }) => printer::print(&format!("{user}\n"))?,
        Some(Credential::IdentityToken(_)) => printer::print("<token>\n")?,
        None => return Err(Error::invalid(format!("not logged into {scope}"))),
    }
    Ok(Status::Success)
}

fn basic(user: String, password: Secret) -> Result<Credential> {
    if user.is_empty() || password.expose().is_empty() {
        return Err(Error::invalid("neither the user's name nor the password may be empty"));
    }
    Ok(Credential::Basic { user, password })
}

fn read_password() -> Result<Secret> {
    let mut bytes = Vec::new();
    std::io::stdin().take(PASSWORD_BYTES + 1).read_to_end(&mut bytes).context("read the password")?;
    if bytes.len() as u64 > PASSWORD_BYTES {
        return Err(Error::invalid(format!("the password is longer than {PASSWORD_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid("the password is not UTF-8"))?;
    // One line end, as `echo` adds it; what else is in it may be meant.
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line)))
}

fn ask(user: Option<String>, password: Option<String>, scope: &Scope) -> Result<Credential> {
    let terminal = Terminal::of_caller().ok_or_else(|| {
        Error::invalid("Cannot perform an interactive login from a non TTY device")
            .with_hint("give --username, and the password by --password-stdin")
    })?;
    let user = match user {
        Some(user) => user,
        None => terminal.ask(&format!("Username for {scope}: "))?,
    };
    let password = match password {
        Some(password) => Secret::new(password),
        None => terminal.ask_secretly("Password: ")?,
    };
    basic(user, password)
}
