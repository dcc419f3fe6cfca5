//! What the node and the gate count, in Prometheus' text format.

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use turbopump::Stats;

use crate::gate::GateStats;

/// The type that Prometheus expects.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics, as of now.
pub fn render(stats: &Stats, gate: &GateStats) -> String {
    let mut registry = Registry::with_prefix("turbopump");
    let tombstone_seconds = (stats.oldest_tombstone_ms.unwrap_or(0) / 1_000) as usize;
    let gauges = [
        ("keys", "Keys of which a value is stored here", stats.keys),
        ("tombstones", "Keys of which only tombstones are stored here", stats.tombstones),
        ("members", "Members of the cluster, this node included", stats.members),
        ("owed", "Copies owed to peers", stats.owed),
        ("handoff", "Copies held here for owners that do not have them all yet", stats.handoff),
        ("operations", "Operations under way", stats.operations),
        ("transfers", "Long values being fetched", stats.transfers),
        ("oldest_tombstone_seconds", "Age of the oldest tombstone", tombstone_seconds),
        ("burial_waits_for", "Members that keep tombstones from going", stats.burial_waits_for.len()),
        ("safe_to_stop", "1 where nothing waits here for other nodes", usize::from(stats.safe_to_stop)),
        ("checking_store", "1 while an older copy of the store is checked", usize::from(stats.doubts)),
        ("peers_up", "Peers that answer", stats.peers.iter().filter(|p| p.up).count()),
    ];
    for (name, help, value) in gauges {
        gauge(&mut registry, name, help, value as u64);
    }
    for (name, value) in stats.counters.all() {
        counter(&mut registry, name, &name.replace('_', " "), value);
    }
    let http_gauges = [
        ("http_connections", "Client connections", &gate.connections),
        ("http_lanes", "Lanes to the handlers", &gate.lanes),
        ("http_queued", "Requests that wait for a lane", &gate.queued),
    ];
    for (name, help, count) in http_gauges {
        gauge(&mut registry, name, help, count.value());
    }
    let http_counters = [
        ("http_accepted", "Connections accepted", &gate.accepted),
        ("http_accept_failures", "Connections that could not be accepted", &gate.accept_failures),
        ("http_evicted", "Idle connections closed to make room", &gate.evicted),
        ("http_requests", "Requests passed on to the handlers", &gate.requests),
        ("http_refused", "Requests refused by the gate", &gate.refused),
        ("http_abandoned", "Requests whose client left", &gate.abandoned),
        ("http_restarts", "Times the handlers' server was started again", &gate.restarts),
    ];
    for (name, help, count) in http_counters {
        counter(&mut registry, name, help, count.value());
    }
    let mut text = String::new();
    if encode(&mut text, &registry).is_err() {
        log::error!("the metrics can't be encoded");
    }
    text
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric: Gauge = Gauge::default();
    metric.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, metric);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric: Counter = Counter::default();
    metric.inc_by(value);
    registry.register(name, help, metric);
}
