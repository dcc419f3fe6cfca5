//! Clauses about names and contexts that went wrong somewhere once.

use super::{StorageSuite, parts::*};
use crate::{model::Actor, storage::Storage};

impl<S: Storage> StorageSuite<'_, S> {
    pub(super) fn hostile_names(&self) {
        let storage = self.made();
        let names = hostile_names();
        for (n, name) in (1..).zip(&names) {
            ok(&storage, &[put(name, version(n, name.as_bytes()), name.as_bytes(), &[])]);
        }
        let check = |storage: &S| {
            for (n, name) in (1..).zip(&names) {
                assert_eq!(
                    read(storage, &key(name)),
                    [record(version(n, name.as_bytes()), name.as_bytes())],
                    "{name:?}"
                );
            }
        };
        check(&storage);
        let storage = match &self.reopen {
            None => storage,
            Some(reopen) => {
                let storage = reopen(storage);
                assert_eq!(load(&storage).0.len(), names.len(), "every name is there after reopening");
                check(&storage);
                storage
            }
        };
        for (n, name) in (1..).zip(&names).step_by(2) {
            ok(&storage, &[remove(name, &[n])]);
        }
        for (n, name) in (1..).zip(&names) {
            let left = if n % 2 == 1 { vec![] } else { vec![n] };
            assert_eq!(
                dots(&storage, name),
                left,
                "removing another name removed {name:?}, or it was not removed"
            );
        }
    }

    pub(super) fn large_context(&self) {
        let storage = self.made();
        for (n, ranges) in [(1, 60), (2, 200), (3, 20_000)] {
            let mut large = version(n, b"v");
            for actor in 0..ranges {
                large.context.add(Actor(actor << 40), n, u64::MAX - actor);
            }
            ok(&storage, &[put("k", large.clone(), b"v", &[n - 1])]);
            assert_eq!(read(&storage, &key("k")), [record(large, b"v")], "a context of {ranges} ranges");
        }
        ok(&storage, &[remove("k", &[3])]);
        assert_eq!(dots(&storage, "k"), []);
    }
}

/// Names that went wrong somewhere once.
pub(super) fn hostile_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "a",
        "A",
        "aA",
        "Aa",
        "AA",
        "aa",
        "^a",
        "%41",
        "%61",
        "a%",
        ".",
        "..",
        "...",
        "./a",
        "../a",
        "../../a",
        "/",
        "/a",
        "a/",
        "a/b",
        "a//b",
        "a\\b",
        "/etc/passwd",
        "-",
        "-rf",
        "~",
        "~root",
        "*",
        "?",
        " ",
        "  ",
        "a ",
        " a",
        "\t",
        "\n",
        "\r\n",
        "\0",
        "a\0",
        "a\0b",
        "\u{1}",
        "\u{7f}",
        "\u{85}",
        "\u{202e}",
        "\u{feff}",
        "ß",
        "SS",
        "ẞ",
        "é",
        "e\u{301}",
        "ﬁ",
        "fi",
        "İ",
        "ı",
        "🚀",
        "con",
        "nul.txt",
        "lock",
        "data",
        "staging",
        "turbopump.store",
        ".meta",
        "a.meta",
        "a@0000000000000001-1",
        "a@0000000000000001-1.meta",
        "0000000000000001-1",
        "@0000000000000001-1",
        "a@",
        "@",
        "a~",
        "put-1",
        "stage-1",
        "user.tp",
        "{}",
        "$HOME",
        "`id`",
        "'",
        "\"",
        "a;b",
        "a&b=c",
        "a?b#c",
        "%00",
        "%2f",
        "%2e%2e",
    ]
    .map(str::to_owned)
    .to_vec();
    // Around what file systems allow as a name, and up to the longest key; such as differ at the
    // end only, and in case only.
    for len in [90, 99, 100, 101, 142, 143, 144, 217, 218, 250, 255, 256, 300, 1_023, 1_024] {
        names.extend(["a", "A"].map(|letter| letter.repeat(len)));
        names.push(format!("{}b", "a".repeat(len - 1)));
        names.push("/".repeat(len));
    }
    names.push("é".repeat(512));
    names.push("../".repeat(341));
    names
}
