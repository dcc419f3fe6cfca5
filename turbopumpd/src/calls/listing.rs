//! What this node holds, page by page.

use std::sync::Arc;

use serde_json::{Value, json};
use turbopump::{KeyInfo, KeyPage, Version, model::Kind};

use super::{Begun, Question, begun};
use crate::{outcome, params::Params, reply, routes::INTERNAL_PREFIX, server::App};

/// `GET /list-keys`.
pub fn list_keys(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    let listing = Listing {
        app: app.clone(),
        prefix: params.text("prefix").unwrap_or_default().to_owned(),
        limit: params.limit()?,
        all: params.flag("all")?,
        deleted: params.flag("deleted")?,
        keys: Vec::new(),
    };
    listing.go_on(params.text("after").map(str::to_owned), question)
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
    fn go_on(mut self, after: Option<String>, question: Question) -> Begun {
        let missing = self.limit - self.keys.len();
        let mut keys = self.app.node.keys().prefix(self.prefix.as_str()).limit(missing).deleted(self.deleted);
        if let Some(after) = after {
            keys = keys.after(after);
        }
        begun(keys.submit(move |result| match result {
            Ok(page) => match self.take(&page) {
                Some(next) if self.keys.len() < self.limit => {
                    if let Err(refusal) = self.go_on(Some(next), question.clone()) {
                        question.answer(refusal);
                    }
                }
                next => question.answer(reply::ok(&json!({"keys": self.keys, "next": next}))),
            },
            Err(e) => question.answer(outcome::not_read(&e)),
        }))
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
