//! The eyes of the suite inside a container: the integration executable, started under the name `probe`.
//!
//! It walks its arguments in order and prints one JSON object on one line. It judges nothing (tests compare values), and
//! needs nothing of the container: what it can't learn, for want of /proc or otherwise, is null.
//!
//! ```text
//! --try WHAT          attempt an operation (see `tries`); "ok" or the name of the error goes to tries[WHAT]
//! --answer NR[:A…]    make a system call; the number that it answers or the name of the error goes to answers[NR[:A…]]
//! --read PATH         contents go to reads[PATH], or the name of the error
//! --stat PATH         type, mode, owner, device number, link target go to stats[PATH]
//! --xattr PATH NAME   the value of an attribute goes to xattrs[PATH], or the name of the error
//! --list PATH         names in a directory go to lists[PATH]
//! --write PATH TEXT   as --try, with "write PATH"
//! --quiet             print no report
//! --report            print the report now, rather than when all arguments are done
//! --echo TEXT         print a line; --error TEXT prints it to the standard error
//! --notify TEXT       send a datagram to $NOTIFY_SOCKET; "ok" or the name of the error goes to tries["notify TEXT"]
//! --cat               copy standard input to standard output
//! --raw               put the terminal into raw mode
//! --block             sleep for ever (until a signal)
//! --catch             print "ready", wait for signals and print the name of each; SIGTERM is the last.
//!                     SIGWINCH comes with the size of the terminal: "SIGWINCH ROWSxCOLUMNS"
//! --fork              go on in a child; the parent ends, so that the child is an orphan
//! --eat MIB           touch that much memory and print "full"
//! --signal N          end by that signal
//! --exit N            end with that status
//! ```

pub(crate) mod raw;
pub(crate) mod report;
mod tries;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use serde_json::{Map, Value, json};

/// Says whether this process was started as a probe, and with which arguments.
pub(crate) fn arguments(argv: &[OsString]) -> Option<&[OsString]> {
    let (program, rest) = argv.split_first()?;
    if Path::new(program).file_name() == Some(OsStr::new("probe")) {
        return Some(rest);
    }
    (rest.first()? == "--probe").then(|| &rest[1..])
}

/// Does what the arguments say.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().expect("arguments are UTF-8")).collect();
    match run(&words) {
        Ok(code) => code,
        Err(error) => {
            _ = writeln!(std::io::stderr(), "probe: {error}");
            ExitCode::from(99)
        }
    }
}

fn run(words: &[&str]) -> std::io::Result<ExitCode> {
    let mut found = Map::new();
    let mut printed = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut next =
            || words.next().copied().ok_or_else(|| std::io::Error::other(format!("{word} takes an argument")));
        match *word {
            "--try" => note(&mut found, "tries", next()?, tries::attempt),
            "--answer" => note(&mut found, "answers", next()?, tries::answer),
            "--read" => note(&mut found, "reads", next()?, report::read),
            "--stat" => note(&mut found, "stats", next()?, report::stat),
            "--list" => note(&mut found, "lists", next()?, report::list),
            "--xattr" => {
                let (path, name) = (next()?, next()?);
                note(&mut found, "xattrs", path, |path| report::attribute(path, name));
            }
            "--write" => {
                let (path, text) = (next()?, next()?);
                note(&mut found, "tries", &format!("write {path}"), |_| tries::write(path, text.as_bytes()));
            }
            "--quiet" => printed = true,
            "--report" => {
                print(&found)?;
                printed = true;
            }
            "--echo" => say(next()?)?,
            "--error" => writeln!(std::io::stderr(), "{}", next()?)?,
            "--notify" => {
                let text = next()?;
                note(&mut found, "tries", &format!("notify {text}"), |_| tries::notify(text));
            }
            "--cat" => copy_input()?,
            "--raw" => make_raw()?,
            "--block" => loop {
                std::thread::park();
            },
            "--catch" => catch_signals()?,
            "--fork" => return become_orphan(words.as_slice()),
            "--eat" => eat(next()?)?,
            "--signal" => raise(next()?)?,
            "--exit" => {
                if !printed {
                    print(&found)?;
                }
                return Ok(ExitCode::from(number::<u8>(next()?)?));
            }
            unknown => return Err(std::io::Error::other(format!("unknown argument {unknown}"))),
        }
    }
    if !printed {
        print(&found)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Files the answer of one question under a heading.
fn note(found: &mut Map<String, Value>, heading: &str, subject: &str, ask: impl FnOnce(&str) -> Value) {
    let answer = ask(subject);
    found.entry(heading).or_insert_with(|| json!({}))[subject] = answer;
}

fn print(found: &Map<String, Value>) -> std::io::Result<()> {
    let mut whole = report::collect();
    whole.extend(found.clone());
    say(&Value::Object(whole).to_string())
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn number<T: std::str::FromStr>(word: &str) -> std::io::Result<T> {
    word.parse().map_err(|_| std::io::Error::other(format!("not a number: {word}")))
}

fn copy_input() -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let mut input = std::io::stdin();
    let mut output = std::io::stdout();
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        output.write_all(&buffer[..count])?;
        output.flush()?;
    }
}

fn make_raw() -> std::io::Result<()> {
    let mut settings = rustix::termios::tcgetattr(rustix::stdio::stdin())?;
    settings.make_raw();
    Ok(rustix::termios::tcsetattr(rustix::stdio::stdin(), rustix::termios::OptionalActions::Now, &settings)?)
}

/// The signals are blocked before "ready" is said, so that none is lost between the word and the wait.
fn catch_signals() -> std::io::Result<()> {
    let mut caught = SigSet::all();
    caught.remove(Signal::SIGCHLD);
    caught.thread_block()?;
    say("ready")?;
    loop {
        let signal = caught.wait()?;
        match rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
            Ok(size) if signal == Signal::SIGWINCH => say(&format!("SIGWINCH {}x{}", size.ws_row, size.ws_col))?,
            _ => say(signal.as_str())?,
        }
        if signal == Signal::SIGTERM {
            return Ok(());
        }
    }
}

/// A child of the same executable: forking without an exec would need `unsafe`.
fn become_orphan(rest: &[&str]) -> std::io::Result<ExitCode> {
    let program = std::env::current_exe().unwrap_or_else(|_| "/probe".into());
    Command::new(program).arg0("probe").args(rest).spawn()?;
    Ok(ExitCode::SUCCESS)
}

fn eat(word: &str) -> std::io::Result<()> {
    let size = number::<usize>(word)? << 20;
    let mut memory = vec![0_u8; size];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
    say("full")
}

fn raise(word: &str) -> std::io::Result<()> {
    let signal = Signal::try_from(number::<i32>(word)?)?;
    nix::sys::signal::raise(signal)?;
    // As process 1 of a container, a default action is ignored by the kernel: the test sees this status instead.
    std::thread::sleep(Duration::from_millis(10));
    Ok(())
}
