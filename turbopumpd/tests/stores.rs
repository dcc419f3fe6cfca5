//! What a daemon acknowledged is there after a `kill -9` under load, in each store; and a store is not taken
//! for one of another kind.

mod support;

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use support::{Client, Daemon, PATIENCE, until};

const CLIENTS: usize = 4;
/// Each of them writes to so many keys of its own, in turn.
const KEYS: usize = 5;
/// Values of these lengths replace each other.
const BYTES: [usize; 4] = [20, 9_000, 300, 150_000];
/// What a client has been answered before the kill, at least.
const ANSWERS: u64 = 40;
const ROUNDS: u64 = 3;

#[test]
fn what_was_acknowledged_in_files_survives_a_kill_under_load() {
    survives("file");
}

#[cfg(feature = "fjall")]
#[test]
fn what_was_acknowledged_in_fjall_survives_a_kill_under_load() {
    survives("fjall");
}

/// Of a key: the newest number that was acknowledged, and the newest that was sent.
type Known = [(u64, u64); KEYS];

fn survives(store: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut known = [[(0, 0); KEYS]; CLIENTS];
    for round in 0..ROUNDS {
        let durability = if round == 0 { "synced" } else { "buffered" };
        let options = ["--store", store, "--durability", durability];
        let mut daemon = Daemon::start_in(folder.path(), &options);
        assert_eq!(daemon.get("/status").json()["store"], store);
        check(&daemon, &known);
        let answers = AtomicU64::new(0);
        thread::scope(|scope| {
            for (client, known) in known.iter_mut().enumerate() {
                let (unix, answers) = (&daemon.unix, &answers);
                scope.spawn(move || write(unix, client, known, answers));
            }
            until("enough is acknowledged", PATIENCE, || {
                answers.load(Ordering::Relaxed) >= CLIENTS as u64 * ANSWERS
            });
            daemon.signal("-KILL");
        });
        daemon.wait_end(PATIENCE);
    }
    check(&Daemon::start_in(folder.path(), &["--store", store]), &known);
}

/// Until the daemon is gone.
fn write(unix: &Path, client: usize, known: &mut Known, answers: &AtomicU64) {
    let Ok(mut connection) = Client::try_unix(unix, PATIENCE) else { return };
    loop {
        for (at, (acknowledged, sent)) in known.iter_mut().enumerate() {
            *sent += 1;
            let body = value(client, at, *sent);
            let head = format!(
                "POST /write?name={client}-{at} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            match connection.try_ask(&[head.as_bytes(), &body].concat()) {
                Ok(answer) => assert_eq!(answer.status, 200),
                Err(_) => return,
            }
            *acknowledged = *sent;
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn check(daemon: &Daemon, known: &[Known; CLIENTS]) {
    for (client, known) in known.iter().enumerate() {
        for (at, &(acknowledged, sent)) in known.iter().enumerate().filter(|(_, (_, sent))| *sent > 0) {
            let answer = daemon.get(&format!("/read?name={client}-{at}"));
            if answer.status == 404 && acknowledged == 0 {
                continue;
            }
            assert_eq!(answer.status, 200, "{client}-{at}: {acknowledged} was acknowledged");
            let expected = (acknowledged..=sent).any(|n| value(client, at, n) == answer.body);
            assert!(expected, "{client}-{at}: neither of {acknowledged} to {sent}");
        }
    }
}

fn value(client: usize, at: usize, number: u64) -> Vec<u8> {
    let len = BYTES[(number as usize + at) % BYTES.len()];
    format!("{client}-{at} {number} ").into_bytes().into_iter().cycle().take(len).collect()
}

#[cfg(feature = "fjall")]
#[test]
fn a_store_of_another_kind_is_refused_in_one_line_that_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for (made_as, opened_as, what) in
        [("file:a", "fjall:a", "turbopump file store"), ("fjall:b", "file:b", "turbopump fjall store")]
    {
        drop(Daemon::start_in(folder.path(), &["--store", made_as]));
        let mut command = support::binary();
        command.args(["--port", "0", "-l", "127.0.0.1:0", "--store", opened_as, "--home"]);
        let output = command.arg(folder.path()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.trim().lines().count()), (Some(2), 1), "{stderr}");
        assert!(stderr.contains(what), "{stderr}");
    }
}
