//! `/debug/profile`: on what the process spends its CPU time, as a flame graph.
//!
//! Samples the stacks of all threads while they use CPU, for `seconds` (10), `hz` (99) times a second of CPU time, and
//! answers with an SVG. One at a time. Costs nothing while nobody asks; drawing reads the program's debug information, which
//! takes memory until it is done.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::symbols::Symbols;

/// Longest profile, and the finest.
const MAX_SECONDS: u64 = 120;
const MAX_HZ: i32 = 1000;
/// pprof's signal handler.
const SAMPLER: &str = "perf_signal_handler";

/// What was asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    #[serde(default = "ten")]
    seconds: u64,
    #[serde(default = "ninety_nine")]
    hz: i32,
}

fn ten() -> u64 {
    10
}

/// Not a round number, so that what happens every so many milliseconds is not always hit or always missed.
fn ninety_nine() -> i32 {
    99
}

pub(crate) async fn profile(Query(wanted): Query<Wanted>) -> Response {
    let Wanted { seconds, hz } = wanted;
    if !(1..=MAX_SECONDS).contains(&seconds) || !(1..=MAX_HZ).contains(&hz) {
        let text = format!("seconds must be from 1 to {MAX_SECONDS}, hz from 1 to {MAX_HZ}\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    // Dropped with this future, when the one who asked goes away: then the sampling ends.
    let sampling = match pprof::ProfilerGuardBuilder::default().frequency(hz).build() {
        Ok(sampling) => sampling,
        Err(error) => {
            return (StatusCode::CONFLICT, format!("another profile is being taken: {error}\n")).into_response();
        }
    };
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    match tokio::task::spawn_blocking(move || draw(&sampling, seconds)).await {
        Ok(Ok(svg)) => ([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The flame graph of what was sampled, an SVG.
fn draw(sampling: &pprof::ProfilerGuard<'_>, seconds: u64) -> anyhow::Result<Vec<u8>> {
    let samples = sampling.report().build_unresolved()?.data;
    let mut symbols = Symbols::new();
    let mut stacks: HashMap<String, isize> = HashMap::new();
    for (sample, count) in &samples {
        let functions: Vec<Vec<String>> = sample.frames.iter().map(|frame| symbols.functions(frame.ip)).collect();
        // The innermost two, which take the sample: the handler, and what the kernel calls it from.
        let own = functions.iter().position(|names| names.iter().any(|name| name == SAMPLER)).map_or(0, |at| at + 2);
        let thread = String::from_utf8_lossy(&sample.thread_name[..sample.thread_name_length]);
        let mut stack = thread.into_owned();
        for name in functions.iter().skip(own).flatten().rev() {
            stack.push(';');
            // A semicolon parts functions, and is in the names of arrays.
            stack.push_str(&name.replace(';', ","));
        }
        *stacks.entry(stack).or_default() += count;
    }
    drop(symbols);
    if stacks.is_empty() {
        stacks.insert("no CPU time was used".to_owned(), 1);
    }
    let lines: Vec<String> = stacks.into_iter().map(|(stack, count)| format!("{stack} {count}")).collect();
    let mut options = inferno::flamegraph::Options::default();
    options.title = format!("CPU time of {seconds} s");
    let mut svg = Vec::new();
    inferno::flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)?;
    Ok(svg)
}
