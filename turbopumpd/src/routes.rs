//! One table: path, method, function. Each function takes its parameters apart, asks the node,
//! and answers from the closure that the node runs when it is done; none of them blocks.
//!
//! Errors of the library become rows of the contract in [`crate::outcome`].

use std::sync::Arc;

use crate::{
    calls::{self, Begun, Question},
    gate::{Exchange, Handler},
    params::{Params, split_target},
    reply,
    server::App,
};

/// Keys whose names begin so belong to the system; they are listed only with `all=1`.
pub const INTERNAL_PREFIX: &str = ".turbopump/";

/// What a method does. HTTP has more; these two are all that the daemon knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Does {
    /// GET.
    Reads,
    /// POST or PUT.
    Changes,
}

impl Does {
    /// The value of `Allow`.
    pub fn allow(self) -> &'static str {
        match self {
            Self::Reads => "GET",
            Self::Changes => "POST, PUT",
        }
    }

    fn allows(self, method: &str) -> bool {
        match self {
            Self::Reads => method == "GET",
            Self::Changes => matches!(method, "POST" | "PUT"),
        }
    }
}

/// Begins one call.
type Call = fn(&Arc<App>, &Params, Question) -> Begun;

struct Route {
    path: &'static str,
    does: Does,
    call: Call,
}

const ROUTES: [Route; 14] = [
    Route { path: "/read", does: Does::Reads, call: calls::read },
    Route { path: "/write", does: Does::Changes, call: calls::write },
    Route { path: "/delete", does: Does::Changes, call: calls::delete },
    Route { path: "/wait", does: Does::Reads, call: calls::wait },
    Route { path: "/list-keys", does: Does::Reads, call: calls::list_keys },
    Route { path: "/status", does: Does::Reads, call: calls::status },
    Route { path: "/membership", does: Does::Reads, call: calls::membership },
    Route { path: "/ring", does: Does::Reads, call: calls::ring },
    Route { path: "/add-peer", does: Does::Changes, call: calls::add_peer },
    Route { path: "/remove-peer", does: Does::Changes, call: calls::remove_peer },
    Route { path: "/leave", does: Does::Changes, call: calls::leave },
    Route { path: "/drop", does: Does::Changes, call: calls::drop_key },
    Route { path: "/copy", does: Does::Changes, call: calls::copy },
    Route { path: "/metrics", does: Does::Reads, call: calls::metrics },
];

/// Whether the answer to this target takes long by nature.
pub fn is_long(target: &str) -> bool {
    matches!(split_target(target).0, "/wait" | "/leave")
}

/// Finds the call of each request.
pub struct Router(pub Arc<App>);

impl Handler for Router {
    fn handle(&self, exchange: Exchange) {
        let (path, query) = split_target(exchange.target());
        let Some(route) = ROUTES.iter().find(|r| r.path == path) else {
            let known: Vec<&str> = ROUTES.iter().map(|r| r.path).collect();
            let detail = format!("There is no such call; there are {}.", known.join(", "));
            exchange.respond(reply::error(404, "no_such_call", detail));
            return;
        };
        if !route.does.allows(exchange.method()) {
            let allow = route.does.allow();
            let detail = format!("{} takes {allow}.", route.path);
            let mut refusal = reply::error(405, "method_not_allowed", detail);
            refusal.headers.push(("Allow", allow.into()));
            exchange.respond(refusal);
            return;
        }
        let params = Params::parse(query);
        let question = Question::new(exchange);
        let begun = params.map_err(Into::into).and_then(|p| (route.call)(&self.0, &p, question.clone()));
        if let Err(reply) = begun {
            question.answer(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_and_leaving_are_the_calls_that_are_long_by_nature() {
        assert!(is_long("/wait?name=a") && is_long("/leave"));
        assert!(!is_long("/read?name=/wait") && !is_long("/waiting"));
    }
}
