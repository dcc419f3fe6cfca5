//! cargo run --release -p turbopumpd --example load -- --url http://127.0.0.1:1592
//!
//! Puts running daemons under load and tells how long the answers took. Without `--rate` every
//! client asks again as soon as it was answered: that finds the most that a daemon can do. With
//! `--rate` requests have moments at which they are due, and are counted from those, whether or not
//! a client was free by then: a daemon that stalls can't hide it. Next: `benches/daemon.rs`, which
//! holds the figures against limits measured in the same run.

mod generator;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use generator::{Plan, Report, Target, Verb};

/// Puts daemons under load; the end of the answers' times is what counts.
#[derive(Parser)]
#[command(name = "load")]
struct Args {
    /// Where a daemon serves: http://HOST:PORT or the path of its unix socket. Repeatable; clients
    /// take turns.
    #[arg(long, required = true)]
    url: Vec<Target>,
    /// What to do: write, read, or mixed (nine reads, one write).
    #[arg(long, default_value = "mixed")]
    verb: Verb,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// Requests a second, at fixed moments. Without it: as many as are answered.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// For how many seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// How many keys to use, in turns.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// More parameters for every request, as in a query: "ack=quorum&mirrors=2".
    #[arg(long, default_value = "")]
    query: String,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e7 => Ok(rate),
        _ => Err("a number of requests a second, up to ten million".into()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let plan = Plan {
        targets: args.url,
        verb: args.verb,
        clients: args.clients as usize,
        rate: args.rate,
        length: Duration::from_secs(args.seconds.into()),
        requests: None,
        keys: args.keys,
        size: args.size,
        query: args.query,
    };
    match generator::run(&plan) {
        Ok(report) => {
            println!("{}", if args.json { as_json(&report) } else { as_text(&report) });
            ExitCode::from(u8::from(report.failed > 0))
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(2)
        }
    }
}

fn as_text(report: &Report) -> String {
    let us = |quantile| report.times_ns.value_at_quantile(quantile) as f64 / 1_000.0;
    format!(
        "{:.0} answers/s: {} ok, {} busy (503), {} unknown (504), {} failed, {} not asked in time\n\
         us: p50 {:.0}, p90 {:.0}, p99 {:.0}, p99.9 {:.0}, worst {:.0}",
        report.per_second(),
        report.ok,
        report.busy,
        report.unknown,
        report.failed,
        report.skipped,
        us(0.5),
        us(0.9),
        us(0.99),
        us(0.999),
        us(1.0),
    )
}

fn as_json(report: &Report) -> String {
    let ns = |quantile| report.times_ns.value_at_quantile(quantile);
    serde_json::json!({
        "per_second": report.per_second(),
        "ok": report.ok,
        "busy": report.busy,
        "unknown": report.unknown,
        "failed": report.failed,
        "skipped": report.skipped,
        "p50_ns": ns(0.5),
        "p90_ns": ns(0.9),
        "p99_ns": ns(0.99),
        "p999_ns": ns(0.999),
        "worst_ns": ns(1.0),
    })
    .to_string()
}
