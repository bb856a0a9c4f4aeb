//! `/debug/profile`: on what the process spends its CPU time, as a flame graph.
//!
//! Samples the stacks of all threads while they use CPU, for `seconds` (10), `hz` (99) times a second of CPU time, and
//! answers with an SVG. One at a time. Costs nothing before the first. What is read of the program's debug information, ten times
//! what a server at rest holds, is forgotten when the names of the functions are known; what pprof samples with stays.

use std::sync::Once;
use std::time::Duration;

use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use nix::sys::signal::{Signal, raise};
use serde::Deserialize;

/// Longest profile, and the finest.
const MAX_SECONDS: u64 = 120;
const MAX_HZ: i32 = 1000;
/// The picture of a server that did nothing.
const IDLE: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" width="400" height="40"><text x="10" y="25">no CPU time was used</text></svg>
"#;

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

/// Begins to sample. Takes a second or so, for pprof has names of functions looked up each time.
fn begin(hz: i32) -> pprof::Result<pprof::ProfilerGuard<'static>> {
    static READY: Once = Once::new();
    let sample = |hz| pprof::ProfilerGuardBuilder::default().frequency(hz).build();
    if !READY.is_completed() {
        // With the first signal pprof makes the tables that stacks are walked with, which allocates. Where the signal interrupts
        // the allocator that never ends, so it is this one, sent before a second of CPU time has made the first of its own.
        let rarely = sample(1)?;
        // Nothing but a wrong signal fails.
        let _ = raise(Signal::SIGPROF);
        drop(rarely);
        READY.call_once(|| {});
    }
    let sampling = sample(hz)?;
    backtrace::clear_symbol_cache();
    Ok(sampling)
}

pub(crate) async fn profile(Query(wanted): Query<Wanted>) -> Response {
    let Wanted { seconds, hz } = wanted;
    if !(1..=MAX_SECONDS).contains(&seconds) || !(1..=MAX_HZ).contains(&hz) {
        let text = format!("seconds must be from 1 to {MAX_SECONDS}, hz from 1 to {MAX_HZ}\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let busy = "another profile is being taken";
    let Ok(_one) = ONE.try_lock() else { return (StatusCode::CONFLICT, format!("{busy}\n")).into_response() };
    // Dropped with this future, when the one who asked goes away: then the sampling ends.
    let sampling = match tokio::task::spawn_blocking(move || begin(hz)).await {
        Ok(Ok(sampling)) => sampling,
        // One whose asker has gone away is still being drawn.
        Ok(Err(error)) => return (StatusCode::CONFLICT, format!("{busy}: {error}\n")).into_response(),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let drawn = tokio::task::spawn_blocking(move || {
        let report = sampling.report().build();
        backtrace::clear_symbol_cache();
        let mut svg = Vec::new();
        report?.flamegraph(&mut svg)?;
        // Nothing ran, so there was nothing to draw.
        if svg.is_empty() {
            svg.extend_from_slice(IDLE.as_bytes());
        }
        Ok::<_, pprof::Error>(svg)
    });
    match drawn.await {
        Ok(Ok(svg)) => ([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
