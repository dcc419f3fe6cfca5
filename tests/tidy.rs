//! The rules of the house, read off the source tree.
//!
//! Each rule is a function from sources to violations, `path:line: what and what instead`. A rule is
//! changed here and in its reason together; the last test plants a violation of each.

use std::{fs, path::Path, process::Command};

/// What each module may name of the others, as in the picture of the design: dependencies run one
/// way. A longer entry allows just that name. Files that are not listed may name everything.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("mutation", &[]),
    ("fixed_map", &[]),
    ("model", &["mutation"]),
    ("wire", &["model"]),
    ("digest", &["model"]),
    ("partition", &["model"]),
    ("storage", &["model", "fixed_map"]),
    ("identity", &["model"]),
    ("transport", &["model", "identity", "config::USUAL_PATIENCE"]),
    ("config", &["model", "partition", "error"]),
    ("error", &["model", "config", "partition", "storage::StorageError", "transport::TransportError"]),
    // The core speaks of changes to a storage, and knows none.
    (
        "core",
        &[
            "wire",
            "digest",
            "partition",
            "model",
            "config",
            "error",
            "storage::Change",
            "storage::StageId",
            "mutation",
            "fixed_map",
        ],
    ),
    (
        "driver",
        &[
            "core",
            "storage",
            "transport",
            "wire",
            "partition",
            "model",
            "config",
            "error",
            "identity",
            "fixed_map",
        ],
    ),
];

/// The modules that may name everything: what users see, and what tests them.
const OUTER: &[&str] =
    &["lib", "guide", "node", "builder", "operations", "pending", "reader", "testing", "writer"];

/// The modules that run in the simulator, from one seed.
const PURE: &[&str] = &["core", "model", "mutation", "wire", "digest", "partition"];

/// Clocks, threads, files, sockets and chance: what pure modules do not name. Each is a path or the
/// end of one.
const IMPURE: &[&str] = &[
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "RandomState",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "UnixDatagram",
    "ToSocketAddrs",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "std::os",
    "getrandom",
    "rand",
    "mio",
    "socket2",
];

/// What the daemon does not name of the library, public or not.
const INNER: &[&str] = &["core", "driver", "digest", "wire", "testing"];

const MAX_CODE_LINES: usize = 500;

/// What lies at the top of the repository, beside dotfiles.
const TOP: &[&str] = &[
    "benches",
    "Cargo.lock",
    "Cargo.toml",
    "CHANGELOG.md",
    "clippy.toml",
    "examples",
    "fuzz",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "rustfmt.toml",
    "src",
    "tests",
    "turbopumpd",
];

#[test]
fn modules_depend_on_each_other_one_way() {
    holds(dependencies_run_one_way);
}

#[test]
fn pure_modules_use_no_clock_thread_socket_file_or_chance() {
    holds(pure_modules_are_pure);
}

#[test]
fn each_foreign_part_is_named_in_one_place() {
    holds(foreign_parts_have_one_place);
}

#[test]
fn the_daemon_uses_the_public_api_and_nothing_else() {
    holds(the_daemon_stays_outside);
}

#[test]
fn an_example_begins_with_the_command_that_runs_it() {
    holds(examples_say_how_to_run);
}

#[test]
fn no_file_outgrows_its_reader() {
    holds(files_stay_short);
}

#[test]
fn nothing_is_left_to_do() {
    holds(nothing_is_unfinished);
}

#[test]
fn tests_wait_for_conditions_and_do_not_sleep() {
    holds(tests_do_not_sleep);
}

/// Goal: the first thing that a visitor sees stays clear. Method: ask git, so that what a running
/// daemon or an editor leaves behind does not count; a packaged crate has no git and is skipped.
#[test]
fn the_top_of_the_repository_holds_the_known_names_only() {
    let git = Command::new("git").args(["ls-files"]).current_dir(root()).output();
    let Some(git) = git.ok().filter(|git| git.status.success() && root().join(".git").exists()) else {
        return;
    };
    let files = String::from_utf8(git.stdout).expect("git tells names as UTF-8");
    assert_eq!(strangers_at_the_top(files.lines()), [""; 0], "{TOP:?} and dotfiles are known");
}

fn dependencies_run_one_way(source: &Source) -> Vec<String> {
    let Some(module) = source.module() else { return Vec::new() };
    if OUTER.contains(&module) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{}:1: the module {module} has no rule in tests/tidy.rs yet", source.path)];
    };
    let named = source.paths().filter_map(|path| Some((path.line, source.rooted(&path.text)?)));
    let wrong = named.filter(|(_, name)| {
        let within = |part: &str| name == part || name.starts_with(&format!("{part}::"));
        !within(module) && !allowed.iter().any(|part| within(part))
    });
    wrong.map(|(line, name)| source.tell(line, &format!("{module} may not name {name}"))).collect()
}

fn pure_modules_are_pure(source: &Source) -> Vec<String> {
    if !source.module().is_some_and(|module| PURE.contains(&module)) {
        return Vec::new();
    }
    let impure = |path: &Named| {
        let text = format!("::{}::", path.text);
        IMPURE.iter().any(|name| match name.starts_with(char::is_uppercase) {
            true => text.contains(&format!("::{name}::")),
            false => text.starts_with(&format!("::{name}::")) && path.text.contains("::"),
        })
    };
    let wrong = source.paths().filter(impure);
    wrong.map(|path| source.tell(path.line, &format!("{} in a pure module", path.text))).collect()
}

fn foreign_parts_have_one_place(source: &Source) -> Vec<String> {
    let places = [
        (
            "udt",
            "src/transport/udt/, or src/transport/mod.rs for the module of that name, or benches/common/raw.rs",
        ),
        ("xattr", "src/storage/, or tests/ which spoil what it wrote"),
        ("ring::signature", "src/identity/"),
        ("rustls", "src/transport/quic/"),
        ("quinn_proto", "src/transport/quic/"),
        ("quinn_udp", "src/transport/quic/"),
        ("nix", "src/transport/udp/"),
    ];
    let mut wrong = Vec::new();
    for path in source.all_paths() {
        for (part, place) in places {
            let at_home = place.split(", or ").any(|home| {
                source.path.starts_with(home.split(' ').next().expect("a place has a first word"))
            });
            if !at_home && path.text.starts_with(&format!("{part}::")) {
                wrong.push(source.tell(path.line, &format!("{part} belongs in {place}")));
            }
        }
    }
    wrong
}

fn the_daemon_stays_outside(source: &Source) -> Vec<String> {
    if !source.path.starts_with("turbopumpd/src/") {
        return Vec::new();
    }
    let inner = |path: &Named| {
        let mut parts = path.text.split("::");
        parts.next() == Some("turbopump") && parts.next().is_some_and(|part| INNER.contains(&part))
    };
    let wrong = source.all_paths().filter(inner);
    wrong.map(|path| source.tell(path.line, &format!("{} is not for the daemon", path.text))).collect()
}

fn examples_say_how_to_run(source: &Source) -> Vec<String> {
    let is_example = match source.path.strip_prefix("examples/") {
        Some(name) => !name.contains('/') || name.ends_with("/main.rs"),
        None => false,
    };
    match is_example && !source.text.starts_with("//! cargo run ") {
        true => vec![source.tell(1, "line 1 of an example is `//! cargo run ...`")],
        false => Vec::new(),
    }
}

fn files_stay_short(source: &Source) -> Vec<String> {
    let lines = source.shipped().lines().filter(|line| !line.trim().is_empty()).count();
    match source.path.contains("src/") && lines > MAX_CODE_LINES {
        true => vec![source.tell(1, &format!("{lines} lines of code; look for the second noun"))],
        false => Vec::new(),
    }
}

fn nothing_is_unfinished(source: &Source) -> Vec<String> {
    // Put together here, for this file is read too.
    let marks = [concat!("FIX", "ME"), concat!("/ho", "me/"), concat!("/wo", "rk/")];
    let macros = [concat!("todo", "!"), concat!("unimplemented", "!")];
    let mut wrong = Vec::new();
    for (number, (text, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
        let marks = marks.iter().filter(|mark| text.contains(**mark));
        let macros = macros.iter().filter(|name| code.contains(**name));
        wrong.extend(marks.chain(macros).map(|mark| source.tell(number + 1, &format!("{mark} is left"))));
    }
    wrong
}

fn tests_do_not_sleep(source: &Source) -> Vec<String> {
    let shipped = if source.is_test() { 0 } else { source.shipped().lines().count() };
    let sleeps = source.all_paths().filter(|path| {
        path.line > shipped
            && (path.text.ends_with("thread::sleep") || path.text.ends_with("thread::sleep_ms"))
    });
    sleeps.map(|path| source.tell(path.line, "a test waits for a condition, with a bound")).collect()
}

fn strangers_at_the_top<'a>(files: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let tops = files.filter_map(|file| file.split('/').next());
    let mut strangers: Vec<&str> = tops.filter(|top| !top.starts_with('.') && !TOP.contains(top)).collect();
    strangers.dedup();
    strangers
}

type Rule = fn(&Source) -> Vec<String>;

fn holds(rule: Rule) {
    let sources = sources();
    assert!(sources.iter().any(|source| source.path == "src/lib.rs"), "the tree is read");
    let wrong: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of ours, by path.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let tops = ["src", "examples", "tests", "benches", "turbopumpd", "fuzz"];
    let mut left: Vec<_> = tops.iter().map(|top| root().join(top)).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() && !path.ends_with("target") {
            let entries = fs::read_dir(&path).expect("a folder of the tree can be listed");
            left.extend(entries.map(|entry| entry.expect("an entry of the tree can be read").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source is UTF-8");
            let path = path.strip_prefix(root()).expect("it lies below");
            found.push(Source::new(&path.to_string_lossy().replace('\\', "/"), &text));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// One file: as it is, and with comments and the insides of texts blanked, line by line the same.
struct Source {
    path: String,
    text: String,
    code: String,
}

/// A path in the code (`std::time::Instant`), groups written out, and where it stands.
struct Named {
    line: usize,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), code: blank(text) }
    }

    /// The module below `src` of the library that it belongs to.
    fn module(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    fn is_test(&self) -> bool {
        let mut parts = self.path.split('/');
        self.path.ends_with("/tests.rs") || parts.any(|part| part == "tests")
    }

    /// The code before the file's own tests.
    fn shipped(&self) -> &str {
        if self.is_test() {
            return "";
        }
        match self.code.find("#[cfg(test)]\nmod tests {") {
            Some(end) => &self.code[..end],
            None => &self.code,
        }
    }

    fn paths(&self) -> impl Iterator<Item = Named> {
        paths(self.shipped()).into_iter()
    }

    fn all_paths(&self) -> impl Iterator<Item = Named> {
        paths(&self.code).into_iter()
    }

    /// The path as seen from the root of the crate, if it goes there: by `crate::`, or by as many
    /// `super::` as the file lies deep.
    fn rooted(&self, path: &str) -> Option<String> {
        if let Some(name) = path.strip_prefix("crate::") {
            return Some(name.into());
        }
        let below = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let depth = below.strip_suffix("/mod").unwrap_or(below).split('/').count();
        path.strip_prefix(&"super::".repeat(depth)).map(Into::into)
    }

    fn tell(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// Blanks comments wholly and texts between their quotes, and keeps all line breaks.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let after_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (length, filler) = match next {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), ' '),
            '/' if rest.starts_with("/*") => (block_comment(rest), ' '),
            '"' => (quoted(rest), '"'),
            'r' | 'b' if !after_word && raw_text(rest).is_some() => (raw_text(rest).unwrap_or(1), '"'),
            '\'' => match character(rest) {
                Some(length) => (length, '"'),
                None => (1, '\''),
            },
            _ => (next.len_utf8(), next),
        };
        let (taken, left) = rest.split_at(length);
        match taken.chars().count() {
            1 => code.push(filler),
            _ => code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { filler })),
        }
        rest = left;
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"..."`, `r#"..."#`, `br"..."`.
fn raw_text(text: &str) -> Option<usize> {
    let start = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    let inside = start[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(text.len() - inside.len() + length)
}

/// `'x'` and `'\n'`, and not the `'a` of a lifetime.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    let mut chars = inside.char_indices();
    match chars.next()?.1 {
        '\\' => inside[2..].find('\'').map(|at| at + 4),
        _ => chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 2),
    }
}

/// All paths in the code; one of a single word counts too.
fn paths(code: &str) -> Vec<Named> {
    let tokens = tokens(code);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        at = path(&tokens, at, "", &mut found);
    }
    found
}

/// Reads the path that begins at a token, appended to `prefix`. Gives the token after it.
fn path(tokens: &[(usize, &str)], mut at: usize, prefix: &str, found: &mut Vec<Named>) -> usize {
    let is = |at: usize, what: &str| tokens.get(at).is_some_and(|(_, token)| *token == what);
    let word = |at: usize| tokens.get(at).filter(|(_, token)| token.starts_with(is_word));
    let Some(&(line, first)) = word(at) else { return at + 1 };
    let mut text = format!("{prefix}{first}");
    at += 1;
    while is(at, "::") {
        if let Some((_, next)) = word(at + 1) {
            text = format!("{text}::{next}");
            at += 2;
        } else if is(at + 1, "{") {
            at += 2;
            while at < tokens.len() && !is(at, "}") {
                at = path(tokens, at, &format!("{text}::"), found);
            }
            return at + 1;
        } else {
            break;
        }
    }
    found.push(Named { line, text });
    at
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words, `::`, and single other characters, each with its line.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(next) = rest.chars().next() {
            let length = match next {
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                _ if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            tokens.push((number + 1, &rest[..length]));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Goal: every rule can fail. Method: a file for each that breaks it, beside one that looks as if.
#[test]
fn a_planted_violation_is_caught() {
    let planted: &[(Rule, &str, &str)] = &[
        (dependencies_run_one_way, "src/model/key.rs", "use crate::wire::Message;"),
        (dependencies_run_one_way, "src/core/read.rs", "use crate::{model::Key, driver::{Loop}};"),
        (dependencies_run_one_way, "src/core/read.rs", "fn f() { super::super::storage::open(); }"),
        (dependencies_run_one_way, "src/core/mod.rs", "use crate::storage::{Change, Storage};"),
        (dependencies_run_one_way, "src/wire/mod.rs", "use super::core::Core;"),
        (dependencies_run_one_way, "src/wire/mod.rs", "use crate::Node;"),
        (dependencies_run_one_way, "src/wire/mod.rs", "const C: char = '\"'; use crate::core::Core; //\""),
        (dependencies_run_one_way, "src/novel.rs", ""),
        (pure_modules_are_pure, "src/core/read.rs", "use std::{io, time::{Duration, Instant}};"),
        (pure_modules_are_pure, "src/core/read.rs", "fn f() { std::thread::spawn(g); }"),
        (pure_modules_are_pure, "src/wire/mod.rs", "use std::net::{SocketAddr, UdpSocket};"),
        (pure_modules_are_pure, "src/digest/mod.rs", "type A = std::collections::HashMap<u8, u8>;"),
        (pure_modules_are_pure, "src/partition/ring.rs", "use rand::Rng;"),
        (foreign_parts_have_one_place, "src/driver/links.rs", "use udt::Socket;"),
        (foreign_parts_have_one_place, "src/transport/udp.rs", "fn f() { udt::startup() }"),
        (foreign_parts_have_one_place, "src/driver/disk.rs", "fn f() { xattr::get(a, b); }"),
        (the_daemon_stays_outside, "turbopumpd/src/main.rs", "use turbopump::{Node, core::Core};"),
        (the_daemon_stays_outside, "turbopumpd/src/main.rs", "fn f() { turbopump::driver::run() }"),
        (examples_say_how_to_run, "examples/hello.rs", "//! Says hello.\nfn main() {}"),
        (examples_say_how_to_run, "examples/chat/main.rs", "fn main() {}"),
        (files_stay_short, "src/core/mod.rs", &"fn f() {}\n".repeat(MAX_CODE_LINES + 1)),
        (nothing_is_unfinished, "src/node.rs", concat!("fn f() { todo", "!() }")),
        (nothing_is_unfinished, "tests/api.rs", concat!("// FIX", "ME: later")),
        (nothing_is_unfinished, "src/node.rs", concat!("const A: &str = \"/ho", "me/me\";")),
        (tests_do_not_sleep, "tests/api.rs", "fn f() { std::thread::sleep(d) }"),
        (
            tests_do_not_sleep,
            "src/node.rs",
            "#[cfg(test)]\nmod tests {\n use std::thread;\nfn f() { thread::sleep(d) } }",
        ),
    ];
    for (rule, path, text) in planted {
        assert_ne!(rule(&Source::new(path, text)), [""; 0], "{path} is wrong: {text}");
    }
    assert_eq!(strangers_at_the_top(["src/lib.rs", ".ci/run", "notes.txt"].into_iter()), ["notes.txt"]);

    let right: &[(Rule, &str, &str)] = &[
        (
            dependencies_run_one_way,
            "src/core/read.rs",
            "//! [`crate::driver`]\nuse crate::{core::index, wire};",
        ),
        (
            dependencies_run_one_way,
            "src/core/read.rs",
            "/* crate::driver /* */ crate::node */ use super::write;",
        ),
        (dependencies_run_one_way, "src/core/read.rs", "const A: &str = r#\"\"crate::driver\"#;"),
        (
            dependencies_run_one_way,
            "src/core/read.rs",
            "#[cfg(test)]\nmod tests {\n use crate::testing::World; }",
        ),
        (dependencies_run_one_way, "src/core/mod.rs", "use crate::storage::{Change, StageId};"),
        (dependencies_run_one_way, "src/transport/udt/socket.rs", "use super::super::Transport;"),
        (
            pure_modules_are_pure,
            "src/core/mod.rs",
            "use std::{net::SocketAddr, time::Duration}; let rand = 1;",
        ),
        (pure_modules_are_pure, "src/driver/mod.rs", "use std::time::Instant;"),
        (foreign_parts_have_one_place, "src/transport/udt/mod.rs", "use udt::Socket;"),
        (foreign_parts_have_one_place, "src/builder.rs", "use crate::transport::udt::UdtTransport;"),
        (the_daemon_stays_outside, "turbopumpd/src/main.rs", "use turbopump::{Node, model::Key}; mod core;"),
        (examples_say_how_to_run, "examples/hello.rs", "//! cargo run --example hello\nfn main() {}"),
        (examples_say_how_to_run, "examples/chat/room.rs", "//! A room."),
        (files_stay_short, "src/core/mod.rs", &"// why\n\n".repeat(MAX_CODE_LINES + 1)),
        (nothing_is_unfinished, "src/node.rs", concat!("// no todo", "!() here")),
        (tests_do_not_sleep, "src/driver/mod.rs", "fn f() { std::thread::sleep(d) }"),
    ];
    for (rule, path, text) in right {
        assert_eq!(rule(&Source::new(path, text)), [""; 0], "{path} is right: {text}");
    }
}
