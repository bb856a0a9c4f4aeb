//! What tablets say about their health while a command waits for it to change.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use tabletclient::HealthStream;
use topo::topoproto;
use vtproto::query::StreamHealthResponse;
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{Tablet, TabletType};

use crate::Wrangler;
use crate::args::alias_text;
use crate::error::{Result, bail, err};
use crate::logger::info;
use crate::resharding::streams;
use crate::wrangler::within;

/// How long a tablet may be silent: it reports at least every `-health_check_interval` (20 s).
const SILENCE: Duration = Duration::from_secs(60);

/// The stream of a tablet's health.
pub(crate) async fn stream(wr: &Wrangler, tablet: &Tablet) -> Result<HealthStream> {
    let service = tabletclient::grpc::dial(tablet, &wr.config().tablet_dial)?;
    match tokio::time::timeout(wr.config().remote_operation_timeout, service.stream_health()).await {
        Ok(stream) => Ok(stream?),
        Err(_) => bail!("the tablet did not answer within {:?}", wr.config().remote_operation_timeout),
    }
}

/// The next report of a stream.
pub(crate) async fn next(stream: &mut HealthStream) -> Result<StreamHealthResponse> {
    match tokio::time::timeout(SILENCE, stream.next()).await {
        Ok(Some(report)) => Ok(report?),
        Ok(None) => bail!("stream ended early"),
        Err(_) => bail!("no health report for {SILENCE:?}"),
    }
}

/// Waits until the filtered replication of a shard's master is at most `max_delay` behind.
pub(crate) async fn wait_for_filtered_replication(
    wr: &Wrangler,
    keyspace: &str,
    shard: &str,
    max_delay: Duration,
) -> Result {
    let info = wr.topo().get_shard(keyspace, shard).await?;
    if info.record.source_shards.is_empty() {
        bail!("shard {keyspace}/{shard} has no source shard");
    }
    let Some(alias) = info.master_alias() else { bail!("shard {keyspace}/{shard} has no master") };
    let tablet = wr.topo().get_tablet(alias).await?.record;
    let name = alias_text(alias);
    // A report made just now: the last one may be older than the source's last write.
    let check = wr.tmc().run_health_check(&tablet, tmd::RunHealthCheckRequest {});
    within(wr.config().remote_operation_timeout, check)
        .await
        .map_err(|error| err!("failed to run explicit healthcheck on tablet: {name} err: {error}"))?;
    let mut reports = stream(wr, &tablet)
        .await
        .map_err(|error| err!("could not stream health records from tablet: {name} err: {error}"))?;
    let mut told = Vec::new();
    loop {
        let report = next(&mut reports)
            .await
            .map_err(|error| err!("could not stream health records from tablet: {name} err: {error}"))?;
        let stats = report
            .realtime_stats
            .ok_or_else(|| err!("health record does not include RealtimeStats message. tablet: {name}"))?;
        if !stats.health_error.is_empty() {
            bail!("tablet is not healthy. tablet: {name} health error: {}", stats.health_error);
        }
        if stats.binlog_players_count == 0 {
            bail!("no filtered replication running on tablet: {name}");
        }
        // Nothing is caught up with by a stream that stands still. It may go on again: the operator decides how long to wait.
        let halted: Vec<String> = streams::read(wr, &tablet)
            .await?
            .iter()
            .filter_map(|stream| stream.check_runs(&topoproto::tablet_alias_string(Some(alias))).err())
            .map(|error| error.to_string())
            .collect();
        if !halted.is_empty() && halted != told {
            for text in &halted {
                wr.logger().println(text.clone()).await;
            }
            told.clone_from(&halted);
        }
        let delay = stats.seconds_behind_master_filtered_replication;
        // A negative delay: not known yet, as before the first event of a stream.
        if halted.is_empty() && delay >= 0 && Duration::from_secs(delay.unsigned_abs()) <= max_delay {
            wr.logger()
                .println(format!(
                    "Filtered replication on tablet: {name} has caught up. Last seen delay: {delay}.0 seconds"
                ))
                .await;
            return Ok(());
        }
        wr.logger()
            .println(format!(
                "Waiting for filtered replication to catch up on tablet: {name} Last seen delay: {delay}.0 seconds"
            ))
            .await;
    }
}

/// Waits until the tablets of a type in some cells serve no queries any more. `limit` zero waits
/// without end; `initial_wait` lets vtgates notice first.
pub(crate) async fn wait_for_drain(
    wr: &Wrangler,
    keyspace: &str,
    shard: &str,
    tablet_type: TabletType,
    cells: &[String],
    retry_delay: Duration,
    initial_wait: Duration,
) -> Result {
    if cells.is_empty() {
        bail!("no cells to wait for");
    }
    info!(wr, "waiting {initial_wait:?} to make sure that the drain has begun");
    tokio::time::sleep(initial_wait).await;
    loop {
        let tablets = wr.topo().get_tablet_map_for_shard_by_cell(keyspace, shard, cells).await?.complete()?;
        let reports = futures::future::join_all(
            tablets.values().filter(|tablet| tablet.record.r#type() == tablet_type).map(|tablet| async move {
                let report = async { next(&mut stream(wr, &tablet.record).await?).await }.await;
                (tablet.alias_string(), report)
            }),
        )
        .await;
        let mut healthy = 0;
        let mut busy = BTreeMap::new();
        for (alias, report) in reports {
            match report {
                // A tablet that does not serve or cannot be reached takes no queries.
                Ok(report) if report.serving => {
                    healthy += 1;
                    let qps = report.realtime_stats.map_or(0.0, |stats| stats.qps);
                    if qps > 0.0 {
                        busy.insert(alias, qps);
                    }
                }
                Ok(_) => {}
                Err(error) => info!(wr, "no health report of {alias}: {error}"),
            }
        }
        let name = topoproto::tablet_type_lstring(tablet_type);
        if busy.is_empty() {
            info!(wr, "all {healthy} healthy tablets of type {name} in {} are drained", cells.join(","));
            return Ok(());
        }
        let list: Vec<String> = busy.iter().map(|(alias, qps)| format!("{alias} ({qps:.1} qps)")).collect();
        info!(wr, "{} of {healthy} healthy tablets of type {name} still serve: {}", busy.len(), list.join(", "));
        tokio::time::sleep(retry_delay.max(Duration::from_millis(10))).await;
    }
}
