//! Calls that change a key.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use turbopump::{Ack, Context, Key, Mirrors, Seal, WriteError, Written, operations::Put};

use super::{Begun, Question, begun};
use crate::{
    gate::{CopyError, Reply},
    outcome,
    params::Params,
    reply,
    server::App,
};

/// `POST /write`. A long body goes to storage as it comes.
pub fn write(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    let options = WriteOptions::parse(params)?;
    if !question.is_streaming() {
        let put = app.node.put(&options.key, question.take_body());
        return options.submit(put, question);
    }
    let mut writer = app.node.writer(&options.key).map_err(|e| outcome::refused(&e))?;
    match question.copy_body(&mut writer) {
        Ok(_) => options.submit(writer.finish().map_err(|e| outcome::not_kept(&e))?, question),
        Err(CopyError::NotWritten(e)) => Err(outcome::not_kept(&e)),
        // The client is gone, and what it sent goes with the writer.
        Err(CopyError::BrokeOff) => Ok(()),
    }
}

/// What a write may say.
pub(super) struct WriteOptions {
    pub(super) key: Key,
    mirrors: Option<Mirrors>,
    ack: Option<Ack>,
    context: Option<Context>,
    ttl: Option<Duration>,
    expires_ms: Option<u64>,
    seal: Option<(u64, Seal)>,
}

impl WriteOptions {
    pub(super) fn parse(params: &Params) -> Result<Self, Reply> {
        let (key, mirrors, ack) = (params.key()?, params.mirrors()?, params.ack()?);
        let (ttl, expires_ms, seal) = (params.ttl()?, params.expires()?, params.seal()?);
        Ok(Self { key, mirrors, ack, context: params.context()?, ttl, expires_ms, seal })
    }

    pub(super) fn submit(self, mut put: Put, question: Question) -> Begun {
        if let Some(mirrors) = self.mirrors {
            put = put.mirrors(mirrors.0);
        }
        if let Some(ack) = self.ack {
            put = put.ack(ack);
        }
        if let Some(context) = self.context {
            put = put.context(context);
        }
        if let Some(ttl) = self.ttl {
            put = put.expires_in(ttl);
        }
        if let Some(at_ms) = self.expires_ms {
            put = put.expires_at_ms(at_ms);
        }
        if let Some((sequence, seal)) = self.seal {
            put = put.sealed(sequence, seal);
        }
        let key = self.key;
        begun(put.submit(move |result| question.answer(written(&key, result))))
    }
}

/// `POST /delete`.
pub fn delete(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    let options = WriteOptions::parse(params)?;
    let delete = app.node.delete(&options.key);
    match options.seal {
        // What was signed is taken as it is; else a tombstone goes where the value was, and stays.
        Some(_) => options.submit(delete, question),
        None => {
            WriteOptions { mirrors: None, ttl: None, expires_ms: None, ..options }.submit(delete, question)
        }
    }
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
