//! Reads the table of command lines: sections, rows, and what is claimed of each. Runs nothing.

use std::collections::BTreeMap;

use crate::support::leak;

/// Who is compared with husk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Podman,
    Docker,
    /// Podman as an ordinary user, beside husk as the same user.
    Rootless,
}

impl Peer {
    pub(super) const ALL: [Self; 3] = [Self::Podman, Self::Docker, Self::Rootless];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Rootless => "rootless",
        }
    }

    /// Whose notes hold where it has none of its own.
    fn elder(self) -> Option<Self> {
        (self == Self::Rootless).then_some(Self::Podman)
    }
}

/// What is claimed of a peer's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim<'a> {
    /// It is husk's.
    Agrees,
    /// It is another, and this is why husk's is right.
    Differs(&'a str),
    /// It is not asked for, and this is why.
    NotRun(&'a str),
}

/// Lines that share a world.
#[derive(Debug, Default)]
pub(super) struct Section<'a> {
    pub(super) name: &'a str,
    /// Whose answers are compared with every `make test`, not with all tests alone.
    pub(super) quick: Vec<Peer>,
    pub(super) rows: Vec<Row<'a>>,
}

/// A line of shell.
#[derive(Debug, Default)]
pub(super) struct Row<'a> {
    pub(super) line: &'a str,
    /// What husk and a peer that agrees say on standard error.
    pub(super) says: Option<&'a str>,
    claims: BTreeMap<Peer, Claim<'a>>,
}

impl<'a> Row<'a> {
    pub(super) fn claim(&self, peer: Peer) -> Claim<'a> {
        let own = self.claims.get(&peer).copied();
        own.or_else(|| Some(self.claim(peer.elder()?))).unwrap_or(Claim::Agrees)
    }
}

/// Reads the table. Wrong lines are a defect of it, and end the test.
pub(super) fn parse(text: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut reasons = BTreeMap::new();
    let has_v1 = leak::cgroup_v1("freezer").is_some();
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| -> ! { panic!("line {} of the table: {what}: {line}", number + 1) };
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix("why ") {
            let (name, reason) = rest.split_once(": ").unwrap_or_else(|| wrong("no reason"));
            reasons.insert(name, reason);
        } else if let Some(rest) = line.strip_prefix('[') {
            let (name, rest) = rest.split_once(']').unwrap_or_else(|| wrong("no end of the name"));
            let quick = match rest {
                "" => Vec::new(),
                " quick" => vec![Peer::Podman, Peer::Docker],
                " quick, for users too" => Peer::ALL.to_vec(),
                _ => wrong("no such mark"),
            };
            sections.push(Section { name, quick, rows: Vec::new() });
        } else if let Some(note) = line.strip_prefix("  ") {
            let row = sections.last_mut().and_then(|section| section.rows.last_mut());
            let row = row.unwrap_or_else(|| wrong("a note before the first line"));
            let (key, text) = note.split_once(": ").unwrap_or_else(|| wrong("no colon"));
            if key == "says" {
                row.says = Some(text);
                continue;
            }
            let peer = Peer::ALL.into_iter().find(|peer| key.starts_with(peer.name()));
            let peer = peer.unwrap_or_else(|| wrong("a note of nobody's"));
            let named = text.strip_prefix('=').map(|name| reasons.get(name).unwrap_or_else(|| wrong("no such reason")));
            let reason = named.map_or(text, |reason| reason);
            let claim = match &key[peer.name().len()..] {
                "" => Claim::Differs(reason),
                " agrees" => Claim::Agrees,
                " on v1" if has_v1 => Claim::Differs(reason),
                " not run" | " on v1" => Claim::NotRun(reason),
                _ => wrong("a note of nobody's"),
            };
            row.claims.insert(peer, claim);
        } else {
            let section = sections.last_mut().unwrap_or_else(|| wrong("a line before the first section"));
            section.rows.push(Row { line, ..Row::default() });
        }
    }
    sections
}
