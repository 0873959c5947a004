//! `printf`: Go's verbs, flags, widths and precisions, and its complaints in the text where they do not fit.

use std::slice::Iter;

use serde_json::{Number, Value};

use super::value::{DEPTH, Datum, Shape, Text, exponent_of, general, show, sorted, type_name};
use crate::error::{Error, Result};

/// As wide as Go lets a number be.
const WIDEST: usize = 1_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    left: bool,
    plus: bool,
    alternate: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats the arguments.
pub(super) fn printf(format: &str, arguments: &[Datum<'_>]) -> Result<String> {
    let mut into = Text::default();
    let mut rest = format;
    let mut arguments = arguments.iter();
    while let Some(at) = rest.find('%') {
        into.push(&rest[..at])?;
        rest = &rest[at + 1..];
        let flags = flags(&mut rest, &mut arguments, &mut into)?;
        let Some(verb) = rest.chars().next() else {
            into.push("%!(NOVERB)")?;
            break;
        };
        rest = &rest[verb.len_utf8()..];
        if verb == '%' {
            into.push("%")?;
            continue;
        }
        match arguments.next() {
            None => into.push(&format!("%!{verb}(MISSING)"))?,
            Some(argument) => {
                // Of structs alone, `+` says more.
                let flags = Flags { plus: flags.plus && verb != 'v', ..flags };
                match argument {
                    Datum::Value(value, Shape::List | Shape::Map(_)) if value.is_null() => {
                        self::value(&Value::Array(Vec::new()), verb, flags, &mut into, 0)?;
                    }
                    argument => value(argument.value().unwrap_or(&Value::Null), verb, flags, &mut into, 0)?,
                }
            }
        }
    }
    into.push(rest)?;
    let extras = arguments.len();
    for (at, extra) in arguments.enumerate() {
        into.push(if at == 0 { "%!(EXTRA " } else { ", " })?;
        match extra.value().unwrap_or(&Value::Null) {
            Value::Null => into.push("<nil>")?,
            value => {
                into.push(type_name(value))?;
                into.push("=")?;
                show(value, &mut into, 0)?;
            }
        }
        if at + 1 == extras {
            into.push(")")?;
        }
    }
    Ok(into.finish())
}

/// Reads what stands between `%` and the verb.
fn flags(rest: &mut &str, arguments: &mut Iter<'_, Datum<'_>>, into: &mut Text) -> Result<Flags> {
    let mut flags = Flags::default();
    loop {
        match rest.as_bytes().first() {
            Some(b'-') => flags.left = true,
            Some(b'+') => flags.plus = true,
            Some(b'#') => flags.alternate = true,
            Some(b' ') => flags.space = true,
            Some(b'0') => flags.zero = true,
            _ => break,
        }
        *rest = &rest[1..];
    }
    if let Some(width) = number(rest, arguments, "WIDTH", into)? {
        flags.left |= width < 0;
        flags.width = usize::try_from(width.unsigned_abs()).ok();
    }
    if let Some(behind) = rest.strip_prefix('.') {
        *rest = behind;
        let precision = number(rest, arguments, "PREC", into)?.unwrap_or(0);
        flags.precision = usize::try_from(precision).ok();
    }
    Ok(flags)
}

/// Reads a number, or takes it from the arguments for `*`.
fn number(rest: &mut &str, arguments: &mut Iter<'_, Datum<'_>>, name: &str, into: &mut Text) -> Result<Option<i64>> {
    let is_allowed = |number: &i64| number.unsigned_abs() <= WIDEST as u64;
    if let Some(behind) = rest.strip_prefix('*') {
        *rest = behind;
        let number = match arguments.next().and_then(Datum::value) {
            Some(Value::Number(number)) => number.as_i64().filter(is_allowed),
            _ => None,
        };
        if number.is_none() {
            into.push(&format!("%!(BAD{name})"))?;
        }
        return Ok(number);
    }
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, behind) = rest.split_at(end);
    *rest = behind;
    Ok(digits.parse().ok().filter(is_allowed))
}

fn value(value: &Value, verb: char, flags: Flags, into: &mut Text, depth: usize) -> Result<()> {
    if depth > DEPTH {
        return Err(Error::invalid(format!("limit: the value is deeper than {DEPTH}")));
    }
    match (value, verb) {
        (_, 'T') if depth == 0 => {
            pad(&string(if value.is_null() { "<nil>" } else { type_name(value) }, 's', flags), flags, into)
        }
        (Value::Null, 'v') => pad("<nil>", flags, into),
        (Value::Null, verb) => into.push(&format!("%!{verb}(<nil>)")),
        (Value::Bool(value), 't' | 'v') => pad(if *value { "true" } else { "false" }, flags, into),
        (Value::String(text), 's' | 'v' | 'q' | 'x' | 'X') => pad(&string(text, verb, flags), flags, into),
        (Value::Number(number), verb) => match numeral(number, verb, flags) {
            Some(text) if verb == 'U' => pad(&text, Flags { zero: false, ..flags }, into),
            Some(text) if matches!(verb, 'c' | 'q') => pad(&text, flags, into),
            Some(text) => pad_number(&text, flags, into),
            None => complain(value, verb, flags, into),
        },
        (Value::Array(list), verb) => {
            into.push("[")?;
            for (at, part) in list.iter().enumerate() {
                into.push(if at > 0 { " " } else { "" })?;
                self::value(part, verb, flags, into, depth + 1)?;
            }
            into.push("]")
        }
        (Value::Object(map), verb) => {
            into.push("map[")?;
            for (at, (key, part)) in sorted(map).into_iter().enumerate() {
                into.push(if at > 0 { " " } else { "" })?;
                self::value(&Value::String(key.clone()), verb, flags, into, depth + 1)?;
                into.push(":")?;
                self::value(part, verb, flags, into, depth + 1)?;
            }
            into.push("]")
        }
        _ => complain(value, verb, flags, into),
    }
}

/// `%!d(string=x)`: the verb is not for such a value.
fn complain(value: &Value, verb: char, flags: Flags, into: &mut Text) -> Result<()> {
    into.push(&format!("%!{verb}({}=", type_name(value)))?;
    // Of the few that can come here, all have a `v`.
    self::value(value, 'v', Flags { alternate: false, ..flags }, into, 1)?;
    into.push(")")
}

fn string(text: &str, verb: char, flags: Flags) -> String {
    let cut: String = match flags.precision {
        Some(letters) => text.chars().take(letters).collect(),
        None => text.to_owned(),
    };
    match verb {
        'q' if flags.alternate && !cut.contains(|letter: char| letter == '`' || letter.is_control()) => {
            format!("`{cut}`")
        }
        'q' => quote(&cut, '"'),
        'v' if flags.alternate => quote(&cut, '"'),
        'x' | 'X' => {
            let pairs: Vec<String> = cut.bytes().map(|byte| format!("{byte:02x}")).collect();
            let prefix = if flags.alternate && !pairs.is_empty() { "0x" } else { "" };
            let text = prefix.to_owned() + &pairs.join(if flags.space { " " } else { "" });
            if verb == 'X' { text.to_uppercase() } else { text }
        }
        _ => cut,
    }
}

/// Writes a text or a letter as a constant of Go.
fn quote(text: &str, mark: char) -> String {
    let mut quoted = String::from(mark);
    for letter in text.chars() {
        match letter {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            letter if letter == mark => quoted.extend(['\\', mark]),
            letter if letter.is_ascii_control() => quoted.extend(format!("\\x{:02x}", u32::from(letter)).chars()),
            letter if letter.is_control() || letter != ' ' && letter.is_whitespace() => {
                quoted.extend(format!("\\u{:04x}", u32::from(letter)).chars());
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push(mark);
    quoted
}

/// Gives a number's digits with its sign, if the verb is for such a number.
fn numeral(number: &Number, verb: char, flags: Flags) -> Option<String> {
    if number.is_f64() {
        let number = number.as_f64()?;
        let digits = number.abs();
        let text = match verb {
            'v' | 'g' | 'G' => general(digits, flags.precision),
            'f' | 'F' => format!("{digits:.*}", flags.precision.unwrap_or(6)),
            'e' | 'E' => {
                let text = format!("{digits:.*e}", flags.precision.unwrap_or(6));
                let (mantissa, exponent) = text.split_once('e')?;
                format!("{mantissa}{}", exponent_of(exponent.parse().ok()?))
            }
            _ => return None,
        };
        let text = if verb.is_ascii_uppercase() { text.to_uppercase() } else { text };
        return Some(sign(number.is_sign_negative(), flags).to_owned() + &text);
    }
    let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))?;
    let size = whole.unsigned_abs();
    let (prefix, digits) = match verb {
        'd' | 'v' => ("", size.to_string()),
        'b' => ("0b", format!("{size:b}")),
        'o' => ("0", format!("{size:o}")),
        'O' => return Some(format!("{}0o{size:o}", sign(whole < 0, flags))),
        'x' => ("0x", format!("{size:x}")),
        'X' => ("0X", format!("{size:X}")),
        'c' | 'q' | 'U' => {
            let letter = u32::try_from(whole).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
            return Some(match verb {
                'c' => letter.to_string(),
                'q' => quote(&letter.to_string(), '\''),
                _ if flags.alternate => format!("U+{size:04X} '{letter}'"),
                _ => format!("U+{size:04X}"),
            });
        }
        _ => return None,
    };
    let digits = match flags.precision {
        Some(0) if size == 0 => String::new(),
        Some(places) if digits.len() < places => "0".repeat(places - digits.len()) + &digits,
        _ => digits,
    };
    let prefix = if flags.alternate { prefix } else { "" };
    Some(format!("{}{prefix}{digits}", sign(whole < 0, flags)))
}

fn sign(is_negative: bool, flags: Flags) -> &'static str {
    match (is_negative, flags.plus, flags.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        (false, false, false) => "",
    }
}

/// Fills up to the width with blanks.
fn pad(text: &str, flags: Flags, into: &mut Text) -> Result<()> {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    if flags.left {
        into.push(text)?;
        return into.fill(' ', missing);
    }
    // Go fills texts with zeros too.
    into.fill(if flags.zero { '0' } else { ' ' }, missing)?;
    into.push(text)
}

/// Fills up to the width, with zeros behind the sign if they are asked for and the precision does not say how many.
fn pad_number(text: &str, flags: Flags, into: &mut Text) -> Result<()> {
    let is_fraction = text.contains('.') || text.contains("e+") || text.contains("e-");
    let fills_zeros = flags.zero && !flags.left && (flags.precision.is_none() || is_fraction);
    if !fills_zeros {
        return pad(text, Flags { zero: false, ..flags }, into);
    }
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    let sign = text.len() - text.trim_start_matches(['-', '+', ' ']).len();
    into.push(&text[..sign])?;
    into.fill('0', missing)?;
    into.push(&text[sign..])
}
