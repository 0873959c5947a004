//! What the readers of foreign bytes promise, as functions of bytes that panic when a promise is broken.
//!
//! `fuzz/` calls them with what libFuzzer thinks of; the tests below with a committed corpus and mutations of it, the same
//! in every run. Built for these two alone.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSeccompOperator,
    LinuxSyscallBuilder,
};

use crate::cli::template::Template;
use crate::error::Error;
use crate::image::policy::{Policy, Subject};
use crate::image::reference::Reference;
use crate::image::registry::auth::{Challenge, Token};
use crate::image::registry::credentials::{self, Scope};
use crate::image::registry::origin::Origin;
use crate::image::registry::registries::Registries;
use crate::image::registry::{proxy, resolver};
use crate::image::sigstore::{PublicKey, Statement};
use crate::image::tar::{Entry, Reader};
use crate::image::{self, limits};
use crate::network::dns;
use crate::spec::mount_options::MountOptions;
use crate::spec::{load, validate};
use crate::support::{mountinfo, passwd};

/// config.json: a message of one line, or a specification that is found good again when it is written and read.
pub fn config(bytes: &[u8]) {
    match load::parse("config.json", bytes).and_then(validate::validate) {
        Err(error) => check_message(&error),
        Ok(validated) => {
            let text = serde_json::to_vec(validated.spec()).expect("a specification can be written");
            let again = load::parse("config.json", &text).and_then(validate::validate);
            let again = again.unwrap_or_else(|error| panic!("refused when read again: {}", error.report()));
            assert_eq!(again.spec(), validated.spec());
        }
    }
}

/// The other documents of the runtime: `exec --process` and `update --resources`.
pub fn documents(bytes: &[u8]) {
    match load::parse_process("process.json", bytes).and_then(|read| validate::validate_process(&read.value)) {
        Ok(()) => {}
        Err(error) => check_message(&error),
    }
    match load::parse_resources("resources.json", bytes).and_then(|read| validate::validate_resources(&read.value)) {
        Ok(()) => {}
        Err(error) => check_message(&error),
    }
}

/// A seccomp profile that the bytes stand for: its filter decides as the profile reads.
pub fn seccomp(bytes: &[u8]) {
    let mut dice = Dice(bytes);
    let profile = dice.profile();
    let arguments = [[0; 6], std::array::from_fn(|_| dice.number()), [u64::MAX; 6], dice.constants()];
    crate::seccomp::compare_with_model(&profile, &arguments);
}

/// A seccomp profile in JSON: a message, or a program that the kernel's checks would pass.
pub fn seccomp_json(bytes: &[u8]) {
    let Ok(profile) = load::parse_json::<LinuxSeccomp>(bytes) else { return };
    match crate::seccomp::compile(&profile) {
        Ok(program) => assert!((1..=4096).contains(&program.filter.len()), "{} instructions", program.filter.len()),
        Err(error) => check_message(&error),
    }
}

/// Mount options, separated by commas: what they were taken for can be written, and means the same when it is read.
pub fn mount_options(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.split(',').collect();
    match MountOptions::parse(&words) {
        Err(error) => check_message(&error),
        Ok(options) => {
            let written = options.to_options();
            let again = MountOptions::parse(&written);
            assert_eq!(again.ok().as_ref(), Some(&options), "{written:?}");
        }
    }
}

/// The name of an image: what was understood is written so that it is understood as the same, and is safe in URLs.
pub fn references(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Reference::parse(&text) {
        Err(error) => check_message(&error),
        Ok(reference) => {
            for written in [reference.to_string(), reference.familiar()] {
                assert_eq!(Reference::parse(&written).ok().as_ref(), Some(&reference), "{written}");
                assert!(written.split('/').all(|part| !part.starts_with('.')), "{written}");
                assert!(written.bytes().all(|byte| byte.is_ascii_graphic() && !b"%?#".contains(&byte)), "{written}");
            }
        }
    }
    if let Ok(scope) = Scope::parse(&text) {
        assert_eq!(Scope::parse(&scope.to_string()).ok(), Some(scope));
    }
    let (file, daemon) = Registries::read_any("");
    for registries in [file, daemon].into_iter().flatten() {
        match registries.resolve(&text) {
            Err(error) => check_message(&error),
            Ok(found) => assert_eq!(found, [Reference::parse(&text).expect("it was understood")]),
        }
    }
}

/// What registries and token servers say of who may come in.
pub fn challenges(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = Challenge::parse(text.lines()) {
        check_message(&error);
    }
    if let Err(error) = Token::parse(bytes) {
        check_message(&error);
    }
    if let Ok(origin) = Origin::of_url(&text) {
        assert_eq!(Origin::of_url(&origin.to_string()).ok(), Some(origin));
    }
    let base = Origin::of_url("https://a.io").expect("a URL");
    if let Ok(target) = base.resolve("https://a.io/v2/x", &text) {
        assert!(Origin::of_url(&target).is_ok_and(|target| target.is_https), "{target}");
    }
}

/// The files that tell of registries: logins, mirrors, exceptions, policies, signatures, keys.
pub fn registry_files(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let reference = Reference::parse("quay.io/team/app:1").expect("a name");
    let (file, daemon) = Registries::read_any(&text);
    let endpoints = |registries: Registries| registries.endpoints(&reference).map(drop);
    let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().expect("a digest");
    let check = |policy: Policy| policy.check(&Subject::Registry(&reference), &[digest], &|_| Ok(Vec::new()));
    let answers = [
        file.and_then(endpoints),
        daemon.and_then(endpoints),
        credentials::read_any(&text),
        proxy::read_any(&text, "https://a.io").map(drop),
        Policy::parse(bytes).and_then(check),
        Statement::parse(bytes).map(drop),
        PublicKey::from_pem(bytes).map(drop),
    ];
    for error in answers.into_iter().filter_map(Result::err) {
        check_message(&error);
    }
}

/// Name servers' answers, and the files that precede them.
pub fn names_of_hosts(bytes: &[u8]) {
    assert!(resolver::read_any(bytes) <= bytes.len());
}

/// What containers ask the name servers of their networks, and what other servers answer those: what is passed on is whole,
/// fits, and can be read again.
pub fn dns_messages(bytes: &[u8]) {
    dns::check_any(bytes);
}

/// A layer's tar: every entry within its limits, and no more bytes handed out than came in.
pub fn layer(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let mut entry = Entry::default();
    let mut entries = 0;
    loop {
        match reader.next(&mut entry) {
            Err(error) => return check_message(&error),
            Ok(false) => break,
            Ok(true) => {}
        }
        entries += 1;
        assert!(entries <= bytes.len() / 512, "more entries than headers");
        assert!(entry.path.len() <= limits::PATH_BYTES && entry.link.len() <= limits::PATH_BYTES);
        assert!(!entry.path.contains(&0) && !entry.link.contains(&0), "a name with a NUL");
        assert!(entry.xattrs.iter().all(|attribute| attribute.value.len() <= limits::XATTR_BYTES));
        let mut end = 0;
        let mut taken = 0;
        let size = entry.size;
        let answer = reader.for_each_chunk(entry.sparse.as_deref(), |offset, bytes| {
            assert!(offset >= end, "a file's parts overlap");
            end = offset + bytes.len() as u64;
            taken += bytes.len();
            assert!(end <= size, "{end} bytes of a file of {size}");
            Ok(())
        });
        assert!(taken <= bytes.len());
        if let Err(error) = answer {
            return check_message(&error);
        }
    }
    assert!(reader.position() <= bytes.len() as u64);
}

/// The documents of an image.
pub fn image_documents(bytes: &[u8]) {
    let answers = [
        image::manifest::parse_manifest(bytes).map(drop),
        image::manifest::parse_index(bytes).map(drop),
        image::config::parse(bytes).map(drop),
    ];
    for error in answers.into_iter().filter_map(Result::err) {
        check_message(&error);
    }
}

/// A message of a D-Bus, as systemd answers: no more values than bytes.
pub fn dbus(bytes: &[u8]) {
    match crate::cgroups::count_values(bytes) {
        Ok(values) => assert!(values <= bytes.len(), "{values} values in {} bytes", bytes.len()),
        Err(error) => check_message(&error),
    }
}

/// Lists of users and groups, and of mounts: an id is one that is written there.
pub fn tables(bytes: &[u8]) {
    for entry in passwd::passwd_entries(bytes).flatten() {
        assert!(!entry.name.is_empty() && entry.uid != u32::MAX, "{:?}", entry.name.escape_ascii().to_string());
    }
    for entry in passwd::group_entries(bytes).flatten() {
        assert!(!entry.name.is_empty() && entry.gid != u32::MAX);
    }
    let text = String::from_utf8_lossy(bytes);
    let first = text.lines().next().unwrap_or_default();
    if let Ok(user) = first.parse::<passwd::UserSpec>() {
        let database = passwd::UserDatabase::from_bytes(bytes.to_vec(), bytes.to_vec());
        match database.resolve(&user, &[]) {
            Ok(identity) => assert!(identity.uid != u32::MAX && identity.gid != u32::MAX),
            Err(error) => check_message(&error),
        }
    }
    if let Ok(mounts) = mountinfo::parse(bytes) {
        assert!(mountinfo::visible(&mounts).len() <= mounts.len());
    }
}

/// A template of `--format`, a line, and the document that it is about: a message, or a text of bounded length.
pub fn templates(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (template, document) = text.split_once('\n').unwrap_or((&text, "null"));
    let document = serde_json::from_str(document).unwrap_or(serde_json::Value::Null);
    match Template::parse(template) {
        Err(error) => check_message(&error),
        Ok(template) => {
            for answer in [template.render(&document), template.render_header(&document)] {
                match answer {
                    Err(error) => check_message(&error),
                    Ok(text) => assert!(text.len() <= 64 << 20, "{} bytes", text.len()),
                }
            }
        }
    }
}

/// A message goes to terminals and to logs that are read by the line.
fn check_message(error: &Error) {
    let report = error.report();
    assert!(!report.is_empty() && !report.contains(char::is_control), "{report:?}");
}

/// Choices that are made by bytes; zeros when they are used up.
struct Dice<'a>(&'a [u8]);

impl Dice<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % bound
    }

    /// Small, near the edge of 32 bits, or anything.
    fn number(&mut self) -> u64 {
        let low = u64::from(self.byte());
        match self.byte() % 4 {
            0 | 1 => low,
            2 => (u64::from(u32::MAX) - 2) + low % 6,
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn constants(&mut self) -> [u64; 6] {
        std::array::from_fn(|_| self.number())
    }

    fn action(&mut self) -> (LinuxSeccompAction, Option<u32>) {
        let actions = [
            LinuxSeccompAction::ScmpActAllow,
            LinuxSeccompAction::ScmpActErrno,
            LinuxSeccompAction::ScmpActKillProcess,
            LinuxSeccompAction::ScmpActKillThread,
            LinuxSeccompAction::ScmpActTrap,
            LinuxSeccompAction::ScmpActLog,
            LinuxSeccompAction::ScmpActTrace,
        ];
        let action = actions[self.below(actions.len())];
        let takes_number = matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace);
        (action, (takes_number && self.byte().is_multiple_of(2)).then(|| u32::from(self.byte())))
    }

    fn profile(&mut self) -> LinuxSeccomp {
        let names: Vec<&str> = crate::seccomp::names().collect();
        let operators = [
            LinuxSeccompOperator::ScmpCmpEq,
            LinuxSeccompOperator::ScmpCmpNe,
            LinuxSeccompOperator::ScmpCmpLt,
            LinuxSeccompOperator::ScmpCmpLe,
            LinuxSeccompOperator::ScmpCmpGt,
            LinuxSeccompOperator::ScmpCmpGe,
            LinuxSeccompOperator::ScmpCmpMaskedEq,
        ];
        let architectures = [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32, Arch::ScmpArchAarch64];
        let (action, errno) = self.action();
        let mut profile = LinuxSeccompBuilder::default().default_action(action);
        if let Some(errno) = errno {
            profile = profile.default_errno_ret(errno);
        }
        let listed = self.byte();
        let listed = architectures.into_iter().enumerate().filter(|(bit, _)| listed & (1 << bit) != 0);
        profile = profile.architectures(listed.map(|(_, architecture)| architecture).collect::<Vec<_>>());
        let mut rules = Vec::new();
        while !self.0.is_empty() && rules.len() < 8 {
            let (action, errno) = self.action();
            let chosen: Vec<String> =
                (0..=self.byte() % 3).map(|_| names[self.below(names.len())].to_owned()).collect();
            let mut rule = LinuxSyscallBuilder::default().names(chosen).action(action);
            if let Some(errno) = errno {
                rule = rule.errno_ret(errno);
            }
            let arguments: Vec<_> = (0..self.byte() % 4)
                .map(|_| {
                    LinuxSeccompArgBuilder::default()
                        .index(self.below(6))
                        .op(operators[self.below(operators.len())])
                        .value(self.number())
                        .value_two(self.number())
                        .build()
                        .expect("an argument that is whole")
                })
                .collect();
            if !arguments.is_empty() {
                rule = rule.args(arguments);
            }
            rules.push(rule.build().expect("a rule that is whole"));
        }
        profile.syscalls(rules).build().expect("a profile that is whole")
    }
}

/// A packet of a container: it is read within its bounds, or refused.
pub fn packets(bytes: &[u8]) {
    crate::network::rootless::check_packet(bytes);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// So many mutations of each file of a corpus.
    const MUTATIONS: u32 = 60;

    /// Numbers by chance, the same in every run.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
        }
    }

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    fn mutate(bytes: &[u8], others: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=chance.below(4) {
            let at = chance.below(bytes.len());
            match chance.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << chance.below(8),
                1 if !bytes.is_empty() => bytes[at] = [0, b'0', b'"', 0x7f, 0x80, 0xff][chance.below(6)],
                2 => bytes.truncate(at),
                3 => {
                    let end = at + chance.below(bytes.len() - at);
                    bytes.drain(at..end);
                }
                4 => {
                    let end = at + chance.below((bytes.len() - at).min(600));
                    let part = bytes[at..end].to_vec();
                    let to = chance.below(bytes.len());
                    bytes.splice(to..to, part);
                }
                _ => {
                    let other = &others[chance.below(others.len())];
                    let from = chance.below(other.len());
                    let end = from + chance.below((other.len() - from).min(600));
                    bytes.splice(at..at, other[from..end].iter().copied());
                }
            }
        }
        bytes
    }

    fn smoke(target: &str, promise: fn(&[u8])) {
        let corpus = corpus(target);
        assert!(!corpus.is_empty());
        let mut chance = Chance(2026);
        promise(b"");
        for bytes in &corpus {
            promise(bytes);
            for _ in 0..MUTATIONS {
                promise(&mutate(bytes, &corpus, &mut chance));
            }
        }
    }

    macro_rules! targets {
        ($($target:ident)*) => { $(
            #[test]
            fn $target() {
                smoke(stringify!($target), super::$target);
            }
        )* };
    }

    targets!(config documents seccomp seccomp_json mount_options layer image_documents dbus tables templates
             references challenges registry_files names_of_hosts dns_messages packets);
}
