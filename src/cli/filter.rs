//! `--filter KEY=VALUE` and `--filter KEY!=VALUE`: words become a list of conditions whose keys are known.
//!
//! What a key means is said by the command that has it; the kinds of values that many have (texts, labels, yes or no,
//! patterns, times) are compared here, as docker does it: several values of a key are alternatives, several labels are all
//! demanded.

use std::time::{Duration, SystemTime};

use crate::error::{Error, Result};
use crate::support::units::parse_duration;

/// A key of a command's filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// What stands before `=`.
    pub name: &'static str,
    /// `!=` is allowed too.
    pub negates: bool,
}

impl Key {
    /// A key that has `=` alone.
    pub const fn new(name: &'static str) -> Self {
        Self { name, negates: false }
    }

    /// A key that has `=` and `!=`.
    pub const fn negatable(name: &'static str) -> Self {
        Self { name, negates: true }
    }
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    key: &'static str,
    is_negated: bool,
    value: String,
}

/// The conditions of one command. None lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(Vec<Condition>);

impl Filters {
    /// Reads the values of `--filter`, of which the command knows these keys.
    ///
    /// Fails for a text without `=`, for a key that is not known, and for `!=` where there is none.
    pub fn parse<S: AsRef<str>>(texts: &[S], known: &[Key]) -> Result<Self> {
        texts.iter().map(|text| parse_one(text.as_ref(), known)).collect::<Result<_>>().map(Self)
    }

    /// Is this key asked for?
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|condition| condition.key == key)
    }

    /// Gives the values of a key that stand behind `=`.
    pub fn values<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'s str> {
        self.of(key).filter(|condition| !condition.is_negated).map(|condition| condition.value.as_str())
    }

    /// Passes what one of the key's values fits, if there are any, and none of its `!=` values does.
    pub fn pass(&self, key: &str, mut fits: impl FnMut(&str) -> bool) -> bool {
        let mut wanted = None;
        for condition in self.of(key) {
            match (condition.is_negated, fits(&condition.value)) {
                (true, true) => return false,
                (true, false) => {}
                (false, fit) => wanted = Some(wanted.unwrap_or(false) || fit),
            }
        }
        wanted.unwrap_or(true)
    }

    /// Passes what has all labels asked for, and none of those that are not to be: `label=KEY` or `label=KEY=VALUE`.
    pub fn pass_labels<'l>(&self, key: &str, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.of(key).all(|condition| {
            let has = match condition.value.split_once('=') {
                None => label(&condition.value).is_some(),
                Some((name, value)) => label(name) == Some(value),
            };
            has != condition.is_negated
        })
    }

    /// Gives the answer to a key of yes or no (`dangling=true`), if it is asked; the last one counts.
    ///
    /// Fails for other words than Go's.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        let mut answer = None;
        for condition in self.of(key) {
            let value = match condition.value.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => {
                    return Err(invalid(&format!("{key}={}", condition.value)).with_hint("it is either true or false"));
                }
            };
            answer = Some(value != condition.is_negated);
        }
        Ok(answer)
    }

    /// Gives the earliest time that a key says (`until=24h`, `until=2024-03-01T10:00:00Z`), if it is asked.
    pub fn time(&self, key: &str, now: SystemTime) -> Result<Option<SystemTime>> {
        let mut earliest: Option<SystemTime> = None;
        for value in self.values(key) {
            let time = parse_time(value, now).ok_or_else(|| {
                invalid(&format!("{key}={value}"))
                    .with_hint("it is a duration (24h), seconds since 1970, or a date (2024-03-01T10:00:00Z)")
            })?;
            earliest = Some(earliest.map_or(time, |earliest| earliest.min(time)));
        }
        Ok(earliest)
    }

    fn of<'s>(&'s self, key: &'s str) -> impl Iterator<Item = &'s Condition> {
        self.0.iter().filter(move |condition| condition.key == key)
    }
}

fn parse_one(text: &str, known: &[Key]) -> Result<Condition> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(invalid(text).with_hint("a filter is KEY=VALUE"));
    };
    let (key, is_negated) = match key.strip_suffix('!') {
        Some(key) => (key, true),
        None => (key, false),
    };
    let key = key.trim().to_ascii_lowercase();
    let Some(row) = known.iter().find(|row| row.name == key) else {
        let names: Vec<&str> = known.iter().map(|row| row.name).collect();
        return Err(invalid(&key).with_hint(format!("there are: {}", names.join(", "))));
    };
    if is_negated && !row.negates {
        return Err(invalid(text).with_hint(format!("{key} has = and not !=")));
    }
    Ok(Condition { key: row.name, is_negated, value: value.trim().to_owned() })
}

/// Docker's words.
fn invalid(what: &str) -> Error {
    Error::invalid(format!("invalid filter '{what}'"))
}

/// Reads a duration before now, a Unix time with or without a fraction, or a date. A date without a zone is in UTC.
pub(super) fn parse_time(text: &str, now: SystemTime) -> Option<SystemTime> {
    if let Ok(age) = parse_duration(text)
        && text != "0"
    {
        return now.checked_sub(age);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !seconds.is_empty() && is_digits(seconds) && is_digits(fraction) && fraction.len() <= 9 {
        let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
        return SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds.parse().ok()?, nanoseconds));
    }
    let date = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let date = text.parse::<jiff::civil::DateTime>().ok()?;
        date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|date| date.timestamp())
    })?;
    Some(date.into())
}

/// Matches as `path.Match` of Go does: `*` and `?` are anything but a slash, `[a-z]` and `[^a-z]` classes, `\` takes the next
/// letter as it is. A pattern that is not well formed matches nothing.
pub fn matches_pattern(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    // Where the last star stands, and how far it reaches.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        match text.get(t) {
            None if p == pattern.len() => return true,
            None => return false,
            Some(letter) => {
                if let Some(length) = match_letter(&pattern[p..], *letter) {
                    p += length;
                    t += 1;
                    continue;
                }
            }
        }
        match star {
            Some((at, reached)) if text[reached] != '/' => {
                star = Some((at, reached + 1));
                (p, t) = (at + 1, reached + 1);
            }
            _ => return false,
        }
    }
}

/// Gives the length of the pattern's first element, if the letter fits it.
fn match_letter(pattern: &[char], letter: char) -> Option<usize> {
    match pattern {
        ['?', ..] => (letter != '/').then_some(1),
        ['\\', literal, ..] => (*literal == letter).then_some(2),
        ['\\'] | [] => None,
        ['[', class @ ..] => {
            let is_negated = class.first() == Some(&'^');
            let mut at = usize::from(is_negated);
            let mut fits = false;
            let start = at;
            loop {
                if class.get(at) == Some(&']') && at > start {
                    break;
                }
                let low = class_letter(class, &mut at)?;
                let high = if class.get(at) == Some(&'-') {
                    at += 1;
                    class_letter(class, &mut at)?
                } else {
                    low
                };
                fits |= (low..=high).contains(&letter);
            }
            (fits != is_negated).then_some(at + 2)
        }
        [literal, ..] => (*literal == letter).then_some(1),
    }
}

/// Takes a letter of a class.
fn class_letter(class: &[char], at: &mut usize) -> Option<char> {
    match class.get(*at)? {
        '-' | ']' => return None,
        '\\' => *at += 1,
        _ => {}
    }
    let letter = *class.get(*at)?;
    *at += 1;
    Some(letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEYS: &[Key] = &[Key::new("dangling"), Key::negatable("label"), Key::new("reference"), Key::new("until")];

    fn filters(texts: &[&str]) -> Result<Filters> {
        Filters::parse(texts, KEYS)
    }

    #[test]
    fn keys_are_known_or_refused() {
        for (text, message, hint) in [
            ("x", "invalid filter 'x'", "a filter is KEY=VALUE"),
            ("", "invalid filter ''", "a filter is KEY=VALUE"),
            ("foo=1", "invalid filter 'foo'", "there are: dangling, label, reference, until"),
            ("=1", "invalid filter ''", "there are: dangling, label, reference, until"),
            ("dangling!=true", "invalid filter 'dangling!=true'", "dangling has = and not !="),
        ] {
            let error = filters(&[text]).unwrap_err();
            assert_eq!((error.report().as_str(), error.hint()), (message, Some(hint)));
        }
        assert!(filters(&[" Label = a ", "label!=b", "reference=a=b"]).is_ok());
    }

    #[test]
    fn values_are_alternatives() {
        let chosen = filters(&["reference=a", "reference=b"]).unwrap();
        for (name, passes) in [("a", true), ("b", true), ("c", false)] {
            assert_eq!(chosen.pass("reference", |value| value == name), passes, "{name}");
        }
        assert!(chosen.pass("label", |_| false));
        assert!(chosen.has("reference") && !chosen.has("label"));
        assert_eq!(chosen.values("reference").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn labels_are_all_demanded() {
        let label = |name: &str| match name {
            "a" => Some("1"),
            "b" => Some(""),
            _ => None,
        };
        for (texts, passes) in [
            (&["label=a"][..], true),
            (&["label=a=1"], true),
            (&["label=a=2"], false),
            (&["label=a", "label=b"], true),
            (&["label=b="], true),
            (&["label=a", "label=c"], false),
            (&["label!=c"], true),
            (&["label!=a"], false),
            (&["label!=a=2", "label=b"], true),
            (&[], true),
        ] {
            assert_eq!(filters(texts).unwrap().pass_labels("label", label), passes, "{texts:?}");
        }
    }

    #[test]
    fn yes_or_no() {
        for (texts, answer) in [
            (&["dangling=true"][..], Some(Some(true))),
            (&["dangling=0"], Some(Some(false))),
            (&["dangling=0", "dangling=1"], Some(Some(true))),
            (&[], Some(None)),
            (&["dangling=yes"], None),
        ] {
            assert_eq!(filters(texts).unwrap().flag("dangling").ok(), answer, "{texts:?}");
        }
    }

    #[test]
    fn times_are_ages_or_dates() {
        let time = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let now = time(1_709_287_200);
        for (text, seconds) in [
            ("24h", Some(1_709_200_800)),
            ("1h30m", Some(1_709_281_800)),
            ("1709287200", Some(1_709_287_200)),
            ("0", Some(0)),
            ("2024-03-01T10:00:00Z", Some(1_709_287_200)),
            ("2024-03-01T12:00:00+02:00", Some(1_709_287_200)),
            ("2024-03-01T10:00:00", Some(1_709_287_200)),
            ("2024-03-01T10:00", Some(1_709_287_200)),
            ("2024-03-01", Some(1_709_251_200)),
            ("yesterday", None),
            ("1.5.5", None),
            ("99999999999999999999", None),
        ] {
            let chosen = filters(&[&format!("until={text}")]).unwrap();
            let expected = seconds.map(|seconds| Some(time(seconds)));
            assert_eq!(chosen.time("until", now).ok(), expected, "{text}");
        }
        let chosen = filters(&["until=24h", "until=48h"]).unwrap();
        assert_eq!(chosen.time("until", now).unwrap(), Some(time(1_709_287_200 - 48 * 3600)));
    }

    #[test]
    fn patterns_match_as_gos_do() {
        for (pattern, text, matches) in [
            ("alpine", "alpine", true),
            ("alpine", "alpine:3", false),
            ("alp*", "alpine", true),
            ("*", "alpine", true),
            ("*", "library/alpine", false),
            ("*/alpine", "library/alpine", true),
            ("*pine*", "alpine", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b/b-c", false),
            ("al?ine", "alpine", true),
            ("a?b", "a/b", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]a]", "]", false),
            ("[\\]a]", "]", true),
            ("[a-]", "a", false),
            ("[a", "a", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("a\\", "a", false),
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), matches, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_answered(pattern in "[a-c*?\\[\\]^\\\\/-]{0,12}", text in "[a-c/]{0,24}") {
            let _ = matches_pattern(&pattern, &text);
        }

        #[test]
        fn a_text_without_signs_matches_itself(text in "[a-z0-9/:.-]{0,20}") {
            prop_assert!(matches_pattern(&text, &text));
        }
    }
}
