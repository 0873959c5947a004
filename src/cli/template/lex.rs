//! Cuts a template into tokens, as Go's `text/template/parse` does. Knows nothing of what they mean together.

use super::fail;
use crate::error::{Error, Result};

/// What a token is. Names are without their dot or dollar.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Text between actions, already trimmed by the `-` of its neighbours.
    Text(String),
    /// `{{`.
    Open,
    /// `}}`.
    Close,
    /// A run of blanks inside an action.
    Space,
    /// `.`.
    Dot,
    /// `.Name`.
    Field(String),
    /// `$` or `$name`.
    Variable(String),
    /// A function's name or a keyword.
    Word(String),
    /// A string constant.
    Constant(String),
    Int(i64),
    Float(f64),
    /// `:=`.
    Declare,
    /// `=`.
    Assign,
    Pipe,
    Comma,
    LeftParen,
    RightParen,
}

/// A token, and where it begins and ends in the template, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Cuts a whole template.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new() };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<()> {
        let mut trims_start = false;
        loop {
            let rest = &self.text[self.at..];
            let open = rest.find("{{");
            let mut text = &rest[..open.unwrap_or(rest.len())];
            let text_start = self.at;
            if trims_start {
                text = text.trim_start_matches(is_blank);
            }
            let Some(open) = open else {
                self.push_text(text, text_start);
                return Ok(());
            };
            let inside = &rest[open + 2..];
            let trims_end = inside.starts_with('-') && inside[1..].starts_with(is_blank);
            if trims_end {
                text = text.trim_end_matches(is_blank);
            }
            self.push_text(text, text_start);
            self.at += open;
            let start = self.at;
            self.at += if trims_end { 3 } else { 2 };
            trims_start = if let Some(trims) = self.comment()? {
                trims
            } else {
                self.tokens.push(Token { kind: Kind::Open, start, end: self.at });
                self.action()?
            };
        }
    }

    fn push_text(&mut self, text: &str, start: usize) {
        if !text.is_empty() {
            self.tokens.push(Token { kind: Kind::Text(text.to_owned()), start, end: start + text.len() });
        }
    }

    /// Passes over `/* … */}}`, if that is what comes. Says whether the text behind it is trimmed.
    fn comment(&mut self) -> Result<Option<bool>> {
        let rest = &self.text[self.at..];
        let Some(body) = rest.trim_start_matches(is_blank).strip_prefix("/*") else { return Ok(None) };
        // Go has a comment right behind the delimiter or its trim marker's blank, and nowhere else.
        let blanks = rest.len() - body.len() - 2;
        if blanks > 1 || blanks == 1 && !self.text[..self.at].ends_with('-') {
            return Ok(None);
        }
        let Some(length) = body.find("*/") else { return Err(self.fail("unclosed comment")) };
        let end = &body[length + 2..];
        let (trims, end) = match end.strip_prefix(is_blank).and_then(|end| end.strip_prefix('-')) {
            Some(end) => (true, end),
            None => (false, end),
        };
        let Some(end) = end.strip_prefix("}}") else {
            return Err(self.fail("comment ends before closing delimiter"));
        };
        self.at = self.text.len() - end.len();
        Ok(Some(trims))
    }

    /// Reads up to `}}`. Says whether the text behind it is trimmed.
    fn action(&mut self) -> Result<bool> {
        let mut parens = 0_usize;
        loop {
            let rest = &self.text[self.at..];
            let start = self.at;
            let trimming = rest.strip_prefix(is_blank).is_some_and(|rest| rest.starts_with("-}}"));
            if trimming || rest.starts_with("}}") {
                if parens > 0 {
                    return Err(self.fail("unclosed left paren"));
                }
                self.at += if trimming { 4 } else { 2 };
                self.tokens.push(Token { kind: Kind::Close, start, end: self.at });
                return Ok(trimming);
            }
            let Some(letter) = rest.chars().next() else { return Err(self.fail("unclosed action")) };
            let following = rest[letter.len_utf8()..].chars().next();
            let (kind, length) = match letter {
                letter if is_blank(letter) => (Kind::Space, self.blanks()),
                ':' if following == Some('=') => (Kind::Declare, 2),
                ':' => return Err(self.fail("expected :=")),
                '=' => (Kind::Assign, 1),
                '|' => (Kind::Pipe, 1),
                ',' => (Kind::Comma, 1),
                '(' => {
                    parens += 1;
                    (Kind::LeftParen, 1)
                }
                ')' => {
                    parens = parens.checked_sub(1).ok_or_else(|| self.fail("unexpected right paren"))?;
                    (Kind::RightParen, 1)
                }
                '"' => self.quoted()?,
                '`' => self.raw()?,
                '\'' => self.character()?,
                '$' => {
                    let name = name(&rest[1..]);
                    self.check_end(1 + name.len())?;
                    (Kind::Variable(name.to_owned()), 1 + name.len())
                }
                '.' if !following.is_some_and(|letter| letter.is_ascii_digit()) => {
                    let name = name(&rest[1..]);
                    self.check_end(1 + name.len())?;
                    (if name.is_empty() { Kind::Dot } else { Kind::Field(name.to_owned()) }, 1 + name.len())
                }
                '+' | '-' | '.' | '0'..='9' => self.number()?,
                letter if is_alphanumeric(letter) => {
                    let name = name(rest);
                    self.check_end(name.len())?;
                    (Kind::Word(name.to_owned()), name.len())
                }
                letter => return Err(self.fail(&format!("unexpected {:?} in command", letter.to_string()))),
            };
            self.at += length;
            self.tokens.push(Token { kind, start, end: self.at });
        }
    }

    /// Counts the blanks here, but for the one that belongs to ` -}}`.
    fn blanks(&self) -> usize {
        let rest = &self.text[self.at..];
        let behind = rest.trim_start_matches(is_blank);
        let length = rest.len() - behind.len();
        if behind.starts_with("-}}") { length - 1 } else { length }
    }

    /// What follows a name must not be taken for a part of it.
    fn check_end(&self, length: usize) -> Result<()> {
        match self.text[self.at + length..].chars().next() {
            None | Some('.' | ',' | '|' | ':' | '(' | ')' | '}' | '=') => Ok(()),
            Some(letter) if is_blank(letter) => Ok(()),
            Some(letter) => Err(self.fail(&format!("bad character {letter:?}"))),
        }
    }

    fn quoted(&self) -> Result<(Kind, usize)> {
        let rest = &self.text[self.at..];
        let (text, length) = unquote(rest, '"')
            .ok_or_else(|| self.fail("unterminated quoted string, or an escape that Go does not have"))?;
        Ok((Kind::Constant(text), length))
    }

    fn raw(&self) -> Result<(Kind, usize)> {
        let rest = &self.text[self.at + 1..];
        let length = rest.find('`').ok_or_else(|| self.fail("unterminated raw quoted string"))?;
        // As in Go's source, where editors may have added them.
        Ok((Kind::Constant(rest[..length].replace('\r', "")), length + 2))
    }

    /// A character constant is a number.
    fn character(&self) -> Result<(Kind, usize)> {
        let wrong = || self.fail("malformed character constant");
        let (text, length) = unquote(&self.text[self.at..], '\'').ok_or_else(wrong)?;
        let mut letters = text.chars();
        match (letters.next(), letters.next()) {
            (Some(letter), None) => Ok((Kind::Int(i64::from(u32::from(letter))), length)),
            _ => Err(wrong()),
        }
    }

    fn number(&self) -> Result<(Kind, usize)> {
        let rest = &self.text[self.at..];
        let mut length = 0;
        for (at, letter) in rest.char_indices() {
            let before = &rest[..at];
            let is_sign = matches!(letter, '+' | '-')
                && (at == 0 || !before.contains(['x', 'X']) && before.ends_with(['e', 'E']));
            if !(is_sign || letter == '.' || is_alphanumeric(letter)) {
                break;
            }
            length = at + letter.len_utf8();
        }
        let text = &rest[..length];
        let kind = parse_number(text).ok_or_else(|| self.fail(&format!("bad number syntax: {text:?}")))?;
        Ok((kind, length))
    }

    fn fail(&self, why: &str) -> Error {
        fail(self.text, self.at, why)
    }
}

/// Reads the numbers of Go that a template can need: decimal, `0x`, `0o`, `0b`, `_` between digits, and decimal fractions.
fn parse_number(text: &str) -> Option<Kind> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let plain = digits.replace('_', "");
    let lower = plain.to_ascii_lowercase();
    let (radix, bare) = if let Some(bare) = lower.strip_prefix("0x") {
        (16, bare)
    } else if let Some(bare) = lower.strip_prefix("0o") {
        (8, bare)
    } else if let Some(bare) = lower.strip_prefix("0b") {
        (2, bare)
    } else if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|digit| digit.is_ascii_digit()) {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if !bare.starts_with(['+', '-'])
        && let Ok(number) = i128::from_str_radix(bare, radix)
    {
        return i64::try_from(if negative { -number } else { number }).ok().map(Kind::Int);
    }
    let is_decimal = radix == 10 && plain.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let number: f64 = is_decimal.then(|| plain.parse().ok()).flatten()?;
    number.is_finite().then_some(Kind::Float(if negative { -number } else { number }))
}

/// Reads a string or character of Go, which begins with its quote. Gives its value and its length in the source.
fn unquote(source: &str, quote: char) -> Option<(String, usize)> {
    let mut bytes = Vec::new();
    let mut letters = source.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        let escaped = match letter {
            letter if letter == quote => {
                // `\xNN` makes bytes, which need not be text.
                return Some((String::from_utf8_lossy(&bytes).into_owned(), at + 1));
            }
            '\n' => return None,
            '\\' => letters.next()?.1,
            letter => {
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
        };
        let mut digits = |count: usize, radix: u32| {
            let mut number = 0_u32;
            for _ in 0..count {
                number = number * radix + letters.next()?.1.to_digit(radix)?;
            }
            Some(number)
        };
        let letter = match escaped {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' => '\\',
            letter if letter == quote => letter,
            'x' => {
                bytes.push(u8::try_from(digits(2, 16)?).ok()?);
                continue;
            }
            'u' => char::from_u32(digits(4, 16)?)?,
            'U' => char::from_u32(digits(8, 16)?)?,
            letter @ '0'..='7' => {
                bytes.push(u8::try_from(letter.to_digit(8)? * 64 + digits(2, 8)?).ok()?);
                continue;
            }
            _ => return None,
        };
        bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    }
    None
}

/// Gives the letters, digits and underscores that a text begins with.
fn name(text: &str) -> &str {
    &text[..text.find(|letter| !is_alphanumeric(letter)).unwrap_or(text.len())]
}

fn is_alphanumeric(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | '\r' | '\n')
}
