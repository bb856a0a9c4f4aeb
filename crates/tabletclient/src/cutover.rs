//! The cutover gate of a source tablet as seen by its coordinator: one method per RPC of
//! `cutover.Cutover`.
//!
//! Spoken over the connections, TLS and credentials of [`TabletManagerClient`], so that both answer
//! or neither does. A tablet that is not ours answers [`Code::Unimplemented`].
//! [`REFUSAL`] is what a refused client's error contains; vtgate waits on seeing it.

use vterrors::{Code, VtError};
use vtproto::cutover as pb;
use vtproto::cutover::cutover_client::CutoverClient;
use vtproto::topodata::Tablet;

use crate::tm::{Result, TabletManagerClient, TmError, unimplemented};

/// Part of the text, with the code `FAILED_PRECONDITION`, of every refusal by a gate.
pub const REFUSAL: &str = "cutover in progress";

/// Whether a gate refused a request, before it had any effect.
pub fn is_refusal(error: &VtError) -> bool {
    error.code() == Code::FailedPrecondition && error.message().contains(REFUSAL)
}

macro_rules! cutover {
    ($( $(#[$doc:meta])* $method:ident, $rpc:literal, $request:ident => $response:ident; )*) => {
        /// The gate of a tablet. Every method may be repeated. A fake for tests overrides what it
        /// needs; the rest answers `UNIMPLEMENTED` by name, as a tablet of Vitess does.
        #[async_trait::async_trait]
        pub trait Cutover: Send + Sync {
            $(
                $(#[$doc])*
                async fn $method(&self, tablet: &Tablet, request: pb::$request) -> Result<pb::$response> {
                    let _ = (tablet, request);
                    Err(unimplemented($rpc))
                }
            )*
        }

        #[async_trait::async_trait]
        impl Cutover for TabletManagerClient {
            $(
                async fn $method(&self, tablet: &Tablet, request: pb::$request) -> Result<pb::$response> {
                    let (channel, request) = self.prepare_on_channel(tablet, request)?;
                    let mut client = CutoverClient::new(channel);
                    client.$method(request).await.map(tonic::Response::into_inner).map_err(|s| TmError::from_status(&s))
                }
            )*
        }
    };
}

cutover! {
    /// Refuses new work from now on.
    gate, "Gate", GateRequest => GateResponse;
    /// Waits for, then kills, the work from before the gate.
    drain, "Drain", DrainRequest => DrainResponse;
    /// Makes a drained gate permanent and reads the position.
    fence, "Fence", FenceRequest => FenceResponse;
    /// Lifts the gate.
    release, "Release", ReleaseRequest => ReleaseResponse;
    status, "Status", StatusRequest => StatusResponse;
}
