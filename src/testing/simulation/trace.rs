//! What happened, as a hash that tells whether two runs were the same, and as lines to read.

use xxhash_rust::xxh3::Xxh3;

/// What happened so far.
pub struct Trace {
    hasher: Xxh3,
    events: u64,
    printed: bool,
}

impl Trace {
    /// Nothing has happened yet; `printed` says whether every event goes to the standard output.
    pub fn new(printed: bool) -> Self {
        Self { hasher: Xxh3::new(), events: 0, printed }
    }

    /// Notes an event: when, where, and what, in words that are made only if somebody reads them.
    pub fn note(&mut self, at_us: u64, node: usize, code: u64, text: impl FnOnce() -> String) {
        self.events += 1;
        for word in [at_us, node as u64, code] {
            self.hasher.update(&word.to_be_bytes());
        }
        if self.printed {
            println!("{:>12.3} ms  node {node}  {}", at_us as f64 / 1_000.0, text());
        }
    }

    /// The hash over all events so far.
    pub fn hash(&self) -> u64 {
        self.hasher.digest()
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Whether lines are printed.
    pub fn is_printed(&self) -> bool {
        self.printed
    }
}
