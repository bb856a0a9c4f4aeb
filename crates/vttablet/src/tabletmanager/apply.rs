//! Bringing the query service in line with what the tablet is.

use topo::TopoError;
use vterrors::{Result, VtError};
use vtproto::topodata::TabletType;

use super::{
    decision::{self, should_serve, should_stream},
    manager::{Known, TabletManager},
    markers::Marker,
};

impl TabletManager {
    /// Reads the tablet's record again, for somebody else may have changed it, and acts on it.
    pub(super) async fn refresh_locked(&self, reason: &str) -> Result<()> {
        let info = self
            .topo
            .get_tablet(&self.config.alias)
            .await
            .map_err(|error| VtError::from(error).wrap("cannot read the tablet record"))?;
        self.state().tablet = info.record;
        self.apply(reason).await;
        Ok(())
    }

    /// Reads what topo says about a tablet of this type, loads the denied tables, checks health, starts or stops serving,
    /// and tells the shard sync and everybody who listens to our health.
    pub(super) async fn apply(&self, reason: &str) {
        if let Err(error) = self.read_permit().await {
            tracing::warn!("{error}: what was known before goes on to hold");
        }
        // What was ill as a replica may be fine as a master: looked at anew, then serving follows.
        self.check_health_locked(false, reason).await;
        self.sync_now.notify_one();
    }

    /// What cannot be read keeps its present meaning: a topo that is away neither starts nor stops a tablet,
    /// nor does it open tables that are denied.
    ///
    /// Errors: which record could not be read; the rest is in force.
    pub(super) async fn read_permit(&self) -> Result<()> {
        let tablet = self.tablet();
        let mut failed = Ok(());
        let mut known = self.state().known.clone();
        if known.place != (tablet.keyspace.clone(), tablet.shard.clone()) {
            known = Known { place: (tablet.keyspace.clone(), tablet.shard.clone()), ..Known::default() };
        }
        let cell = &self.config.alias.cell;
        let (shard, serving) = tokio::join!(
            self.topo.get_shard(&tablet.keyspace, &tablet.shard),
            self.topo.get_srv_keyspace(cell, &tablet.keyspace)
        );
        match shard {
            Ok(info) => known.shard = Some(info.record),
            Err(TopoError::NoNode { .. }) => known.shard = None,
            Err(error) => failed = Err(VtError::from(error).wrap("cannot read the shard record")),
        }
        match serving {
            Ok(record) => known.serving = Some(record),
            Err(TopoError::NoNode { .. }) => known.serving = None,
            Err(error) => failed = Err(VtError::from(error).wrap("cannot read the serving graph")),
        }
        let demoted = tablet.r#type() == TabletType::Master && self.markers.has(Marker::DemotedMaster);
        let permit = decision::permit(&tablet, known.shard.as_ref(), known.serving.as_ref(), demoted);
        if let Err(error) = self.query.set_denied_tables(&permit.denied_tables) {
            tracing::error!("the denied tables {:?} cannot be enforced: {error}", permit.denied_tables);
        }
        let mut state = self.state();
        state.permit = permit;
        state.known = known;
        failed
    }

    /// Starts or stops the query service as permit and health say. Behind the gate of a cutover a tablet whose
    /// traffic has moved stays up: what comes is told to wait, not that nobody serves.
    pub(super) async fn reconcile(&self, reason: &str) {
        let gated = self.query.is_serving() && self.query.gated().is_some();
        self.reconcile_behind(gated, reason).await;
    }

    pub(super) async fn reconcile_behind(&self, gate: bool, reason: &str) {
        let _applying = self.applying.lock().await;
        self.reconcile_vreplication().await;
        let (tablet_type, serve, stream, why) = {
            let state = self.state();
            let tablet_type = state.tablet.r#type();
            let ill = match state.checked {
                // Not looked at yet: begin when the first health check has passed.
                None => Some("not checked yet".to_owned()),
                Some(_) => state.health_error.clone(),
            };
            let stays = gate && state.permit.is_moved_away() && ill.is_none();
            let serve = !state.stopping && (stays || should_serve(tablet_type, &state.permit, ill.as_deref()));
            // A source whose queries are refused, during a cutover or for good, still has changes to give.
            let stream = !state.stopping && should_stream(tablet_type, ill.as_deref());
            (tablet_type, serve, stream, state.permit.refused.clone().or(ill))
        };
        self.streaming.send_if_modified(|now| std::mem::replace(now, stream) != stream);
        let grace = self.config.serving_state_grace_period;
        let was_serving = self.query.is_serving();
        if was_serving && !serve && !grace.is_zero() {
            // Gates go elsewhere before queries are refused here.
            self.query.enter_lameduck();
            tokio::time::sleep(grace).await;
        }
        let also_allow: &[TabletType] =
            if serve && tablet_type == TabletType::Master && !grace.is_zero() { &[TabletType::Replica] } else { &[] };
        match self.query.set_serving_type(tablet_type, serve, also_allow).await {
            Ok(false) => {}
            Ok(true) if serve => tracing::info!("serving as {} ({reason})", tablet_type.as_str_name()),
            Ok(true) => {
                tracing::info!("not serving ({reason}): {}", why.as_deref().unwrap_or("the tablet stops"));
            }
            Err(error) => {
                tracing::error!("cannot serve as {}: {error}", tablet_type.as_str_name());
                self.state().health_error = Some(error.to_string());
            }
        }
        if !also_allow.is_empty() {
            tokio::time::sleep(grace).await;
            if let Err(error) = self.query.set_serving_type(tablet_type, serve, &[]).await {
                tracing::error!("ending the grace period: {error}");
            }
        }
    }
}
