//! What a node keeps in its store about the store itself, as text.
//!
//! ```text
//! turbopump ledger 1
//! sequence 12
//! stamp 0 7
//! doubts
//! doubted 00c0ffee00c0ffee 40
//! run 1700000000000
//! held 00c0ffee00c0ffee 44
//! kept alpha 0 5 1600000000000
//! ```
//!
//! It lies in the store, as the value of a key that no client can name ([`Ledger::key`]), because
//! it has to share the store's fate: be lost with it, and be restored with it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use super::{Actor, Key, NodeId, Stamp, Version};

const NAME: &str = ".turbopump/ledger";
const FIRST_LINE: &str = "turbopump ledger 1";

/// What a node keeps in its store about the store itself, under a key that no client can name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// Raised each time that it is written: of two, the one with the higher number counts.
    pub sequence: u64,
    /// How far this store has come.
    pub stamp: Stamp,
    /// The store is an older copy of itself, and what it holds was not looked through yet.
    pub doubts: bool,
    /// Of whom, and up to which counter: all that the copy held.
    pub doubted: BTreeMap<Actor, u64>,
    /// The processes that ran on this store since all other nodes agreed that it is the latest, oldest
    /// first.
    pub runs: Vec<Run>,
    /// How far the stores of other nodes have come.
    pub kept: BTreeMap<NodeId, Kept>,
}

/// A process that began on a store of which it was not known whether it is the latest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// Its incarnation.
    pub id: u64,
    /// What the store held then: of whom, and up to which counter.
    pub held: BTreeMap<Actor, u64>,
}

/// How far the store of another node had come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// Its stamp.
    pub stamp: Stamp,
    /// The process that said so: its incarnation.
    pub run: u64,
}

/// A text that is no ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {0} of the ledger does not parse")]
pub struct LedgerError(pub usize);

impl Ledger {
    /// The key under which a store keeps it. It belongs to no partition and never travels.
    pub fn key() -> Key {
        Key::new(NAME).expect("a key")
    }

    /// Whether the store held a write when it turned out to be an older copy, as far as is known. Signed
    /// ones are counted by author, over all keys, so that the ledger stays short.
    pub fn is_doubted(&self, version: &Version) -> bool {
        self.doubted.get(&version.writer()).is_some_and(|last| version.dot.counter <= *last)
    }

    /// Whether a key is the one of the ledger.
    pub fn is_named(key: &Key) -> bool {
        key.bytes() == NAME.as_bytes()
    }
}

impl FromStr for Ledger {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<Self, LedgerError> {
        let mut ledger = Self::default();
        for (i, line) in text.lines().enumerate() {
            let fail = || LedgerError(i + 1);
            let words: Vec<&str> = line.split(' ').collect();
            let stamp = |generation: &str, number: &str| {
                let (generation, number) = (generation.parse().ok()?, number.parse().ok()?);
                Some(Stamp { generation, number })
            };
            match words.as_slice() {
                _ if i == 0 && line == FIRST_LINE => {}
                _ if i == 0 => return Err(fail()),
                ["sequence", number] => ledger.sequence = number.parse().map_err(|_| fail())?,
                ["stamp", generation, number] => {
                    ledger.stamp = stamp(generation, number).ok_or_else(fail)?;
                }
                ["doubts"] => ledger.doubts = true,
                ["doubted", actor, counter] => {
                    let actor = actor.parse().map_err(|_| fail())?;
                    ledger.doubted.insert(actor, counter.parse().map_err(|_| fail())?);
                }
                ["run", id] => {
                    let id = id.parse().map_err(|_| fail())?;
                    ledger.runs.push(Run { id, ..Run::default() });
                }
                ["held", actor, counter] => {
                    let held = &mut ledger.runs.last_mut().ok_or_else(fail)?.held;
                    let actor = actor.parse().map_err(|_| fail())?;
                    held.insert(actor, counter.parse().map_err(|_| fail())?);
                }
                ["kept", id, generation, number, run] => {
                    let id = id.parse().map_err(|_| fail())?;
                    let stamp = stamp(generation, number).ok_or_else(fail)?;
                    ledger.kept.insert(id, Kept { stamp, run: run.parse().map_err(|_| fail())? });
                }
                _ => return Err(fail()),
            }
        }
        if text.is_empty() { Err(LedgerError(1)) } else { Ok(ledger) }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequence, stamp, doubts, doubted, runs, kept } = self;
        writeln!(f, "{FIRST_LINE}\nsequence {sequence}")?;
        writeln!(f, "stamp {} {}", stamp.generation, stamp.number)?;
        if *doubts {
            writeln!(f, "doubts")?;
        }
        for (actor, counter) in doubted {
            writeln!(f, "doubted {actor:?} {counter}")?;
        }
        for Run { id, held } in runs {
            writeln!(f, "run {id}")?;
            for (actor, counter) in held {
                writeln!(f, "held {actor:?} {counter}")?;
            }
        }
        for (id, Kept { stamp, run }) in kept {
            writeln!(f, "kept {id} {} {} {run}", stamp.generation, stamp.number)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_comes_out_as_it_went_in() {
        let mut ledger = Ledger { sequence: 3, doubts: true, ..Ledger::default() };
        ledger.stamp = Stamp { generation: 1, number: 9 };
        ledger.doubted.insert(Actor(7), 12);
        ledger.runs.push(Run { id: 3, held: [(Actor(8), 9)].into() });
        ledger.runs.push(Run { id: 4, ..Run::default() });
        let stamp = Stamp { generation: 0, number: u64::MAX };
        ledger.kept.insert("b".parse().unwrap(), Kept { stamp, run: 12 });
        assert_eq!(ledger.to_string().parse(), Ok(ledger));
        assert_eq!(Ledger::default().to_string().parse(), Ok(Ledger::default()));
    }

    #[test]
    fn other_texts_name_the_line_that_does_not_parse() {
        for (text, line) in [
            ("", 1),
            ("turbopump ledger 2\n", 1),
            ("turbopump ledger 1\nstamp 0\n", 2),
            ("turbopump ledger 1\nsequence 1\nkept a/b 0 1 1\n", 3),
            ("turbopump ledger 1\nheld 00c0ffee00c0ffee 1\n", 2),
        ] {
            assert_eq!(text.parse::<Ledger>(), Err(LedgerError(line)), "{text:?}");
        }
    }
}
