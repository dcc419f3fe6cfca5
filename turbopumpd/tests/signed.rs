//! Signed writes through real daemons: signed by the command line tool, sent to one node, read and checked
//! from another, before and after restarts.

mod support;

use std::{fs, io::Write, path::Path, process::Stdio, time::Duration};

use support::{
    Answer, binary,
    cluster::{Cluster, SLACK, UDP},
    until,
};
use turbopump::{
    Identity, Key, PublicKey, Statement,
    identity::author_of,
    model::{Digest, Kind, Mirrors, Seal, parse_signature},
};

const WITHIN: Duration = Duration::from_secs(30);

/// What `turbopumpd sign` prints.
fn sign(key_file: &Path, options: &[&str], value: &str) -> String {
    let mut command = binary();
    command.args(["sign", "--key-file", key_file.to_str().unwrap()]).args(options);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Who signed what this answer of `/read` says, checked with nothing but the answer.
fn author(name: &str, answer: &Answer) -> Option<PublicKey> {
    let key = Key::new(name).unwrap();
    let header = |name: &str| answer.headers.get(name).map(String::as_str);
    let seal = Seal {
        author: header("turbopump-author")?.parse().ok()?,
        signature: parse_signature(header("turbopump-signature")?)?,
    };
    let statement = Statement {
        author: seal.author,
        sequence: header("turbopump-sequence")?.parse().ok()?,
        kind: Kind::Value,
        len: answer.body.len() as u64,
        digest: Digest::of(&answer.body),
        mirrors: Mirrors(header("turbopump-mirrors")?.parse().ok()?),
        expires_ms: header("turbopump-expires").and_then(|at| at.parse().ok()),
        context: header("turbopump-signed-context")?.parse().ok()?,
    };
    author_of(&key, &statement.version(&key, seal.signature).ok()?)
}

#[test]
fn a_signed_write_is_taken_kept_and_checked_by_its_reader_and_no_other_is() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = |number: u8| {
        let path = folder.path().join(number.to_string());
        fs::write(&path, format!("{number:02x}").repeat(32) + "\n").unwrap();
        (path, Identity::from_seed([number; 32]).public_key())
    };
    let ((alice_file, alice), (mallory_file, _)) = (key_file(1), key_file(2));
    let demand = format!("signed/={alice}");
    let mut cluster = Cluster::start(3, &[UDP, &["--require-signed", &demand]].concat());
    let refused = |target: &str, value: &str, error: &str| {
        let answer = cluster.nodes[0].post(target, value.as_bytes());
        assert_eq!(answer.error(), (403, error.into()), "{target}: {}", answer.text());
    };
    refused("/write?name=signed/a", "value", "not_signed");
    refused("/delete?name=signed/a", "", "not_signed");
    let by_mallory = sign(&mallory_file, &["signed/a"], "value");
    refused(&format!("/write?{by_mallory}"), "value", "not_signed");
    let options = ["signed/a", "--sequence", "5", "--expires", "9000000000000"];
    let query = sign(&alice_file, &options, "value");
    refused(&format!("/write?{query}"), "another", "not_signed");
    refused(&format!("/write?{}", query.replace("mirrors=3", "mirrors=2")), "value", "not_signed");
    refused(&format!("/write?{}", query.replace("sequence=5", "sequence=6")), "value", "not_signed");
    refused(&format!("/write?{}", query.replace("expires=9", "expires=8")), "value", "not_signed");
    refused(&format!("/write?{}", query.replace("%2Fa", "%2Fb")), "value", "not_signed");
    refused(&format!("/delete?{query}"), "", "not_signed");
    assert_eq!(cluster.nodes[0].get("/read?name=signed/a&read=all").status, 404);
    assert!(cluster.nodes[0].metric("turbopump_signatures_refused_total") >= 9);

    // Twice: it says the same.
    for _ in 0..2 {
        let answer = cluster.nodes[0].post(&format!("/write?{query}&ack=all"), b"value");
        assert_eq!((answer.status, answer.json()["acked"].as_u64()), (200, Some(3)), "{}", answer.text());
    }
    let check = |cluster: &Cluster, value: &str| {
        for node in &cluster.nodes {
            let answer = node.get("/read?name=signed/a&local=1");
            assert_eq!((answer.status, answer.text().as_str()), (200, value));
            assert_eq!(author("signed/a", &answer), Some(alice));
            assert_eq!(author("signed/b", &answer), None, "a seal is of one key");
        }
    };
    check(&cluster, "value");
    (0..3).for_each(|i| cluster.kill(i));
    (0..3).for_each(|i| cluster.relaunch(i));
    cluster.all_up();
    check(&cluster, "value");

    let long = "x".repeat(300_000);
    let newer = sign(&alice_file, &["signed/a", "--sequence", "6"], &long);
    let answer = cluster.nodes[1].post(&format!("/write?{newer}&ack=all"), long.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    check(&cluster, &long);
    let stale = cluster.nodes[2].post(&format!("/write?{query}"), b"value");
    assert_eq!(stale.error(), (409, "out_of_date".into()));
    let delete = sign(&alice_file, &["signed/a", "--sequence", "7", "--delete"], "");
    let answer = cluster.nodes[2].post(&format!("/delete?{delete}&ack=all"), b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    until("it is gone everywhere", WITHIN * SLACK, || {
        cluster.nodes.iter().all(|node| node.get("/read?name=signed/a&local=1").status == 404)
    });
    let free = cluster.nodes[0].post("/write?name=free&ack=all", b"unsigned");
    assert_eq!(free.status, 200);
    assert_eq!(author("free", &cluster.nodes[1].get("/read?name=free")), None);
}
