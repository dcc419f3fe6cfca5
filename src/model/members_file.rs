//! The members file, as text. Reading and writing the file itself is the driver's.
//!
//! ```text
//! # this node first
//! 1 127.0.0.1:1593
//! 2 127.0.0.1:2593|10.0.0.2:2593 3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c
//! 3 none weight=2
//! 4 10.0.0.4:1593 leaving
//! 5 removed generation=1
//! 6 10.0.0.6:1593 disputed
//! ```
//!
//! The 64 digits are the member's public key; `disputed` stands for one of which others said another. Where
//! entries are signed, `by=KEY:SIGNATURE` stands behind, and `revision=N own=SIGNATURE` where the member has
//! spoken itself.

use std::{fmt, str::FromStr};

use super::{
    MAX_ADDRS, Member, MemberKey, MemberState, NodeId, Proofs, Vouched, Warrant, parse_signature,
    signature_text,
};

/// What may stand behind a member's address.
const WORDS: &str = "a key of 64 digits, leaving, weight=N, generation=N, revision=N, by=KEY:SIGNATURE \
                     and own=SIGNATURE";

/// What the file says: this node, then the others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MembersFile {
    /// The first line: this node.
    pub this: Member,
    /// A line each: the peers, removed ones included.
    pub peers: Vec<Member>,
}

/// A line that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct MembersFileError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for MembersFile {
    type Err = MembersFileError;

    fn from_str(text: &str) -> Result<Self, MembersFileError> {
        let mut members: Vec<Member> = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let content = line.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            let fail = |reason: String| MembersFileError { line: i + 1, reason };
            let member = parse_member(content).map_err(fail)?;
            if members.iter().any(|m| m.id == member.id) {
                return Err(fail(format!("node {} stands here twice", member.id)));
            }
            if members.is_empty() && !member.is_present() {
                return Err(fail("this node is marked removed".into()));
            }
            members.push(member);
        }
        if members.is_empty() {
            return Err(MembersFileError { line: 1, reason: "the file names no node".into() });
        }
        let peers = members.split_off(1);
        let this = members.remove(0);
        Ok(Self { this, peers })
    }
}

fn parse_member(content: &str) -> Result<Member, String> {
    let mut words = content.split_whitespace();
    let id: NodeId = words.next().unwrap_or_default().parse().map_err(|e| format!("{e}"))?;
    let place = words.next().ok_or("an address is missing: ID ADDR[|ADDR...] or ID none")?;
    let mut member = Member::new(id, Vec::new());
    match place {
        "none" => {}
        "removed" => member.state = MemberState::Removed,
        addrs => {
            for addr in addrs.split('|') {
                let addr = addr.parse().map_err(|_| format!("{addr:?} is no address IP:PORT"))?;
                member.addrs.push(addr);
            }
            if member.addrs.len() > MAX_ADDRS {
                return Err(format!("more than {MAX_ADDRS} addresses"));
            }
        }
    }
    let (mut warrant, mut own) = (None, None);
    for word in words {
        let bad = || format!("{word:?} is none of {WORDS}");
        if word == "leaving" && member.is_present() {
            member.state = MemberState::Leaving;
            continue;
        }
        if let Some(key) = parse_key(word) {
            if member.key != MemberKey::Unknown {
                return Err("it has two keys".into());
            }
            member.key = key;
            continue;
        }
        match word.split_once('=').ok_or_else(bad)? {
            ("weight", n) => member.weight = n.parse().map_err(|_| bad())?,
            ("generation", n) => member.generation = n.parse().map_err(|_| bad())?,
            ("revision", n) => member.revision = n.parse().map_err(|_| bad())?,
            ("by", text) => warrant = Some(parse_warrant(text).ok_or_else(bad)?),
            ("own", text) => own = Some(parse_signature(text).ok_or_else(bad)?),
            _ => return Err(bad()),
        }
    }
    match warrant {
        Some(warrant) => member.vouched = Vouched(Some(Proofs { warrant, own }.into())),
        // Who speaks of itself later does so with a higher one.
        None => member.revision = 0,
    }
    Ok(member)
}

fn parse_warrant(text: &str) -> Option<Warrant> {
    let (signer, signature) = text.split_once(':')?;
    Some(Warrant { signer: signer.parse().ok()?, signature: parse_signature(signature)? })
}

fn parse_key(word: &str) -> Option<MemberKey> {
    match word {
        "disputed" => Some(MemberKey::Disputed),
        _ => word.parse().ok().map(MemberKey::Known),
    }
}

impl fmt::Display for MembersFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("# Members of this cluster: this node first, then one peer a line.\n")?;
        for m in std::iter::once(&self.this).chain(&self.peers) {
            write!(f, "{} ", m.id)?;
            if m.state == MemberState::Removed {
                f.write_str("removed")?;
            } else if m.addrs.is_empty() {
                f.write_str("none")?;
            }
            for (i, addr) in m.addrs.iter().filter(|_| m.is_present()).enumerate() {
                write!(f, "{}{addr}", if i > 0 { "|" } else { "" })?;
            }
            match m.key {
                MemberKey::Unknown => {}
                MemberKey::Known(key) => write!(f, " {key}")?,
                MemberKey::Disputed => f.write_str(" disputed")?,
            }
            if m.state == MemberState::Leaving {
                f.write_str(" leaving")?;
            }
            if m.weight != 1 {
                write!(f, " weight={}", m.weight)?;
            }
            if m.generation != 0 {
                write!(f, " generation={}", m.generation)?;
            }
            if let Some(Proofs { warrant, own }) = m.vouched.0.as_deref() {
                write!(f, " by={}:{}", warrant.signer, signature_text(&warrant.signature))?;
                if let Some(own) = own {
                    write!(f, " revision={} own={}", m.revision, signature_text(own))?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
