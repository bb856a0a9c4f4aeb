//! `/debug/profile`: on what the process spends its CPU time, as a flame graph.
//!
//! Samples the stacks of all threads while they use CPU, for `seconds` (10), `hz` (99) times a second of CPU time, and
//! answers with an SVG. One at a time. Costs nothing while nobody asks.

use std::time::Duration;

use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

/// Longest profile, and the finest.
const MAX_SECONDS: u64 = 120;
const MAX_HZ: i32 = 1000;

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
    let drawn = tokio::task::spawn_blocking(move || {
        let report = sampling.report().build()?;
        let mut svg = Vec::new();
        report.flamegraph(&mut svg)?;
        Ok::<_, pprof::Error>(svg)
    });
    match drawn.await {
        // Nothing ran, so there is nothing to draw.
        Ok(Ok(svg)) if svg.is_empty() => (StatusCode::NO_CONTENT, ()).into_response(),
        Ok(Ok(svg)) => ([(header::CONTENT_TYPE, "image/svg+xml")], svg).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
