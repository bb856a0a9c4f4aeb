//! What an Orchestrator beside the cluster is told: that this tablet's mysqld is there, and when its replication is stopped
//! or its mastership given up on purpose, so that it does not repair what is meant (`-orc_…`).
//!
//! Everything here is best effort: an Orchestrator that does not answer holds up nothing and is logged.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use servenv::http_client;
use tokio_util::sync::CancellationToken;
use topo::topoproto;

use super::TabletManager;

/// Who asks for maintenance.
const OWNER: &str = "vitess";
/// Longest pause after a failed discovery.
const MOST_PAUSE: Duration = Duration::from_secs(60);

/// Where the Orchestrator is.
#[derive(Debug, Clone)]
pub struct OrchestratorConfig {
    /// `host:port` of `-orc_api_url`.
    address: String,
    /// What stands in front of every call, `/api`.
    prefix: String,
    /// Header of `-orc_api_user` and `-orc_api_password`.
    authorization: Option<String>,
    /// `-orc_timeout`, of one call.
    timeout: Duration,
    /// `-orc_discover_interval`; zero never announces the tablet.
    interval: Duration,
}

impl OrchestratorConfig {
    /// # Errors
    /// Says what is wrong with the URL.
    pub fn new(url: &str, user: &str, password: &str, timeout: Duration, interval: Duration) -> Result<Self, String> {
        let Some(rest) = url.strip_prefix("http://") else {
            return Err(format!("{url:?} has to begin with http://: nothing else is built"));
        };
        let (host, prefix) =
            rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
        if host.is_empty() {
            return Err(format!("{url:?} names no host"));
        }
        let bare_host = host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err());
        Ok(Self {
            address: if bare_host { format!("{host}:80") } else { host.to_owned() },
            prefix: prefix.trim_end_matches('/').to_owned(),
            authorization: (!user.is_empty()).then(|| format!("Basic {}", BASE64.encode(format!("{user}:{password}")))),
            timeout,
            interval,
        })
    }

    async fn call(&self, words: &[&str]) -> Result<(), http_client::GetError> {
        let path: String = words.iter().map(|word| format!("/{}", escaped(word))).collect();
        let path = format!("{}{path}", self.prefix);
        http_client::get(&self.address, &path, self.authorization.as_deref(), self.timeout).await.map(drop)
    }
}

impl TabletManager {
    /// Announces this tablet's mysqld again and again until `stop`, sooner again after a failure.
    pub(super) async fn announce_to_orchestrator(self: Arc<Self>, config: OrchestratorConfig, stop: CancellationToken) {
        if config.interval.is_zero() {
            return;
        }
        let mut failed = Duration::ZERO;
        loop {
            let (host, port) = self.mysqld_address();
            let pause = match config.call(&["discover", &host, &port]).await {
                Ok(()) => {
                    failed = Duration::ZERO;
                    config.interval
                }
                Err(error) => {
                    tracing::warn!("Orchestrator is not told of this tablet: {error}");
                    failed = (failed * 2).clamp(Duration::from_secs(1), MOST_PAUSE);
                    failed.min(config.interval)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Tells that what follows is on purpose. Does not wait for the answer.
    pub(super) fn begin_maintenance(&self, reason: &'static str) {
        let (host, port) = self.mysqld_address();
        self.tell_orchestrator(move |orc| async move {
            orc.call(&["begin-maintenance", &host, &port, OWNER, reason]).await
        });
    }

    pub(super) fn end_maintenance(&self) {
        let (host, port) = self.mysqld_address();
        self.tell_orchestrator(move |orc| async move { orc.call(&["end-maintenance", &host, &port]).await });
    }

    fn mysqld_address(&self) -> (String, String) {
        let tablet = self.tablet();
        (topoproto::mysql_hostname(&tablet).to_owned(), topoproto::mysql_port(&tablet).to_string())
    }

    fn tell_orchestrator<F>(&self, call: impl FnOnce(OrchestratorConfig) -> F)
    where
        F: Future<Output = Result<(), http_client::GetError>> + Send + 'static,
    {
        let Some(orchestrator) = self.config.orchestrator.clone() else { return };
        let call = call(orchestrator);
        tokio::spawn(async move {
            if let Err(error) = call.await {
                tracing::warn!("Orchestrator is not told of what is done on purpose: {error}");
            }
        });
    }
}

/// One segment of a path.
fn escaped(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte);
    word.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<OrchestratorConfig, String> {
        OrchestratorConfig::new(url, "orc", "secret", Duration::from_secs(1), Duration::ZERO)
    }

    #[test]
    fn the_url_is_read_or_refused() {
        let orc = config("http://orc.example:3000/api/").expect("valid");
        assert_eq!((orc.address.as_str(), orc.prefix.as_str()), ("orc.example:3000", "/api"));
        assert_eq!(orc.authorization.as_deref(), Some("Basic b3JjOnNlY3JldA=="));
        assert_eq!(config("http://orc").expect("valid").address, "orc:80");
        assert!(config("https://orc/api").expect_err("TLS").contains("http://"));
        assert!(config("http:///api").expect_err("no host").contains("no host"));
    }

    #[test]
    fn words_of_a_reason_are_one_segment() {
        assert_eq!(escaped("told to stop/now"), "told%20to%20stop%2Fnow");
    }
}
