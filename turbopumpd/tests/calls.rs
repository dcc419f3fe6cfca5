//! Every call and every error row of the contract, against the running binary.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{Answer, Daemon, PATIENCE, until};

fn missing_and_malformed(answers: Vec<(&str, Answer)>) {
    for (parameter, answer) in answers {
        let (status, code) = answer.error();
        assert_eq!(status, 400, "{code} {}", answer.text());
        assert!(code.ends_with("_parameter"), "{code}");
        assert!(answer.text().contains(parameter), "{parameter} is named: {}", answer.text());
    }
}

#[test]
fn status_says_what_runs() {
    let daemon = Daemon::start(&["--name", "one", "--mirrors", "2"]);
    daemon.post("/write?name=a", b"v");
    daemon.post("/write?name=b", b"v");
    daemon.post("/delete?name=b", b"");
    let status = daemon.get("/status");
    assert!(status.text().starts_with(r#"{"state":"running","node":"one","version":"#), "{}", status.text());
    let status = status.json();
    assert_eq!((&status["state"], &status["node"]), (&"running".into(), &"one".into()));
    assert_eq!((&status["transport"], &status["store"]), (&"udp".into(), &"memory".into()));
    assert_eq!((&status["mode"], &status["mirrors"]), (&"partition".into(), &2.into()));
    assert_eq!((&status["members"], &status["keys"]), (&1.into(), &1.into()));
    assert!(status["tombstones"].is_u64() && status["owed"].is_u64() && status["uptime_ms"].is_u64());
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn status_says_what_waits_here() {
    let daemon = Daemon::start(&[]);
    daemon.post("/write?name=a", b"v");
    daemon.post("/delete?name=a", b"");
    until("all keys were looked at", PATIENCE, || daemon.get("/status").json()["safe_to_stop"] == true);
    let status = daemon.get("/status").json();
    assert_eq!(status["handoff"], 0);
    assert_eq!((&status["tombstones"], &status["checking_store"]), (&1.into(), &false.into()));
    assert!(status["oldest_tombstone_ms"].is_u64() && status["moving_percent"].is_null());
    assert_eq!((&status["burial_waits_for"], &status["peers"]), (&json!([]), &json!([])));
}

/// Goal: what is deleted leaves nothing, in a real process as in the simulator. Method: no grace.
#[test]
fn a_deleted_key_is_not_even_listed_in_the_end() {
    let daemon = Daemon::start(&["--bury-after", "0"]);
    daemon.post("/write?name=a", b"v");
    daemon.post("/delete?name=a", b"");
    until("the tombstone is gone", PATIENCE, || daemon.get("/status").json()["tombstones"] == 0);
    assert_eq!(daemon.get("/list-keys?deleted=1").json()["keys"], json!([]));
    assert_eq!(daemon.metric("turbopump_buried_total"), 1);
}

#[test]
fn the_last_member_cannot_leave_and_the_ledger_is_nobodys() {
    let daemon = Daemon::start(&[]);
    assert_eq!(daemon.post("/leave", b"").error(), (400, "last_member".into()));
    assert_eq!(daemon.get("/leave").error().0, 405);
    assert_eq!(daemon.get("/status").json()["state"], "running");
    assert_eq!(daemon.post("/leave?timeout=x", b"").error().0, 400);
    for answer in
        [daemon.post("/write?name=.turbopump/ledger", b"v"), daemon.get("/read?name=.turbopump/ledger")]
    {
        assert_eq!(answer.error(), (400, "malformed_parameter".into()));
    }
}

#[test]
fn what_is_written_is_read() {
    let daemon = Daemon::start(&[]);
    let written = daemon.post("/write?name=foo&mirrors=1&ack=1", b"bytes\n");
    assert_eq!(written.status, 200);
    let json = written.json();
    assert_eq!((&json["name"], &json["size"]), (&"foo".into(), &6.into()));
    assert_eq!((&json["mirrors"], &json["acked"]), (&1.into(), &1.into()));
    let read = daemon.get("/read?name=foo");
    assert_eq!((read.status, read.text().as_str()), (200, "bytes\n"));
    assert_eq!(read.header("turbopump-version"), json["version"].as_str().unwrap());
    assert_eq!(read.header("turbopump-context"), json["context"].as_str().unwrap());
    assert_eq!(read.header("turbopump-siblings"), "1");
    assert_eq!(read.header("etag"), format!("\"{}\"", json["version"].as_str().unwrap()));
    for more in ["&read=one", "&read=quorum", "&read=all", "&local=1", "&local=0"] {
        assert_eq!(daemon.get(&format!("/read?name=foo{more}")).text(), "bytes\n", "{more}");
    }
    let version = json["version"].as_str().unwrap();
    assert_eq!(daemon.get(&format!("/read?name=foo&version={version}")).text(), "bytes\n");
    let gone = daemon.get("/read?name=foo&version=00000000000000aa-7");
    assert_eq!(gone.error(), (404, "no_such_version".into()));
    assert_eq!(daemon.get("/read?name=never").error(), (404, "no_such_key".into()));
    assert_eq!(daemon.post("/write?name=foo&copies=0", b"2").json()["mirrors"], 0);
}

#[test]
fn an_empty_value_is_a_value_and_a_deleted_key_is_none() {
    let daemon = Daemon::start(&[]);
    assert_eq!(daemon.post("/write?name=e", b"").json()["size"], 0);
    let read = daemon.get("/read?name=e");
    assert_eq!((read.status, read.body.len()), (200, 0));
    assert_eq!(daemon.get("/list-keys").json()["keys"][0]["versions"][0]["size"], 0);
    assert_eq!(daemon.post("/delete?name=e", b"").status, 200);
    let gone = daemon.get("/read?name=e");
    assert_eq!(gone.error(), (404, "no_such_key".into()));
    assert!(!gone.header("turbopump-context").is_empty(), "what it takes to write it again");
    let listed = daemon.get("/list-keys").json();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 0);
    assert_eq!(daemon.post("/write?name=e", b"again").status, 200);
    assert_eq!(daemon.get("/read?name=e").text(), "again");
}

#[test]
fn concurrent_writes_are_siblings_until_a_write_settles_them() {
    let daemon = Daemon::start(&[]);
    assert_eq!(daemon.post("/write?name=k&context=", b"one").status, 200);
    assert_eq!(daemon.post("/write?name=k&context=", b"two").status, 200);
    let read = daemon.get("/read?name=k");
    assert_eq!(read.header("turbopump-siblings"), "2");
    let all = daemon.get("/read?name=k&siblings=all").json();
    let mut values: Vec<&str> =
        all.as_array().unwrap().iter().map(|s| s["value"].as_str().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, ["b25l", "dHdv"], "base64 of one and two");
    assert!(all[0]["written_ms"].is_u64() && all[0]["size"] == 3 && all[0]["version"].is_string());
    assert_eq!(daemon.get("/list-keys").json()["keys"][0]["versions"].as_array().unwrap().len(), 2);
    let context = read.header("turbopump-context");
    assert_eq!(daemon.post(&format!("/write?name=k&context={context}"), b"settled").status, 200);
    let read = daemon.get("/read?name=k");
    assert_eq!((read.header("turbopump-siblings"), read.text().as_str()), ("1", "settled"));
    assert_eq!(daemon.get("/read?name=none&siblings=all").status, 404);
}

#[test]
fn a_range_is_a_part_of_the_value() {
    let daemon = Daemon::start(&[]);
    let etag =
        format!("\"{}\"", daemon.post("/write?name=r", b"0123456789").json()["version"].as_str().unwrap());
    let get =
        |lines: &str| daemon.connect().ask(&format!("GET /read?name=r HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
    for (range, part, said) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=8-100", "89", "bytes 8-9/10"),
    ] {
        let answer = get(&format!("Range: {range}\r\n"));
        assert_eq!((answer.status, answer.text().as_str()), (206, part), "{range}");
        assert_eq!(answer.header("content-range"), said);
    }
    let outside = get("Range: bytes=10-\r\n");
    assert_eq!(outside.error(), (416, "range_not_satisfiable".into()));
    assert_eq!(outside.header("content-range"), "bytes */10");
    assert_eq!(get("Range: lines=1-2\r\n").status, 200);
    assert_eq!(get(&format!("Range: bytes=0-1\r\nIf-Range: {etag}\r\n")).status, 206);
    assert_eq!(get("Range: bytes=0-1\r\nIf-Range: \"other\"\r\n").status, 200);
    assert_eq!(get(&format!("If-None-Match: {etag}\r\n")).status, 304);
}

#[test]
fn keys_are_listed_in_order_page_by_page() {
    let daemon = Daemon::start(&[]);
    for i in 0..25 {
        daemon.post(&format!("/write?name=k{i:02}&mirrors=1"), b"v");
    }
    daemon.post("/write?name=other", b"v");
    daemon.post("/write?name=.turbopump/x", b"v");
    daemon.post("/delete?name=k03", b"");
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = daemon.get(&format!("/list-keys?prefix=k&limit=7&after={after}")).json();
        let keys = page["keys"].as_array().unwrap();
        assert!(keys.len() <= 7);
        names.extend(keys.iter().map(|k| k["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let expected: Vec<String> = (0..25).filter(|i| *i != 3).map(|i| format!("k{i:02}")).collect();
    assert_eq!(names, expected);
    let count =
        |query: &str| daemon.get(&format!("/list-keys?{query}")).json()["keys"].as_array().unwrap().len();
    assert_eq!((count(""), count("all=1"), count("prefix=oth")), (25, 26, 1));
    let first = &daemon.get("/list-keys?limit=1").json()["keys"][0];
    assert_eq!((&first["name"], &first["mirrors"]), (&"k00".into(), &1.into()));
    let version = &first["versions"][0];
    assert!(version["version"].is_string() && version["size"] == 1 && version["deleted"] == false);
    assert!(version["written_ms"].is_u64());
}

#[test]
fn wait_ends_when_the_key_comes_or_is_newer_or_the_time_is_up() {
    let daemon = Daemon::start(&[]);
    let begin = Instant::now();
    assert_eq!(daemon.get("/wait?name=w&timeout=0.3").status, 204);
    assert!(begin.elapsed() >= Duration::from_millis(290));
    let mut waiting = daemon.connect();
    waiting.send("GET /wait?name=w&timeout=20 HTTP/1.1\r\nHost: x\r\n\r\n");
    let written = daemon.post("/write?name=w", b"v").json();
    let came = waiting.answer();
    assert_eq!((came.status, came.header("turbopump-siblings")), (200, "1"));
    assert_eq!(came.header("turbopump-version"), written["version"].as_str().unwrap());
    assert_eq!(daemon.get("/wait?name=w&timeout=20").status, 200, "it exists already");
    let context = written["context"].as_str().unwrap();
    waiting.send(format!("GET /wait?name=w&timeout=20&context={context} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!(daemon.get(&format!("/wait?name=w&timeout=0&context={context}")).status, 204);
    let newer = daemon.post("/write?name=w", b"2").json();
    assert_eq!(waiting.answer().header("turbopump-version"), newer["version"].as_str().unwrap());
}

#[test]
fn a_value_with_a_time_to_live_goes_by_itself() {
    let daemon = Daemon::start(&[]);
    assert_eq!(daemon.post("/write?name=t&ttl=0.7", b"v").status, 200);
    assert_eq!(daemon.get("/read?name=t").status, 200);
    support::until("it is gone", Duration::from_secs(5), || daemon.get("/read?name=t").status == 404);
}

#[test]
fn members_are_listed_added_and_removed() {
    let daemon = Daemon::start(&["--name", "one"]);
    let members = daemon.get("/membership").json();
    assert_eq!((&members["self"], &members["members"][0]["id"]), (&"one".into(), &"one".into()));
    assert_eq!(members["members"][0]["state"], "up");
    let added = daemon.post("/add-peer?uid=two&ip=127.0.0.1:9", b"").json();
    let two = &added["members"][1];
    assert_eq!(
        (&two["id"], &two["addrs"][0], &two["weight"]),
        (&"two".into(), &"127.0.0.1:9".into(), &1.into())
    );
    assert_eq!(daemon.post("/remove-peer?uid=two", b"").json()["members"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.post("/remove-peer?uid=three", b"").status, 404);
    assert_eq!(daemon.post("/remove-peer?uid=one", b"").status, 400);
    missing_and_malformed(vec![
        ("uid", daemon.post("/add-peer?ip=127.0.0.1:9", b"")),
        ("ip", daemon.post("/add-peer?uid=two", b"")),
        ("ip", daemon.post("/add-peer?uid=two&ip=nonsense", b"")),
        ("uid", daemon.post("/add-peer?uid=a%20b&ip=127.0.0.1:9", b"")),
        ("uid", daemon.post("/remove-peer", b"")),
    ]);
}

#[test]
fn the_ring_says_who_owns_what() {
    let daemon = Daemon::start(&["--name", "one", "--partitions", "64"]);
    let ring = daemon.get("/ring").json();
    assert_eq!((&ring["partitions"], &ring["nodes"][0]["partitions"]), (&64.into(), &64.into()));
    let of_key = daemon.get("/ring?name=a").json();
    assert!(of_key["partition"].as_u64().unwrap() < 64);
    assert_eq!(of_key["owners"], serde_json::json!(["one"]));
    daemon.post("/write?name=a&mirrors=7", b"v");
    assert_eq!(daemon.get("/ring?name=a").json()["mirrors"], 7, "those that it was written with");
    assert_eq!(daemon.get("/ring?name=a&mirrors=2").json()["mirrors"], 2);
}

#[test]
fn drop_forgets_what_this_node_holds() {
    let daemon = Daemon::start(&[]);
    daemon.post("/write?name=d", b"v");
    assert_eq!(daemon.post("/drop?name=d", b"").json()["dropped"], 1);
    assert_eq!(daemon.get("/read?name=d&local=1").status, 404);
    assert_eq!(daemon.post("/drop?name=never", b"").json()["dropped"], 0);
}

#[test]
fn a_file_is_imported_over_the_unix_socket_only() {
    let daemon = Daemon::start(&["--max-value", "1000"]);
    let path = daemon.folder.join("file");
    std::fs::write(&path, "from a file").unwrap();
    let target = format!("/copy?name=c&path={}&mirrors=1", path.display());
    assert_eq!(daemon.post(&target, b"").json()["size"], 11);
    assert_eq!(daemon.get("/read?name=c").text(), "from a file");
    for lines in ["", "G: x\r\n", "X-Origin: unix\r\n"] {
        let refused = daemon.connect().ask(&format!("POST {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
        assert_eq!(refused.error(), (403, "forbidden".into()));
    }
    std::fs::write(&path, [b'x'; 1001]).unwrap();
    assert_eq!(daemon.post(&target, b"").error(), (413, "too_large".into()));
    assert_eq!(daemon.post("/copy?name=c&path=/no/such", b"").error(), (404, "no_such_file".into()));
    assert_eq!(daemon.post("/copy?name=c&path=/dev/zero", b"").status, 400);
    assert_eq!(daemon.post("/copy?name=c&path=/", b"").status, 400);
    missing_and_malformed(vec![
        ("path", daemon.post("/copy?name=c", b"")),
        ("path", daemon.post("/copy?name=c&path=relative", b"")),
        ("name", daemon.post("/copy?path=/etc/hostname", b"")),
    ]);
}

#[test]
fn the_metrics_are_there() {
    let daemon = Daemon::start(&[]);
    daemon.post("/write?name=a", b"v");
    assert_eq!(daemon.metric("turbopump_keys"), 1);
    assert_eq!(daemon.metric("turbopump_writes_total"), 1);
    assert!(daemon.metric("turbopump_http_requests_total") >= 3);
}

#[test]
fn unknown_calls_and_wrong_methods_are_refused() {
    let daemon = Daemon::start(&[]);
    for path in ["/", "/nothing", "/status/", "/statu", "//status"] {
        assert_eq!(daemon.get(path).error(), (404, "no_such_call".into()), "{path}");
    }
    for (method, path, allow) in [
        ("POST", "/read?name=a", "GET"),
        ("DELETE", "/read?name=a", "GET"),
        ("GET", "/write?name=a", "POST, PUT"),
        ("DELETE", "/delete?name=a", "POST, PUT"),
        ("PATCH", "/status", "GET"),
        ("FOO", "/status", "GET"),
        ("GET", "/drop?name=a", "POST, PUT"),
        ("GET", "/add-peer", "POST, PUT"),
    ] {
        let refused = daemon.connect().ask(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(refused.error(), (405, "method_not_allowed".into()), "{method} {path}");
        assert_eq!(refused.header("allow"), allow);
    }
    assert_eq!(daemon.connect().ask("PUT /write?name=a HTTP/1.1\r\nContent-Length: 1\r\n\r\nv").status, 200);
}

#[test]
fn parameters_that_are_missing_malformed_or_too_long_are_named() {
    let mut daemon = Daemon::start(&[]);
    let long = "x".repeat(1025);
    missing_and_malformed(vec![
        ("name", daemon.get("/read")),
        ("name", daemon.get("/read?name=")),
        ("name", daemon.get("/read?name=%zz")),
        ("name", daemon.get("/read?name=%ff")),
        ("name", daemon.get("/read?name=a&name=b")),
        ("name", daemon.get(&format!("/read?name={long}"))),
        ("name", daemon.post("/write", b"v")),
        ("name", daemon.post(&format!("/write?name={long}"), b"v")),
        ("name", daemon.post("/delete", b"")),
        ("name", daemon.post("/drop", b"")),
        ("name", daemon.get("/wait?timeout=0")),
        ("mirrors", daemon.post("/write?name=a&mirrors=-1", b"v")),
        ("copies", daemon.post("/write?name=a&copies=many", b"v")),
        ("ack", daemon.post("/write?name=a&ack=0", b"v")),
        ("context", daemon.post("/write?name=a&context=zz", b"v")),
        ("ttl", daemon.post("/write?name=a&ttl=-1", b"v")),
        ("version", daemon.get("/read?name=a&version=1")),
        ("read", daemon.get("/read?name=a&read=some")),
        ("local", daemon.get("/read?name=a&local=maybe")),
        ("siblings", daemon.get("/read?name=a&siblings=2")),
        ("limit", daemon.get("/list-keys?limit=0")),
        ("limit", daemon.get("/list-keys?limit=x")),
        ("timeout", daemon.get("/wait?name=a&timeout=soon")),
    ]);
    assert_eq!(daemon.get("/read?name=a").status, 404, "none of them wrote");
    assert!(daemon.is_alive());
}

#[test]
fn an_ack_that_can_never_come_is_refused() {
    let daemon = Daemon::start(&[]);
    let refused = daemon.post("/write?name=a&mirrors=1&ack=2", b"v");
    assert_eq!(refused.error(), (400, "ack_impossible".into()));
    assert_eq!(daemon.get("/read?name=a").status, 404);
}

#[test]
fn a_timeout_says_that_the_outcome_is_unknown() {
    let daemon = Daemon::start(&["--name", "one"]);
    daemon.post("/add-peer?uid=two&ip=127.0.0.1:9", b"");
    let unknown = daemon.post("/write?name=a&mirrors=2&ack=all", b"v");
    assert_eq!(unknown.error(), (504, "timeout".into()));
    assert!(unknown.text().contains("unknown"), "{}", unknown.text());
}

#[test]
fn any_name_is_a_name_and_stays_inside() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let daemon = Daemon::start_in(&home, &[]);
    let long_300 = "n".repeat(300);
    let long_1024 = "m".repeat(1024);
    let names = [
        "../../x",
        "/etc/passwd",
        "a",
        "a/b",
        "a/b/",
        "..",
        ".",
        "A",
        "00000000000000aa-7",
        "%00",
        "%25%2e",
        " ",
        "a%0ab",
        "%c3%a4%e2%82%ac",
        "store",
        "CON",
        &long_300,
        &long_1024,
    ];
    let encoded = |name: &str| name.replace(' ', "%20");
    for (i, name) in names.iter().enumerate() {
        let written = daemon.post(&format!("/write?name={}", encoded(name)), format!("value {i}").as_bytes());
        assert_eq!(written.status, 200, "{name:?} {}", written.text());
    }
    for (i, name) in names.iter().enumerate() {
        let read = daemon.get(&format!("/read?name={}", encoded(name)));
        assert_eq!(read.text(), format!("value {i}"), "{name:?}");
    }
    assert_eq!(daemon.get("/list-keys").json()["keys"].as_array().unwrap().len(), names.len());
    assert_eq!(daemon.post("/drop?name=a", b"").status, 200);
    assert_eq!(daemon.get("/read?name=a/b").status, 200, "dropping a leaves a/b alone");
    let outside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside, ["home"], "nothing was written outside");
}
