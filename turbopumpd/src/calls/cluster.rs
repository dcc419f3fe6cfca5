//! Calls about the node itself, its cluster, and who owns what.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use turbopump::{Departure, Key, Member, MemberKey, MemberState, Mirrors, operations::ChangeMembers};

use super::{Begun, Question, begun};
use crate::{gate::Reply, metrics as text, outcome, params::Params, reply, server::App};

/// How long `/leave` waits for the end where the client does not say.
const DEFAULT_LEAVE: Duration = Duration::from_secs(600);

/// `GET /status`.
pub fn status(app: &Arc<App>, _: &Params, question: Question) -> Begun {
    let shared = app.clone();
    begun(app.node.stats().submit(move |stats| {
        question.answer(match stats {
            Ok(stats) => reply::ok(&shared.status(&stats)),
            Err(e) => outcome::not_read(&e),
        });
    }))
}

/// `GET /metrics`.
pub fn metrics(app: &Arc<App>, _: &Params, question: Question) -> Begun {
    let gate = app.gate_stats.clone();
    begun(app.node.stats().submit(move |stats| {
        question.answer(match stats {
            Ok(stats) => reply::text(text::CONTENT_TYPE, text::render(&stats, &gate)),
            Err(e) => outcome::not_read(&e),
        });
    }))
}

/// `GET /membership`.
pub fn membership(app: &Arc<App>, _: &Params, question: Question) -> Begun {
    question.answer(members(app));
    Ok(())
}

/// `POST /add-peer`.
pub fn add_peer(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    change(app, app.node.add_member(params.node_id()?, params.addrs()?), params, question)
}

/// `POST /remove-peer`.
pub fn remove_peer(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    change(app, app.node.remove_member(params.node_id()?), params, question)
}

fn change(app: &Arc<App>, mut change: ChangeMembers, params: &Params, question: Question) -> Begun {
    if let Some(key) = params.public_key()? {
        change = change.key(key);
    }
    if let Some((generation, warrant)) = params.warrant()? {
        change = change.signed(generation, warrant);
    }
    let shared = app.clone();
    begun(change.submit(move |result| {
        question.answer(match result {
            Ok(()) => members(&shared),
            Err(e) => outcome::not_changed(&e),
        });
    }))
}

/// `POST /leave`.
pub fn leave(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    let leave = app.node.leave().timeout(params.timeout()?.unwrap_or(DEFAULT_LEAVE));
    begun(leave.submit(move |result| {
        question.answer(match result {
            Ok(Departure::Left) => reply::ok(&json!({"state": "left"})),
            Ok(Departure::UnderWay { remaining }) => {
                reply::accepted(&json!({"state": "leaving", "remaining": remaining}))
            }
            Err(e) => outcome::not_changed(&e),
        });
    }))
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
    let key = match m.key {
        MemberKey::Unknown => Value::Null,
        MemberKey::Known(key) => key.to_string().into(),
        MemberKey::Disputed => "disputed".into(),
    };
    let signer = m.vouched.0.as_ref().map(|proofs| proofs.warrant.signer.to_string());
    json!({
        "id": m.id.as_str(),
        "addrs": addrs,
        "state": state,
        "weight": m.weight,
        "key": key,
        "generation": m.generation,
        "signer": signer,
    })
}

/// `GET /ring`.
pub fn ring(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    let key = params.key_or_none()?;
    let known = || key.as_ref().and_then(|key| mirrors_here(app, key));
    let mirrors = params.mirrors()?.or_else(known).unwrap_or(app.default_mirrors);
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
    question.answer(reply::ok(&answer));
    Ok(())
}

/// The mirrors of a key, where this node holds it.
fn mirrors_here(app: &App, key: &Key) -> Option<Mirrors> {
    let reading = app.node.get(key).local_only().now().ok()?.ok()?;
    reading.records().iter().map(|r| r.version.mirrors).max()
}
