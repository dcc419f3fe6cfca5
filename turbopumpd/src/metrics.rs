//! What the node and the gate count, in Prometheus' text format.

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use turbopump::{PeerStats, Stats};

use crate::gate::GateStats;

/// The type that Prometheus expects.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics, as of now.
pub fn render(stats: &Stats, gate: &GateStats) -> String {
    let mut registry = Registry::with_prefix("turbopump");
    let tombstone_seconds = (stats.oldest_tombstone_ms.unwrap_or(0) / 1_000) as usize;
    let left_bytes = stats.fetches.iter().map(|f| (f.total_bytes - f.done_bytes) as usize).sum();
    let gauges = [
        ("keys", "Keys of which a value is stored here", stats.keys),
        ("tombstones", "Keys of which only tombstones are stored here", stats.tombstones),
        ("members", "Members of the cluster, this node included", stats.members),
        ("owed", "Copies owed to peers", stats.owed),
        ("handoff", "Copies held here for owners that do not have them all yet", stats.handoff),
        ("operations", "Operations under way", stats.operations),
        ("transfers", "Long values being fetched", stats.transfers),
        ("transfer_left_bytes", "Bytes of these that are still to come", left_bytes),
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
    per_peer(&mut registry, &stats.peers);
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

/// One line per peer. A peer of which a time is not known yet has no line for it.
fn per_peer(registry: &mut Registry, peers: &[PeerStats]) {
    type Figure = fn(&PeerStats) -> Option<u64>;
    let figures: [(&str, &str, Figure); 6] = [
        ("peer_up", "Whether the peer answers", |p| Some(p.up.into())),
        ("peer_owed", "Keys that the peer may lack and that are not on their way yet", |p| {
            Some(p.owed as u64)
        }),
        ("peer_in_flight", "Copies on their way to the peer", |p| Some(p.in_flight as u64)),
        ("peer_differing", "Keys found different in the last comparison", |p| Some(p.differing as u64)),
        ("peer_compared_seconds", "Seconds since the last comparison", |p| {
            p.compared_ms_ago.map(|ms| ms / 1_000)
        }),
        ("peer_synced_seconds", "Seconds since a comparison found nothing that differs", |p| {
            p.synced_ms_ago.map(|ms| ms / 1_000)
        }),
    ];
    for (name, help, figure) in figures {
        let family: Family<[(&str, String); 1], Gauge> = Family::default();
        for peer in peers {
            let Some(value) = figure(peer) else { continue };
            let gauge = family.get_or_create(&[("peer", peer.node.to_string())]);
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        registry.register(name, help, family);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_its_lines() {
        let peer = PeerStats {
            node: "n2".parse().unwrap(),
            up: true,
            in_flight: 1,
            owed: 20,
            synced_ms_ago: None,
            compared_ms_ago: Some(3_999),
            differing: 7,
        };
        let text = render(&Stats { peers: vec![peer], ..Stats::default() }, &GateStats::default());
        for line in [
            "turbopump_peer_up{peer=\"n2\"} 1",
            "turbopump_peer_owed{peer=\"n2\"} 20",
            "turbopump_peer_in_flight{peer=\"n2\"} 1",
            "turbopump_peer_differing{peer=\"n2\"} 7",
            "turbopump_peer_compared_seconds{peer=\"n2\"} 3",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in {text}");
        }
        assert!(!text.contains("peer_synced_seconds{"), "it was not compared yet");
    }
}
