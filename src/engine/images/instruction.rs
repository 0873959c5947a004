//! `--change` of `commit` and `import`: an instruction of a Dockerfile that changes an image's configuration.
//!
//! Variables are replaced where a Dockerfile replaces them, from the image's own environment; a command in the form for a shell
//! keeps them for that shell. Nothing is run.

use serde_json::{Map, Value, json};

use crate::error::{Context, Error, Result};
use crate::support::passwd::UserSpec;

/// What a shell form is run by, where the image names nothing else.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Changes the `config` section of an image's configuration by one instruction.
pub fn apply(config: &mut Map<String, Value>, instruction: &str) -> Result<()> {
    change(config, instruction.trim()).with_context(|| format!("--change {instruction:?}"))
}

fn change(config: &mut Map<String, Value>, instruction: &str) -> Result<()> {
    // podman has also `CMD=/bin/sh`.
    let end = instruction.find(|letter: char| letter.is_whitespace() || letter == '=').unwrap_or(instruction.len());
    let (name, rest) = instruction.split_at(end);
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim();
    let name = name.to_ascii_uppercase();
    if rest.is_empty() {
        return Err(Error::invalid(format!("{name} wants something after it")));
    }
    let environment = environment(config);
    let words = || words(rest, &environment);
    match name.as_str() {
        "CMD" => {
            let command = command(config, rest);
            config.insert("Cmd".to_owned(), json!(command));
        }
        "ENTRYPOINT" => {
            let command = command(config, rest);
            config.insert("Entrypoint".to_owned(), json!(command));
        }
        "ENV" => {
            let mut all = environment.clone();
            for (name, value) in pairs(rest, &environment)? {
                if name.is_empty() || name.contains('\0') || value.contains('\0') {
                    return Err(Error::invalid("ENV: a name is empty, or something holds a NUL"));
                }
                set(&mut all, &name, &value);
            }
            config.insert("Env".to_owned(), json!(all));
        }
        "LABEL" => {
            for (name, value) in pairs(rest, &environment)? {
                object(config, "Labels")?.insert(name, json!(value));
            }
        }
        "EXPOSE" => {
            for port in words()? {
                object(config, "ExposedPorts")?.insert(port_of(&port)?, json!({}));
            }
        }
        "VOLUME" => {
            let paths = match list(rest) {
                Some(paths) => paths,
                None => words()?,
            };
            for path in paths {
                if !path.starts_with('/') {
                    return Err(Error::invalid(format!("VOLUME: {path:?} is not absolute")));
                }
                object(config, "Volumes")?.insert(path, json!({}));
            }
        }
        "USER" => {
            let user = one(&words()?)?;
            user.parse::<UserSpec>()?;
            config.insert("User".to_owned(), json!(user));
        }
        "WORKDIR" => {
            let path = one(&words()?)?;
            let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or_default();
            let joined = std::path::Path::new("/").join(before).join(path);
            config.insert("WorkingDir".to_owned(), json!(joined));
        }
        "STOPSIGNAL" => {
            let signal = one(&words()?)?;
            config.insert("StopSignal".to_owned(), json!(signal));
        }
        "ONBUILD" => {
            let triggers = config.entry("OnBuild").or_insert(Value::Null);
            let mut all = triggers.as_array().cloned().unwrap_or_default();
            all.push(json!(rest));
            *triggers = json!(all);
        }
        "HEALTHCHECK" => {
            let check = healthcheck(rest)?;
            config.insert("Healthcheck".to_owned(), check);
        }
        _ => {
            return Err(Error::invalid(format!("{name} is not an instruction that can be given here")).with_hint(
                "one of CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR",
            ));
        }
    }
    Ok(())
}

/// Gives the variables of a configuration, `NAME=value` each.
pub(crate) fn environment(config: &Map<String, Value>) -> Vec<String> {
    let all = config.get("Env").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(|entry| entry.as_str().map(str::to_owned)).collect()
}

/// Sets a variable where it stands, or at the end.
pub(crate) fn set(environment: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match environment.iter_mut().find(|entry| entry.split_once('=').is_some_and(|(known, _)| known == name)) {
        Some(known) => *known = entry,
        None => environment.push(entry),
    }
}

/// Gives a section of a configuration that maps names, made where there is none.
pub(crate) fn object<'c>(config: &'c mut Map<String, Value>, name: &str) -> Result<&'c mut Map<String, Value>> {
    let section = config.entry(name).or_insert(Value::Null);
    if section.is_null() {
        *section = json!({});
    }
    section.as_object_mut().ok_or_else(|| Error::invalid(format!("config.{name}: not an object")))
}

/// A list of JSON is a command as it is; anything else is a shell's.
fn command(config: &Map<String, Value>, rest: &str) -> Vec<String> {
    if let Some(words) = list(rest) {
        return words;
    }
    let shell = config
        .get("Shell")
        .and_then(Value::as_array)
        .map(|shell| shell.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect::<Vec<_>>());
    let mut words = shell.filter(|shell| !shell.is_empty()).unwrap_or_else(|| SHELL.map(str::to_owned).to_vec());
    words.push(rest.to_owned());
    words
}

fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

fn one(words: &[String]) -> Result<String> {
    match words {
        [word] if !word.contains('\0') => Ok(word.clone()),
        _ => Err(Error::invalid("it takes one word")),
    }
}

/// `PORT[/PROTOCOL]`, or a range.
fn port_of(word: &str) -> Result<String> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    if !is_port(first) || !is_port(last) || !matches!(protocol.to_ascii_lowercase().as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("EXPOSE: {word:?} is not PORT[/PROTOCOL]")));
    }
    Ok(format!("{ports}/{}", protocol.to_ascii_lowercase()))
}

/// `NAME=value …`, or `NAME value with spaces`.
fn pairs(rest: &str, environment: &[String]) -> Result<Vec<(String, String)>> {
    let (first, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if !first.contains('=') {
        if after.trim().is_empty() {
            return Err(Error::invalid(format!("{first:?} is not NAME=value")));
        }
        return Ok(vec![(first.to_owned(), expand(after.trim(), environment, Keep::Quotes)?.concat())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::invalid(format!("{word:?} is not NAME=value"))),
    };
    words(rest, environment)?.into_iter().map(pair).collect()
}

fn words(text: &str, environment: &[String]) -> Result<Vec<String>> {
    expand(text, environment, Keep::Nothing)
}

/// What is left as it stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Nothing,
    /// Quotes and spaces are text: one word comes out.
    Quotes,
}

/// Splits a line into words as a Dockerfile does: spaces, both quotes, backslashes, and variables but in single quotes.
fn expand(text: &str, environment: &[String], keep: Keep) -> Result<Vec<String>> {
    let (mut words, mut word): (Vec<String>, Option<String>) = (Vec::new(), None);
    let mut quote: Option<char> = None;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\'' | '"', None) if keep == Keep::Nothing => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => {
                let next = letters.next().ok_or_else(|| Error::invalid("it ends with a backslash"))?;
                let word = word.get_or_insert_default();
                if quote.is_some() && !matches!(next, '"' | '\\' | '$') {
                    word.push('\\');
                }
                word.push(next);
            }
            ('$', None | Some('"')) => {
                let value = variable(&mut letters, environment)?;
                word.get_or_insert_default().push_str(&value);
            }
            (_, None) if letter.is_whitespace() && keep == Keep::Nothing => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid("a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

/// Reads what follows a `$`: `NAME`, `{NAME}`, `{NAME:-default}` or `{NAME:+other}`.
fn variable(letters: &mut std::iter::Peekable<std::str::Chars<'_>>, environment: &[String]) -> Result<String> {
    let find = |name: &str| {
        let value = |entry: &String| Some(entry.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        environment.iter().find_map(value).unwrap_or_default()
    };
    if letters.peek() != Some(&'{') {
        let mut name = String::new();
        while let Some(letter) = letters.next_if(|letter| letter.is_ascii_alphanumeric() || *letter == '_') {
            name.push(letter);
        }
        return Ok(if name.is_empty() { "$".to_owned() } else { find(&name) });
    }
    let inside: String = letters.by_ref().skip(1).take_while(|letter| *letter != '}').collect();
    let (name, modifier) = inside.split_once(':').map_or((inside.as_str(), None), |(name, rest)| (name, Some(rest)));
    let value = find(name);
    let Some(modifier) = modifier else { return Ok(value) };
    match (modifier.strip_prefix('-'), modifier.strip_prefix('+')) {
        (Some(default), _) => Ok(if value.is_empty() { default.to_owned() } else { value }),
        (_, Some(other)) => Ok(if value.is_empty() { value } else { other.to_owned() }),
        _ => Err(Error::unsupported(format!("${{{inside}}}: only :- and :+ are understood"))),
    }
}

/// `NONE`, or `[--interval=… --timeout=… --start-period=… --start-interval=… --retries=N] CMD …`.
fn healthcheck(rest: &str) -> Result<Value> {
    if rest.eq_ignore_ascii_case("none") {
        return Ok(json!({ "Test": ["NONE"] }));
    }
    let mut check = Map::new();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (name, value) =
            option.split_once('=').ok_or_else(|| Error::invalid(format!("HEALTHCHECK: --{option} has no value")))?;
        let (field, value) = match name {
            "interval" => ("Interval", json!(nanoseconds(value)?)),
            "timeout" => ("Timeout", json!(nanoseconds(value)?)),
            "start-period" => ("StartPeriod", json!(nanoseconds(value)?)),
            "start-interval" => ("StartInterval", json!(nanoseconds(value)?)),
            "retries" => ("Retries", json!(value.parse::<u32>().context("HEALTHCHECK: --retries")?)),
            _ => return Err(Error::invalid(format!("HEALTHCHECK: --{name} is not known"))),
        };
        check.insert(field.to_owned(), value);
        rest = after.trim_start();
    }
    let command = rest.split_once(char::is_whitespace).filter(|(word, _)| word.eq_ignore_ascii_case("cmd"));
    let (_, command) = command.ok_or_else(|| Error::invalid("HEALTHCHECK: neither NONE nor CMD"))?;
    let test = match list(command.trim()) {
        Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
        None => vec!["CMD-SHELL".to_owned(), command.trim().to_owned()],
    };
    check.insert("Test".to_owned(), json!(test));
    Ok(Value::Object(check))
}

/// Reads Go's durations: `1h30m`, `1.5s`, `200ms`.
fn nanoseconds(text: &str) -> Result<u64> {
    const UNITS: [(&str, f64); 6] = [("ms", 1e6), ("us", 1e3), ("ns", 1.0), ("h", 3.6e12), ("m", 6e10), ("s", 1e9)];
    let malformed = || Error::invalid(format!("{text:?} is not a duration such as 1m30s"));
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(malformed)?;
        let number: f64 = rest[..end].parse().map_err(|_| malformed())?;
        rest = &rest[end..];
        let (unit, factor) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(malformed)?;
        total += number * factor;
        rest = &rest[unit.len()..];
    }
    if text.is_empty() || total > 1e18 {
        return Err(malformed());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive, and bounded above")]
    Ok(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(instructions: &[&str]) -> Result<Value> {
        let mut config = json!({ "Env": ["PATH=/bin", "B=b"], "WorkingDir": "/w" }).as_object().cloned().unwrap();
        for instruction in instructions {
            apply(&mut config, instruction)?;
        }
        Ok(Value::Object(config))
    }

    #[test]
    fn instructions_change_the_configuration() {
        for (instruction, field, expected) in [
            (r#"CMD ["/a", "b c"]"#, "Cmd", json!(["/a", "b c"])),
            ("cmd echo $HOME 'x'", "Cmd", json!(["/bin/sh", "-c", "echo $HOME 'x'"])),
            ("CMD=/bin/sh", "Cmd", json!(["/bin/sh", "-c", "/bin/sh"])),
            ("ENTRYPOINT []", "Entrypoint", json!([])),
            ("ENV PATH=$PATH:/x A='$B' C=\"${B} d\"", "Env", json!(["PATH=/bin:/x", "B=b", "A=$B", "C=b d"])),
            ("ENV B  two words", "Env", json!(["PATH=/bin", "B=two words"])),
            ("ENV D=${X:-y}${B:+z}\\ \\$", "Env", json!(["PATH=/bin", "B=b", "D=yz $"])),
            ("LABEL a=1 \"b c\"=\"d e\"", "Labels", json!({ "a": "1", "b c": "d e" })),
            (
                "EXPOSE 80 443/TCP 1000-1010/udp",
                "ExposedPorts",
                json!({"80/tcp": {}, "443/tcp": {}, "1000-1010/udp": {}}),
            ),
            ("VOLUME [\"/a b\"]", "Volumes", json!({ "/a b": {} })),
            ("VOLUME /a /c", "Volumes", json!({ "/a": {}, "/c": {} })),
            ("USER 1000:users", "User", json!("1000:users")),
            ("WORKDIR sub/$B", "WorkingDir", json!("/w/sub/b")),
            ("WORKDIR /abs", "WorkingDir", json!("/abs")),
            ("STOPSIGNAL SIGINT", "StopSignal", json!("SIGINT")),
            ("ONBUILD RUN make", "OnBuild", json!(["RUN make"])),
            ("HEALTHCHECK NONE", "Healthcheck", json!({ "Test": ["NONE"] })),
            (
                "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f /",
                "Healthcheck",
                json!({ "Interval": 90_000_000_000_u64, "Retries": 3, "Test": ["CMD-SHELL", "curl -f /"] }),
            ),
        ] {
            assert_eq!(changed(&[instruction]).unwrap()[field], expected, "{instruction}");
        }
        let twice = changed(&["ENV A=1", "ENV A=2 C=$A"]).unwrap();
        assert_eq!(twice["Env"], json!(["PATH=/bin", "B=b", "A=2", "C=1"]));
    }

    #[test]
    fn what_is_none_is_refused() {
        for instruction in [
            "",
            "CMD",
            "RUN make",
            "ENV A",
            "ENV =b",
            "LABEL 'a=b",
            "EXPOSE http",
            "EXPOSE 0",
            "EXPOSE 1/ip",
            "VOLUME rel",
            "USER a b",
            "HEALTHCHECK curl",
            "HEALTHCHECK --interval=5 CMD x",
            "HEALTHCHECK --x=1s CMD x",
            "ENV A=${B:?x}",
        ] {
            assert!(changed(&[instruction]).is_err(), "{instruction}");
        }
    }
}
