//! What benches share: a table whose rows stand beside a limit or a peer measured in the same run.
//!
//! Figures are added round by round, so that variants take turns; a row is the median of a figure, or its
//! ratio to another one. `finish` prints the table and replaces this bench's lines in
//! `target/bench.jsonl`: one object per figure and per row.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::{
    fmt::Write,
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

/// See the [module](self).
pub struct Table {
    bench: &'static str,
    figures: Vec<(String, &'static str, Vec<f64>)>,
    rows: Vec<String>,
    lines: String,
}

/// What a row is held to.
#[derive(Clone, Copy)]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
}

impl Table {
    pub fn new(bench: &'static str) -> Self {
        Self { bench, figures: Vec::new(), rows: Vec::new(), lines: String::new() }
    }

    /// One more sample of a figure.
    pub fn add(&mut self, name: &str, unit: &'static str, figure: f64) {
        match self.figures.iter_mut().find(|(known, ..)| known == name) {
            Some((.., samples)) => samples.push(figure),
            None => self.figures.push((name.into(), unit, vec![figure])),
        }
    }

    pub fn median(&self, name: &str) -> f64 {
        let (.., samples) = self.figures.iter().find(|(known, ..)| known == name).expect(name);
        let mut samples = samples.clone();
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    }

    /// Holds a figure to a bar.
    pub fn hold(&mut self, name: &str, bar: Bar) {
        let figure = self.median(name);
        self.row(name.into(), figure, bar);
    }

    /// Holds the ratio of a figure to another one to a bar.
    pub fn hold_ratio(&mut self, name: &str, of: &str, bar: Bar) {
        let ratio = self.median(name) / self.median(of);
        self.row(format!("{name} / {of}"), ratio, bar);
    }

    fn row(&mut self, name: String, figure: f64, bar: Bar) {
        let (met, text) = match bar {
            Bar::AtMost(limit) => (figure <= limit, format!("at most {limit}")),
            Bar::AtLeast(limit) => (figure >= limit, format!("at least {limit}")),
        };
        let verdict = if met { "met" } else { "MISSED" };
        self.rows.push(format!("{name:<88} {figure:>12.2}  {text:<18} {verdict}"));
        let bench = self.bench;
        let _ = writeln!(
            self.lines,
            "{{\"bench\":{bench:?},\"row\":{name:?},\"figure\":{figure},\"bar\":{text:?},\"met\":{met}}}"
        );
    }

    /// Prints it all, and keeps it.
    pub fn finish(mut self) {
        println!("\n{}: medians of what was measured\n", self.bench);
        for (name, unit, samples) in &self.figures {
            let median = self.median(name);
            let (low, high) = samples.iter().fold((f64::MAX, f64::MIN), |(l, h), s| (l.min(*s), h.max(*s)));
            println!("{name:<88} {median:>12.2} {unit:<8} ({low:.2} to {high:.2})");
            let bench = self.bench;
            let _ = writeln!(
                self.lines,
                "{{\"bench\":{bench:?},\"figure\":{name:?},\"unit\":{unit:?},\"median\":{median},\"low\":{low},\"high\":{high}}}"
            );
        }
        println!("\n{}: beside their limits\n", self.bench);
        self.rows.iter().for_each(|row| println!("{row}"));
        if let Err(error) = self.keep() {
            eprintln!("the figures can't be kept: {error}");
        }
    }

    fn keep(&self) -> io::Result<()> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../bench.jsonl");
        let ours = format!("{{\"bench\":{:?},", self.bench);
        let before = fs::read_to_string(&path).unwrap_or_default();
        let others: String =
            before.lines().filter(|l| !l.starts_with(&ours)).map(|l| format!("{l}\n")).collect();
        fs::write(path, others + &self.lines)
    }
}

/// Sorted times of so many calls, in microseconds.
pub fn times_us(times: usize, mut f: impl FnMut(usize)) -> Vec<f64> {
    let mut all: Vec<f64> = (0..times)
        .map(|i| {
            let begin = Instant::now();
            f(i);
            begin.elapsed().as_nanos() as f64 / 1_000.0
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The value below which such a share of sorted ones lies.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// The middle of so many calls' times, in microseconds.
pub fn median_us(times: usize, f: impl FnMut(usize)) -> f64 {
    quantile(&times_us(times, f), 0.5)
}

/// Waits for a condition, at most a minute.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what} does not come");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
