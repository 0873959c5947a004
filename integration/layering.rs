//! The shape of the source: dependencies point down, and `unsafe` stays in `src/sys/`.
//!
//! The layers are read from the table in `src/lib.rs`, so that there is one list of them. The source is read as tokens,
//! not compiled: comments and strings are blanked, then paths that begin at the crate's root are looked at, however they
//! are spelled (`crate::x`, `crate::{x, y}`, `super::super::x`).

use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn dependencies_point_down() {
    let layers = Layers::parse(include_str!("../src/lib.rs")).unwrap();
    let mut violations = Vec::new();
    each_file(&mut |path, text| violations.extend(layers.upward_uses(path, text)));
    assert!(violations.is_empty(), "uses of a higher layer:\n{}", violations.join("\n"));
}

#[test]
fn unsafe_stays_in_sys() {
    let mut violations = Vec::new();
    each_file(&mut |path, text| {
        if !path.starts_with("sys") {
            violations.extend(unsafe_lines(text).into_iter().map(|line| format!("src/{}:{line}", path.display())));
        }
    });
    assert!(violations.is_empty(), "unsafe outside of src/sys/:\n{}", violations.join("\n"));
}

/// The height of every module at the root of the crate; those of one row of the table may use each other.
struct Layers(BTreeMap<String, usize>);

impl Layers {
    /// Reads the table, and holds it against the modules that are declared.
    fn parse(lib: &str) -> Result<Self, String> {
        let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | [`"));
        let mut heights = BTreeMap::new();
        for (depth, row) in rows.enumerate() {
            let names = row.split('|').next().unwrap_or_default();
            for name in names.split(", ").map(|name| name.trim().trim_matches(['[', ']', '`'])) {
                heights.insert(name.to_owned(), usize::MAX - depth);
            }
        }
        let declared = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        let mut undeclared = heights.clone();
        for name in declared {
            if undeclared.remove(name).is_none() {
                return Err(format!("src/lib.rs: the module {name} is missing in the table of layers"));
            }
        }
        match undeclared.keys().next() {
            Some(name) => Err(format!("src/lib.rs: the table of layers has {name}, which is no module")),
            None => Ok(Self(heights)),
        }
    }

    /// Finds the uses of higher layers in a file, given by its path below `src/`.
    fn upward_uses(&self, path: &Path, text: &str) -> Vec<String> {
        let module = module_of(path);
        let Some(own) = module.first().and_then(|name| self.0.get(name)) else { return Vec::new() };
        let tokens = tokens(&blank(text));
        let upward = root_uses(&tokens, module.len());
        let upward = upward.into_iter().filter(|(_, name)| self.0.get(name).is_some_and(|height| height > own));
        upward.map(|(line, name)| format!("src/{}:{line}: {} uses {name}", path.display(), module.join("::"))).collect()
    }
}

/// Gives the module that a file holds: `a/b.rs` and `a/b/mod.rs` are `a::b`, `main.rs` and `lib.rs` the root.
fn module_of(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        path.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if matches!(names.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        names.pop();
    }
    names
}

/// Finds the names of the crate's root that are used, with their lines, in a module so many levels below it.
fn root_uses(tokens: &[Token], depth: usize) -> Vec<(usize, String)> {
    let mut uses = Vec::new();
    // For each open brace, whether it is a module's body.
    let mut braces: Vec<bool> = Vec::new();
    let word = |index: usize| tokens.get(index).map_or("", |token| &token.text[..]);
    let mut index = 0;
    while index < tokens.len() {
        match word(index) {
            "{" => braces.push(index >= 2 && word(index - 2) == "mod"),
            "}" => drop(braces.pop()),
            _ => {}
        }
        let here = depth + braces.iter().filter(|is_module| **is_module).count();
        let mut next = index;
        let mut levels = 0;
        while word(next) == "super" && word(next + 1) == "::" {
            levels += 1;
            next += 2;
        }
        let reaches_root = if word(index) == "crate" && word(index + 1) == "::" {
            next = index + 2;
            true
        } else {
            levels > 0 && levels == here
        };
        if reaches_root {
            names_from(tokens, next, &mut uses);
        }
        index = next.max(index + 1);
    }
    uses
}

/// Adds the first names of the paths at a place: one name, or those of a group in braces.
fn names_from(tokens: &[Token], start: usize, uses: &mut Vec<(usize, String)>) {
    let name = |token: &Token| (token.line, token.text.trim_start_matches("r#").to_owned());
    match tokens.get(start) {
        Some(token) if token.text == "{" => {
            let mut depth = 0_usize;
            for (index, token) in tokens.iter().enumerate().skip(start) {
                match &token.text[..] {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ if depth == 1 && matches!(&tokens[index - 1].text[..], "{" | ",") => uses.push(name(token)),
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        }
        Some(token) => uses.push(name(token)),
        None => {}
    }
}

/// Gives the lines on which the keyword stands.
fn unsafe_lines(text: &str) -> Vec<usize> {
    tokens(&blank(text)).into_iter().filter(|token| token.text == "unsafe").map(|token| token.line).collect()
}

struct Token {
    line: usize,
    text: String,
}

/// Splits blanked source into names, `::` and single signs.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_name = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '#';
            let length = if is_name(first) {
                rest.find(|letter| !is_name(letter)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push(Token { line: line + 1, text: rest[..length].to_owned() });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Replaces comments, strings and characters by spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = blank_end(&letters, at, out.chars().next_back());
        if end > at {
            out.extend(letters[at..end].iter().map(|letter| if *letter == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(letters[at]);
            at += 1;
        }
    }
    out
}

/// Gives the end of the comment, string or character that begins at a place, or the place itself.
fn blank_end(letters: &[char], at: usize, previous: Option<char>) -> usize {
    let letter = |index: usize| letters.get(index).copied().unwrap_or('\0');
    let find = |from: usize, is_end: &dyn Fn(usize) -> bool| (from..letters.len()).find(|index| is_end(*index));
    let follows_name = previous.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    match letter(at) {
        '/' if letter(at + 1) == '/' => find(at, &|index| letter(index) == '\n').unwrap_or(letters.len()),
        '/' if letter(at + 1) == '*' => {
            let (mut depth, mut index) = (1, at + 2);
            while depth > 0 && index < letters.len() {
                match (letter(index), letter(index + 1)) {
                    ('/', '*') => depth += 1,
                    ('*', '/') => depth -= 1,
                    _ => {
                        index += 1;
                        continue;
                    }
                }
                index += 2;
            }
            index.min(letters.len())
        }
        'r' if !follows_name || previous == Some('b') || previous == Some('c') => {
            let hashes = (at + 1..letters.len()).take_while(|index| letter(*index) == '#').count();
            let quote = at + 1 + hashes;
            if letter(quote) != '"' {
                return at;
            }
            let closes = |index: usize| letter(index) == '"' && (1..=hashes).all(|hash| letter(index + hash) == '#');
            find(quote + 1, &closes).map_or(letters.len(), |index| index + 1 + hashes)
        }
        '"' => {
            let mut index = at + 1;
            while index < letters.len() && letter(index) != '"' {
                index += if letter(index) == '\\' { 2 } else { 1 };
            }
            (index + 1).min(letters.len())
        }
        // A character and not a lifetime: 'a' has its quote two further on, an escape begins with a backslash.
        '\'' if letter(at + 1) == '\\' => {
            find(at + 3, &|index| letter(index) == '\'').map_or(letters.len(), |index| index + 1)
        }
        '\'' if letter(at + 2) == '\'' => at + 3,
        _ => at,
    }
}

/// Shows every Rust file of `src/` to `visit`, with its path there.
fn each_file(visit: &mut dyn FnMut(&Path, &str)) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in walkdir::WalkDir::new(&source).sort_by_file_name() {
        let entry = entry.unwrap();
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
            visit(path.strip_prefix(&source).unwrap(), &text);
        }
    }
}

const TABLE: &str = "//! | layer | holds |\n//! |---|---|\n//! | [`cli`] | x |\n//! | [`rootfs`], [`cgroups`] | x |\n\
                     //! | [`sys`] | x |\npub mod cli;\npub mod sys;\npub mod rootfs;\npub mod cgroups;\n";

#[test]
fn upward_uses_are_found_however_they_are_spelled() {
    let layers = Layers::parse(TABLE).unwrap();
    let rows = [
        ("rootfs/mount.rs", "use crate::cli::Printer;", 1),
        ("rootfs/mount.rs", "use crate::{sys, cli::{self, Printer}};", 1),
        ("rootfs/mount.rs", "fn f() { crate :: cli\n::run() }", 1),
        ("rootfs/mount.rs", "use super::super::cli;", 1),
        ("rootfs/mod.rs", "use super::cli;", 1),
        ("rootfs.rs", "use super::{cgroups, cli};", 1),
        ("rootfs/mount.rs", "mod tests { use super::super::super::cli; }", 1),
        ("sys/fd.rs", "use crate::rootfs::a;\nuse crate::cgroups::b;", 2),
        ("sys/fd.rs", "use crate::r#cli::a;", 1),
        ("rootfs/mount.rs", "use crate::sys::fd;", 0),
        ("rootfs/mount.rs", "use crate::cgroups::Cgroup; use crate::rootfs::x; use crate::nothing;", 0),
        ("rootfs/mount.rs", "// use crate::cli;\n/* crate::cli /* nested */ crate::cli */ let a = \"crate::cli\";", 0),
        (
            "rootfs/mount.rs",
            "let a = r#\"\" crate::cli \"#; let b = '\"'; let c: &'a str = b\"crate::cli\\\"crate::cli\";",
            0,
        ),
        ("rootfs/mount.rs", "use super::cli; mod tests { use super::super::cli; }", 0),
        ("cli/table.rs", "use crate::{rootfs, sys};", 0),
        ("main.rs", "use crate::cli;", 0),
    ];
    for (path, text, count) in rows {
        let found = layers.upward_uses(Path::new(path), text);
        assert_eq!(found.len(), count, "{path}: {text:?}: {found:?}");
    }
}

#[test]
fn unsafe_is_found_in_code_and_nowhere_else() {
    let rows: [(&str, &[usize]); 6] = [
        ("fn f() {\n unsafe { g() }\n}", &[2]),
        ("unsafe impl Send for X {}\nunsafe extern \"C\" {}", &[1, 2]),
        ("#![expect(unsafe_code)] // unsafe", &[]),
        ("let a = \"unsafe\"; let b = r\"unsafe\"; /* unsafe */", &[]),
        ("let quote = '\\''; unsafe {}", &[1]),
        ("fn f<'a>(x: &'a str) { unsafe {} }", &[1]),
    ];
    for (text, lines) in rows {
        assert_eq!(unsafe_lines(text), lines, "{text:?}");
    }
}

#[test]
fn the_table_and_the_modules_must_agree() {
    for (text, name) in [
        (TABLE.replace("pub mod cgroups;\n", ""), "cgroups"),
        (TABLE.to_owned() + "pub mod new;\n", "new"),
        ("pub mod cli;".to_owned(), "cli"),
    ] {
        let message = Layers::parse(&text).err().unwrap_or_else(|| panic!("{text} passes"));
        assert!(message.contains(name), "{message}");
    }
}
