//! What each call asks of the node: the only file that calls the library's operations.
//!
//! Every function parses its parameters, submits, and leaves the answer to the closure. Where a
//! submit is refused its closure never runs, and the request in it would be lost; so the request
//! waits in a [`Pending`] that both sides reach.

use std::{io::Read as _, path::Path, sync::Arc, thread};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use turbopump::{
    Key, KeyInfo, KeyPage, Member, MemberState, Read, ReadError, Reading, Record, SubmitError, Version,
    WriteError, Written, model::Kind,
};

use crate::{
    gate::{Origin, Reply},
    metrics as metrics_text, outcome,
    params::{DEFAULT_WAIT, ParamError, Params},
    reply::{self, Conditions},
    routes::{Asked, INTERNAL_PREFIX},
    server::App,
};

/// How a call begins: under way, or answered at once.
type Begun = Result<(), (Asked, Reply)>;

/// A request whose answer comes from a closure, or from a refused submit: whoever is first.
#[derive(Clone)]
struct Pending(Arc<Mutex<Option<Asked>>>);

impl Pending {
    fn new(asked: Asked) -> Self {
        Self(Arc::new(Mutex::new(Some(asked))))
    }

    fn answer(&self, reply: Reply) {
        let asked = self.0.lock().take();
        if let Some(asked) = asked {
            asked.respond(reply);
        }
    }

    fn or_refuse(&self, submitted: Result<(), SubmitError>) -> Begun {
        if let Err(e) = submitted {
            self.answer(outcome::refused(&e));
        }
        Ok(())
    }
}

/// `POST /write`.
pub fn write(app: &Arc<App>, params: &Params, mut asked: Asked) -> Begun {
    let value = asked.take_body();
    store(app, params, asked, |_| Ok(value))
}

/// `POST /copy`: a file of this machine becomes a value. It is read on a thread of its own, since
/// it may lie on a slow disk.
pub fn copy(app: &Arc<App>, params: &Params, asked: Asked) -> Begun {
    if asked.origin() != Origin::Unix {
        let detail = "Files are imported only over a unix socket; send it there.";
        return Err((asked, reply::error(403, "forbidden", detail)));
    }
    let expected = "the absolute path of a file of this machine";
    let path = match params.text("path") {
        None => Err(ParamError::Missing { name: "path", expected }),
        Some(path) if !path.starts_with('/') || path.contains('\0') => {
            Err(ParamError::Malformed { name: "path".into(), expected: expected.into() })
        }
        Some(path) => Ok(path.to_owned()),
    };
    let path = match path {
        Ok(path) => path,
        Err(e) => return Err((asked, e.into())),
    };
    let (app, params) = (app.clone(), params.clone());
    // Where no thread can be had, the request goes with the closure and is answered 500.
    let spawned = thread::Builder::new().name("copy".into()).spawn(move || {
        let begun = store(&app, &params, asked, |app| import(Path::new(&path), app.limits.max_value_bytes));
        if let Err((asked, refusal)) = begun {
            asked.respond(refusal);
        }
    });
    if let Err(e) = spawned {
        log::error!("no thread to import a file: {e}");
    }
    Ok(())
}

fn import(path: &Path, max_bytes: u64) -> Result<Bytes, Reply> {
    let failed = |e: std::io::Error| {
        let status = if e.kind() == std::io::ErrorKind::NotFound { 404 } else { 400 };
        reply::error(status, "no_such_file", format!("The file can't be read: {e}."))
    };
    // Looked at before it is opened: opening a pipe would wait for its other end.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(reply::error(400, "no_such_file", "The path is no regular file; give one."));
    }
    let mut value = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(max_bytes + 1).read_to_end(&mut value).map_err(failed)?;
    if value.len() as u64 > max_bytes {
        let detail = format!("The file is longer than the limit of {max_bytes} bytes.");
        return Err(reply::error(413, "too_large", detail));
    }
    Ok(value.into())
}

fn store(
    app: &Arc<App>,
    params: &Params,
    asked: Asked,
    value: impl FnOnce(&App) -> Result<Bytes, Reply>,
) -> Begun {
    let parsed = (|| {
        let key = params.key()?;
        Ok::<_, ParamError>((key, params.mirrors()?, params.ack()?, params.context()?, params.ttl()?))
    })();
    let (key, mirrors, ack, context, ttl) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => return Err((asked, e.into())),
    };
    let value = match value(app) {
        Ok(value) => value,
        Err(refusal) => return Err((asked, refusal)),
    };
    let mut put = app.node.put(&key, value);
    if let Some(mirrors) = mirrors {
        put = put.mirrors(mirrors.0);
    }
    if let Some(ack) = ack {
        put = put.ack(ack);
    }
    if let Some(context) = context {
        put = put.context(context);
    }
    if let Some(ttl) = ttl {
        put = put.expires_in(ttl);
    }
    let pending = Pending::new(asked);
    let closure = pending.clone();
    pending.or_refuse(put.submit(move |result| closure.answer(written(&key, result))))
}

/// `POST /delete`.
pub fn delete(app: &Arc<App>, params: &Params, asked: Asked) -> Begun {
    let parsed = (|| Ok::<_, ParamError>((params.key()?, params.ack()?, params.context()?)))();
    let (key, ack, context) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => return Err((asked, e.into())),
    };
    let mut delete = app.node.delete(&key);
    if let Some(ack) = ack {
        delete = delete.ack(ack);
    }
    if let Some(context) = context {
        delete = delete.context(context);
    }
    let pending = Pending::new(asked);
    let closure = pending.clone();
    pending.or_refuse(delete.submit(move |result| closure.answer(written(&key, result))))
}

fn written(key: &Key, result: Result<Written, WriteError>) -> Reply {
    match result {
        Ok(w) => reply::ok(&json!({
            "name": key.as_str(),
            "version": w.version.to_string(),
            "context": w.context.to_string(),
            "size": w.len,
            "mirrors": w.mirrors.0,
            "acked": w.acked,
        })),
        Err(e) => outcome::not_written(&e),
    }
}

/// `GET /read`.
pub fn read(app: &Arc<App>, params: &Params, asked: Asked) -> Begun {
    let parsed = (|| {
        let wanted = Wanted { version: params.version()?, all: params.all_siblings()? };
        Ok::<_, ParamError>((params.key()?, params.read()?, params.flag("local")?, wanted))
    })();
    let (key, read, is_local, wanted) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => return Err((asked, e.into())),
    };
    let mut get = app.node.get(&key).read(read.unwrap_or(Read::One));
    if is_local {
        get = get.local_only();
    }
    let conditions = Conditions::of(&asked);
    let answer = move |result: Result<Reading, ReadError>| match result {
        Ok(reading) => found(&reading, &wanted, &conditions),
        Err(e) => outcome::not_read(&e),
    };
    // What this node holds is answered on this thread: no hop.
    let get = match get.now() {
        Ok(result) => return Err((asked, answer(result))),
        Err(get) => get,
    };
    let pending = Pending::new(asked);
    let closure = pending.clone();
    pending.or_refuse(get.submit(move |result| closure.answer(answer(result))))
}

struct Wanted {
    version: Option<turbopump::Dot>,
    all: bool,
}

fn found(siblings: &Reading, wanted: &Wanted, conditions: &Conditions) -> Reply {
    let live: Vec<&Record> = siblings.values().collect();
    if wanted.all && !live.is_empty() {
        let list: Vec<Value> =
            live.iter().filter(|r| wanted.version.is_none_or(|v| r.version.dot == v)).map(sibling).collect();
        let mut reply = reply::ok(&Value::Array(list));
        reply.headers.push(("Turbopump-Context", siblings.context().to_string()));
        reply.headers.push(("Turbopump-Siblings", live.len().to_string()));
        return reply;
    }
    let record = match wanted.version {
        Some(version) => live.iter().find(|r| r.version.dot == version).copied(),
        None => live.first().copied(),
    };
    let Some(record) = record else {
        let mut reply = match wanted.version {
            Some(_) if !live.is_empty() => reply::error(
                404,
                "no_such_version",
                "This version of the key is not there; read without one.",
            ),
            _ => outcome::no_such_key(),
        };
        if !siblings.is_empty() {
            // Of a deleted key: what it takes to write it again.
            reply.headers.push(("Turbopump-Context", siblings.context().to_string()));
        }
        return reply;
    };
    let headers = reply::version_headers(siblings, record, live.len());
    match &record.value {
        Some(value) => conditions.answer(headers, value.clone()),
        None => reply::error(500, "storage", "The value could not be read whole; try again."),
    }
}

fn sibling(record: &&Record) -> Value {
    json!({
        "version": record.version.dot.to_string(),
        "size": record.version.len,
        "written_ms": record.version.written_ms,
        "value": BASE64.encode(record.value.as_deref().unwrap_or_default()),
    })
}

/// `GET /wait`.
pub fn wait(app: &Arc<App>, params: &Params, asked: Asked) -> Begun {
    let parsed = (|| Ok::<_, ParamError>((params.key()?, params.context()?, params.timeout()?)))();
    let (key, context, timeout) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => return Err((asked, e.into())),
    };
    let mut wait = app.node.wait_for(&key).timeout(timeout.unwrap_or(DEFAULT_WAIT));
    if let Some(context) = context {
        wait = wait.context(context);
    }
    let pending = Pending::new(asked);
    let closure = pending.clone();
    pending.or_refuse(wait.submit(move |result| {
        closure.answer(match result {
            Ok(None) => reply::nothing(),
            Ok(Some(siblings)) => came(&siblings),
            Err(ReadError::TimedOut { .. }) => reply::nothing(),
            Err(e) => outcome::not_read(&e),
        });
    }))
}

/// The headers of a read; the bytes are for a read to fetch.
fn came(siblings: &Reading) -> Reply {
    let live: Vec<&Record> = siblings.values().collect();
    let newest = live.first().copied().or(siblings.records().first());
    let headers = newest.map(|r| reply::version_headers(siblings, r, live.len())).unwrap_or_default();
    Reply { status: 200, headers, body: Bytes::new() }
}

/// `GET /list-keys`.
pub fn list_keys(app: &Arc<App>, params: &Params, asked: Asked) -> Begun {
    let parsed = (|| Ok::<_, ParamError>((params.limit()?, params.flag("all")?, params.flag("deleted")?)))();
    let (limit, all, deleted) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => return Err((asked, e.into())),
    };
    let prefix = params.text("prefix").unwrap_or_default().to_owned();
    let listing = Listing { app: app.clone(), prefix, limit, all, deleted, keys: Vec::new() };
    listing.go_on(params.text("after").map(str::to_owned), Pending::new(asked));
    Ok(())
}

/// A page that grows until it is full: where internal names are left out, one page of the node
/// may not fill it.
struct Listing {
    app: Arc<App>,
    prefix: String,
    limit: usize,
    all: bool,
    deleted: bool,
    keys: Vec<Value>,
}

impl Listing {
    fn go_on(mut self, after: Option<String>, pending: Pending) {
        let missing = self.limit - self.keys.len();
        let mut keys = self.app.node.keys().prefix(self.prefix.as_str()).limit(missing).deleted(self.deleted);
        if let Some(after) = after {
            keys = keys.after(after);
        }
        let closure = pending.clone();
        let submitted = keys.submit(move |result| match result {
            Ok(page) => {
                let next = self.take(&page);
                match next {
                    Some(next) if self.keys.len() < self.limit => self.go_on(Some(next), closure),
                    next => closure.answer(reply::ok(&json!({"keys": self.keys, "next": next}))),
                }
            }
            Err(e) => closure.answer(outcome::not_read(&e)),
        });
        if let Err(e) = submitted {
            pending.answer(outcome::refused(&e));
        }
    }

    /// Takes what is to be shown, and says behind which name to go on.
    fn take(&mut self, page: &KeyPage) -> Option<String> {
        let is_internal = |k: &&KeyInfo| k.key.as_str().starts_with(INTERNAL_PREFIX);
        let shown = page.keys.iter().filter(|k| self.all || !is_internal(k));
        self.keys.extend(shown.map(|k| {
            let versions: Vec<Value> = k.versions.iter().map(|v| version(v)).collect();
            json!({"name": k.key.as_str(), "mirrors": k.mirrors.0, "versions": versions})
        }));
        let next = page.next.as_ref().map(|k| k.as_str().to_owned());
        match next {
            // All the internal names that follow are skipped at once.
            Some(name) if !self.all && name.starts_with(INTERNAL_PREFIX) => {
                Some(format!("{INTERNAL_PREFIX}{}", char::MAX))
            }
            next => next,
        }
    }
}

fn version(v: &Version) -> Value {
    let mut value = json!({
        "version": v.dot.to_string(),
        "size": v.len,
        "deleted": v.kind == Kind::Tombstone,
        "written_ms": v.written_ms,
    });
    if let Some(at) = v.expires_ms {
        value["expires_ms"] = at.into();
    }
    value
}

/// `POST /drop`.
pub fn drop_key(app: &Arc<App>, params: &Params, asked: Asked) -> Begun {
    let key = match params.key() {
        Ok(key) => key,
        Err(e) => return Err((asked, e.into())),
    };
    let pending = Pending::new(asked);
    let closure = pending.clone();
    let forget = app.node.forget(&key);
    pending.or_refuse(forget.submit(move |result| {
        closure.answer(match result {
            Ok(dropped) => reply::ok(&json!({"name": key.as_str(), "dropped": dropped})),
            Err(e) => outcome::not_written(&e),
        });
    }))
}

/// `GET /status`.
pub fn status(app: &Arc<App>, _: &Params, asked: Asked) -> Begun {
    let (app, pending) = (app.clone(), Pending::new(asked));
    let closure = pending.clone();
    let node = app.node.clone();
    pending.or_refuse(node.stats().submit(move |stats| {
        closure.answer(match stats {
            Ok(stats) => reply::ok(&app.status(&stats)),
            Err(_) => outcome::stopping(),
        });
    }))
}

/// `GET /metrics`.
pub fn metrics(app: &Arc<App>, _: &Params, asked: Asked) -> Begun {
    let (app, pending) = (app.clone(), Pending::new(asked));
    let closure = pending.clone();
    let node = app.node.clone();
    pending.or_refuse(node.stats().submit(move |stats| {
        closure.answer(match stats {
            Ok(stats) => {
                reply::text(metrics_text::CONTENT_TYPE, metrics_text::render(&stats, &app.gate_stats))
            }
            Err(_) => outcome::stopping(),
        });
    }))
}

/// `GET /membership`.
pub fn membership(app: &Arc<App>, _: &Params, asked: Asked) -> Begun {
    Err((asked, members(app)))
}

fn members(app: &App) -> Reply {
    let members: Vec<Value> = app.node.members().iter().map(|m| member(&m.member, m.up)).collect();
    reply::ok(&json!({"self": app.node.id().as_str(), "members": members}))
}

fn member(m: &Member, up: bool) -> Value {
    let state = match (m.state, up) {
        (MemberState::Leaving, _) => "leaving",
        (MemberState::Removed, _) => "removed",
        (MemberState::Active, true) => "up",
        (MemberState::Active, false) => "down",
    };
    let addrs: Vec<String> = m.addrs.iter().map(ToString::to_string).collect();
    json!({"id": m.id.as_str(), "addrs": addrs, "state": state, "weight": m.weight})
}

/// `POST /add-peer`.
pub fn add_peer(app: &Arc<App>, params: &Params, asked: Asked) -> Begun {
    let parsed = (|| Ok::<_, ParamError>((params.node_id()?, params.addrs()?)))();
    let (id, addrs) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => return Err((asked, e.into())),
    };
    let (app, pending) = (app.clone(), Pending::new(asked));
    let closure = pending.clone();
    let node = app.node.clone();
    pending.or_refuse(node.add_member(id, addrs).submit(move |result| {
        closure.answer(result.map_or_else(|e| outcome::not_changed(&e), |()| members(&app)));
    }))
}

/// `POST /remove-peer`.
pub fn remove_peer(app: &Arc<App>, params: &Params, asked: Asked) -> Begun {
    let id = match params.node_id() {
        Ok(id) => id,
        Err(e) => return Err((asked, e.into())),
    };
    let (app, pending) = (app.clone(), Pending::new(asked));
    let closure = pending.clone();
    let node = app.node.clone();
    pending.or_refuse(node.remove_member(id).submit(move |result| {
        closure.answer(result.map_or_else(|e| outcome::not_changed(&e), |()| members(&app)));
    }))
}

/// `GET /ring`.
pub fn ring(app: &Arc<App>, params: &Params, asked: Asked) -> Begun {
    let parsed = (|| Ok::<_, ParamError>((params.key_or_none()?, params.mirrors()?)))();
    let (key, mirrors) = match parsed {
        Ok((key, mirrors)) => (key, mirrors.unwrap_or(app.default_mirrors)),
        Err(e) => return Err((asked, e.into())),
    };
    let placement = app.node.placement();
    let nodes: Vec<Value> = placement
        .shares(mirrors)
        .into_iter()
        .map(|(id, partitions)| json!({"id": id.as_str(), "partitions": partitions}))
        .collect();
    let mut answer =
        json!({"partitions": placement.partitions().get(), "mirrors": mirrors.0, "nodes": nodes});
    if let Some(key) = key {
        let owners: Vec<String> = placement.owners(key.hash64(), mirrors).map(|id| id.to_string()).collect();
        answer["name"] = key.as_str().into();
        answer["partition"] = placement.partition(key.hash64()).0.into();
        answer["owners"] = owners.into();
    }
    Err((asked, reply::ok(&answer)))
}
