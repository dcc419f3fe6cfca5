//! Calls that read a key.

use std::{
    io::{Seek, SeekFrom},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde_json::{Value, json};
use turbopump::{Dot, Key, Node, Read, ReadError, Reading, Record, model::signature_text};

use super::{Begun, Question, begun};
use crate::{
    gate::Reply,
    outcome,
    params::{DEFAULT_WAIT, Params},
    reply::{self, Conditions},
    server::App,
};

/// `GET /read`.
pub fn read(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    let (key, read, is_local) = (params.key()?, params.read()?, params.flag("local")?);
    let wanted = Wanted { version: params.version()?, all: params.all_siblings()? };
    let mut get = app.node.get(&key).read(read.unwrap_or(Read::One));
    if is_local {
        get = get.local_only();
    }
    if !wanted.all {
        get = get.without_long();
    }
    let (conditions, node) = (question.conditions(), app.node.clone());
    let answer = move |question: &Question, result: Result<Reading, ReadError>| match result {
        Ok(reading) => match found(&reading, &wanted, &conditions) {
            Found::Answer(reply) => question.answer(reply),
            Found::Long(record, headers) => long(&node, question, &key, record, headers, &conditions),
        },
        Err(e) => question.answer(outcome::not_read(&e)),
    };
    match get.now() {
        Ok(result) => {
            answer(&question, result);
            Ok(())
        }
        Err(get) => begun(get.submit(move |result| answer(&question, result))),
    }
}

/// A value that is not at hand: it is read while it is sent.
fn long(
    node: &Node,
    question: &Question,
    key: &Key,
    record: &Record,
    headers: Headers,
    conditions: &Conditions,
) {
    let (reply, part) = conditions.judge(headers, record.version.len);
    let Some((first, len)) = part else { return question.answer(reply) };
    let mut reader = node.reader_of(key, record);
    match reader.seek(SeekFrom::Start(first)) {
        Ok(_) => question.answer_from(reply, len, Box::new(reader)),
        Err(e) => question.answer(reply::error(500, "storage", format!("The value can't be read: {e}."))),
    }
}

type Headers = Vec<(&'static str, String)>;

/// What a read comes to.
enum Found<'a> {
    Answer(Reply),
    /// This value, with these headers.
    Long(&'a Record, Headers),
}

struct Wanted {
    version: Option<Dot>,
    all: bool,
}

fn found<'a>(siblings: &'a Reading, wanted: &Wanted, conditions: &Conditions) -> Found<'a> {
    let live: Vec<&Record> = siblings.values().collect();
    if wanted.all && !live.is_empty() {
        let list: Vec<Value> =
            live.iter().filter(|r| wanted.version.is_none_or(|v| r.version.dot == v)).map(sibling).collect();
        let mut reply = reply::ok(&Value::Array(list));
        reply.headers.push(("Turbopump-Context", siblings.context().to_string()));
        reply.headers.push(("Turbopump-Siblings", live.len().to_string()));
        return Found::Answer(reply);
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
        return Found::Answer(reply);
    };
    let headers = reply::version_headers(siblings, record, live.len());
    match &record.value {
        Some(value) => Found::Answer(conditions.answer(headers, value.clone())),
        None => Found::Long(record, headers),
    }
}

fn sibling(record: &&Record) -> Value {
    let version = &record.version;
    let mut sibling = json!({
        "version": version.dot.to_string(),
        "size": version.len,
        "written_ms": version.written_ms,
        "value": BASE64.encode(record.value.as_deref().unwrap_or_default()),
    });
    if let Some(seal) = &version.seal {
        sibling["author"] = json!(seal.author.to_string());
        sibling["sequence"] = json!(version.sequence());
        sibling["signature"] = json!(signature_text(&seal.signature));
        sibling["mirrors"] = json!(version.mirrors.0);
        sibling["expires"] = json!(version.expires_ms);
        sibling["signed_context"] = json!(version.context.to_string());
    }
    sibling
}

/// `GET /wait`.
pub fn wait(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    let (key, context, timeout) = (params.key()?, params.context()?, params.timeout()?);
    let mut wait = app.node.wait_for(&key).timeout(timeout.unwrap_or(DEFAULT_WAIT));
    if let Some(context) = context {
        wait = wait.context(context);
    }
    begun(wait.submit(move |result| {
        question.answer(match result {
            Ok(None) | Err(ReadError::TimedOut { .. }) => reply::nothing(),
            Ok(Some(reading)) => came(&reading),
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
