//! Calls that change a key.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use turbopump::{Key, WriteError, Written};

use super::{Begun, Question, begun};
use crate::{gate::Reply, outcome, params::Params, reply, server::App};

/// `POST /write`.
pub fn write(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    let value = question.take_body();
    store(app, params, question, |_| Ok(value))
}

/// Writes a value that is looked for once the parameters turned out to be right.
pub(super) fn store(
    app: &Arc<App>,
    params: &Params,
    question: Question,
    value: impl FnOnce(&App) -> Result<Bytes, Reply>,
) -> Begun {
    let key = params.key()?;
    let (mirrors, ack) = (params.mirrors()?, params.ack()?);
    let (context, ttl) = (params.context()?, params.ttl()?);
    let mut put = app.node.put(&key, value(app)?);
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
    begun(put.submit(move |result| question.answer(written(&key, result))))
}

/// `POST /delete`.
pub fn delete(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    let (key, ack, context) = (params.key()?, params.ack()?, params.context()?);
    let mut delete = app.node.delete(&key);
    if let Some(ack) = ack {
        delete = delete.ack(ack);
    }
    if let Some(context) = context {
        delete = delete.context(context);
    }
    begun(delete.submit(move |result| question.answer(written(&key, result))))
}

/// `POST /drop`.
pub fn drop_key(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    let key = params.key()?;
    begun(app.node.forget(&key).submit(move |result| {
        question.answer(match result {
            Ok(dropped) => reply::ok(&json!({"name": key.as_str(), "dropped": dropped})),
            Err(e) => outcome::not_written(&e),
        });
    }))
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
