//! Reads the table of command lines: sections, rows, and what is claimed of each. Runs nothing.

use std::collections::BTreeMap;

/// Who is compared with husk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Podman,
    Docker,
}

impl Peer {
    pub(super) const ALL: [Self; 2] = [Self::Podman, Self::Docker];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
        }
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
    /// Runs with every `make test`, not with all tests alone.
    pub(super) is_quick: bool,
    pub(super) rows: Vec<Row<'a>>,
}

/// A line of shell.
#[derive(Debug, Default)]
pub(super) struct Row<'a> {
    pub(super) line: &'a str,
    /// What all that agree say on standard error.
    pub(super) says: Option<&'a str>,
    claims: BTreeMap<Peer, Claim<'a>>,
}

impl<'a> Row<'a> {
    pub(super) fn claim(&self, peer: Peer) -> Claim<'a> {
        self.claims.get(&peer).copied().unwrap_or(Claim::Agrees)
    }
}

/// Reads the table. Wrong lines are a defect of it, and end the test.
pub(super) fn parse(text: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut reasons = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| -> ! { panic!("rows.txt:{}: {what}: {line}", number + 1) };
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix("why ") {
            let (name, reason) = rest.split_once(": ").unwrap_or_else(|| wrong("no reason"));
            reasons.insert(name, reason);
        } else if let Some(rest) = line.strip_prefix('[') {
            let (name, rest) = rest.split_once(']').unwrap_or_else(|| wrong("no end of the name"));
            sections.push(Section { name, is_quick: rest == " quick", rows: Vec::new() });
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
                " not run" => Claim::NotRun(reason),
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
