//! Bugs planted in the core, each of which the simulator has to find.
//!
//! A planted bug is a line behind `cfg(turbopump_mutation = "NAME")`. It is compiled in by a wrapper
//! around the compiler that only this workspace's crates go through. That takes a minute or two, so
//! it happens only where `TURBOPUMP_MUTATIONS` is set.

use std::{env, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Each planted bug, and in how many seeds it has to show.
const MUTATIONS: [(&str, u64); 6] = [
    ("ack_before_store", 50),
    ("reused_dot", 50),
    ("handoff_before_the_ack", 50),
    ("handoff_of_stored_only", 3_000),
    ("forgotten_sibling", 50),
    ("range_cut_short", 1_000),
];

/// Goal: a simulator that finds nothing is one that works. Method: plant bugs and see it fail.
#[test]
fn every_planted_bug_is_found() {
    if env::var_os("TURBOPUMP_MUTATIONS").is_none() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("target/mutations");
    fs::create_dir_all(&folder).unwrap();
    for (name, seeds) in MUTATIONS {
        let wrapper = folder.join(format!("{name}.sh"));
        let script = format!("#!/bin/sh\nexec \"$@\" --cfg 'turbopump_mutation=\"{name}\"'\n");
        fs::write(&wrapper, script).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--release", "--no-default-features", "--features", "testing"]);
        cargo.args(["--test", "simulation", "--target-dir"]).arg(&folder);
        cargo.env("RUSTC_WORKSPACE_WRAPPER", &wrapper).env_remove("TURBOPUMP_MUTATIONS").current_dir(root);
        let built = cargo.arg("--no-run").status().unwrap();
        assert!(built.success(), "{name} does not compile");
        cargo.args(["--", "new_seeds", "--nocapture"]).env("TURBOPUMP_STOP_AT_FIRST", "1");
        cargo.env("TURBOPUMP_NEW_SEEDS", seeds.to_string()).env("TURBOPUMP_FIRST_SEED", "0");
        let mut run = Command::new(env!("CARGO"));
        run.args(cargo.get_args().filter(|arg| *arg != "--no-run")).current_dir(root);
        cargo.get_envs().filter_map(|(key, value)| Some((key, value?))).for_each(|(k, v)| _ = run.env(k, v));
        let output = run.env_remove("TURBOPUMP_MUTATIONS").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let found = text.lines().find(|line| line.starts_with("seed "));
        assert!(found.is_some(), "{name} was not found in {seeds} seeds:\n{text}");
        println!("{name}: {}", found.unwrap_or_default().chars().take(160).collect::<String>());
    }
}
