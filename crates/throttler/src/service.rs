//! `throttlerservice.Throttler`: shows and changes the throttlers of this process.
//!
//! The whole configuration has an effect on a throttler whose rate adapts to replication lag. Of a clone one field has,
//! `max_replication_lag_sec`: it waits while a replica of its shard is further behind. v5.0.1 adapts the rate there, too;
//! the other fields are kept and shown, and the log says that they have no effect.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tonic::{Request, Response, Status};
use vterrors::{Code, VtError};
use vtproto::{
    throttlerdata::{
        Configuration, GetConfigurationRequest, GetConfigurationResponse, MaxRatesRequest, MaxRatesResponse,
        ResetConfigurationRequest, ResetConfigurationResponse, SetMaxRateRequest, SetMaxRateResponse,
        UpdateConfigurationRequest, UpdateConfigurationResponse,
    },
    throttlerservice::throttler_server::Throttler as Service,
};

use crate::{Throttler, Throttlers, config};

/// The least limit of replication lag, seconds.
const LEAST_LAG: i64 = 2;

/// The gRPC service.
#[derive(Debug, Clone)]
pub struct ThrottlerService {
    throttlers: Throttlers,
    /// By throttler, what was asked of it.
    asked: Arc<Mutex<BTreeMap<String, Configuration>>>,
}

impl ThrottlerService {
    pub fn new(throttlers: Throttlers) -> Self {
        Self { throttlers, asked: Arc::default() }
    }

    /// What was asked of a throttler, with the limit that is in force.
    fn configuration(&self, throttler: &Throttler) -> Configuration {
        if let Some(adaptive) = throttler.adaptive_config() {
            return adaptive;
        }
        let asked = self.asked().get(throttler.name()).cloned().unwrap_or_default();
        Configuration { max_replication_lag_sec: throttler.max_lag().unwrap_or(asked.max_replication_lag_sec), ..asked }
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<String, Configuration>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(throttlers: &[Arc<Throttler>]) -> Vec<String> {
    throttlers.iter().map(|throttler| throttler.name().to_owned()).collect()
}

#[tonic::async_trait]
impl Service for ThrottlerService {
    async fn max_rates(&self, _request: Request<MaxRatesRequest>) -> Result<Response<MaxRatesResponse>, Status> {
        let throttlers = self.throttlers.named("")?;
        let rates = throttlers.iter().map(|throttler| (throttler.name().to_owned(), throttler.rate())).collect();
        Ok(Response::new(MaxRatesResponse { rates }))
    }

    async fn set_max_rate(&self, request: Request<SetMaxRateRequest>) -> Result<Response<SetMaxRateResponse>, Status> {
        let rate = request.into_inner().rate;
        if rate < 0 {
            return Err(VtError::new(Code::InvalidArgument, format!("the rate must be >= 0, not {rate}")).into());
        }
        let throttlers = self.throttlers.named("")?;
        for throttler in &throttlers {
            tracing::info!(throttler = throttler.name(), rate, "the maximum rate is set");
            throttler.set_max_rate(rate);
        }
        Ok(Response::new(SetMaxRateResponse { names: names(&throttlers) }))
    }

    async fn get_configuration(
        &self,
        request: Request<GetConfigurationRequest>,
    ) -> Result<Response<GetConfigurationResponse>, Status> {
        let throttlers = self.throttlers.named(&request.into_inner().throttler_name)?;
        let configurations: BTreeMap<String, Configuration> =
            throttlers.iter().map(|throttler| (throttler.name().to_owned(), self.configuration(throttler))).collect();
        Ok(Response::new(GetConfigurationResponse { configurations }))
    }

    async fn update_configuration(
        &self,
        request: Request<UpdateConfigurationRequest>,
    ) -> Result<Response<UpdateConfigurationResponse>, Status> {
        let request = request.into_inner();
        let wanted = request.configuration.unwrap_or_default();
        let throttlers = self.throttlers.named(&request.throttler_name)?;
        let lag = wanted.max_replication_lag_sec;
        if lag < LEAST_LAG && (lag != 0 || request.copy_zero_values) {
            return Err(VtError::new(Code::InvalidArgument, "max_replication_lag_sec must be >= 2").into());
        }
        // All or none.
        for throttler in throttlers.iter().filter(|throttler| throttler.adaptive_config().is_some()) {
            config::verify(&config::merged(self.configuration(throttler), &wanted, request.copy_zero_values))?;
        }
        for throttler in &throttlers {
            let before = self.configuration(throttler);
            let now = config::merged(before, &wanted, request.copy_zero_values);
            tracing::info!(throttler = throttler.name(), lag = now.max_replication_lag_sec, "the configuration is set");
            if throttler.set_adaptive_config(now) {
                continue;
            }
            let only_lag = Configuration { max_replication_lag_sec: lag, ..Configuration::default() };
            if throttler.max_lag().is_none() || wanted != only_lag {
                tracing::warn!(
                    throttler = throttler.name(),
                    "rates do not adapt to replication lag here: max_replication_lag_sec of a clone is all that has an effect"
                );
            }
            throttler.set_max_lag(now.max_replication_lag_sec);
            self.asked().insert(throttler.name().to_owned(), now);
        }
        Ok(Response::new(UpdateConfigurationResponse { names: names(&throttlers) }))
    }

    async fn reset_configuration(
        &self,
        request: Request<ResetConfigurationRequest>,
    ) -> Result<Response<ResetConfigurationResponse>, Status> {
        let throttlers = self.throttlers.named(&request.into_inner().throttler_name)?;
        for throttler in &throttlers {
            self.asked().remove(throttler.name());
            throttler.reset();
        }
        Ok(Response::new(ResetConfigurationResponse { names: names(&throttlers) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UNLIMITED;

    fn lag(seconds: i64) -> Option<Configuration> {
        Some(Configuration { max_replication_lag_sec: seconds, ..Configuration::default() })
    }

    #[tokio::test]
    async fn throttlers_are_shown_and_changed() {
        let throttlers = Throttlers::default();
        let service = ThrottlerService::new(throttlers.clone());
        let clone = throttlers.add(Throttler::new("ks/0", 40).with_max_lag(UNLIMITED));
        let shown = service.max_rates(Request::new(MaxRatesRequest {})).await.expect("rates").into_inner();
        assert_eq!(shown.rates, BTreeMap::from([("ks/0".to_owned(), 40)]));
        let set = |rate| service.set_max_rate(Request::new(SetMaxRateRequest { rate }));
        assert_eq!(set(7).await.expect("set").into_inner().names, ["ks/0"]);
        assert_eq!(clone.max_rate(), 7);
        assert!(set(-1).await.is_err());

        let update = |configuration, throttler_name: &str, copy_zero_values| {
            let throttler_name = throttler_name.to_owned();
            service.update_configuration(Request::new(UpdateConfigurationRequest {
                throttler_name,
                configuration,
                copy_zero_values,
            }))
        };
        assert_eq!(update(lag(30), "", false).await.expect("set").into_inner().names, ["ks/0"]);
        assert_eq!(clone.max_lag(), Some(30));
        update(lag(0), "ks/0", false).await.expect("nothing to do");
        assert_eq!(clone.max_lag(), Some(30));
        for (wanted, name, zero, message) in [
            (lag(0), "ks/0", true, "max_replication_lag_sec must be >= 2"),
            (lag(1), "", false, "max_replication_lag_sec must be >= 2"),
            (lag(5), "ks/1", false, "throttler: ks/1 does not exist"),
        ] {
            let error = update(wanted, name, zero).await.expect_err("refused");
            assert!(error.message().contains(message), "{error}");
        }
        let get = GetConfigurationRequest { throttler_name: "ks/0".into() };
        let shown = service.get_configuration(Request::new(get)).await.expect("one").into_inner();
        assert_eq!(shown.configurations.into_values().next(), lag(30));
        // Fields without an effect are kept and shown, those that are zero only when that was asked for.
        let initial = Some(Configuration { initial_rate: 5, ..Default::default() });
        update(initial, "", false).await.expect("kept");
        let get = || service.get_configuration(Request::new(GetConfigurationRequest::default()));
        let shown = get().await.expect("all").into_inner().configurations.into_values().next().expect("one");
        assert_eq!((shown.initial_rate, shown.max_replication_lag_sec), (5, 30));
        update(lag(40), "", true).await.expect("kept");
        let shown = get().await.expect("all").into_inner().configurations.into_values().next();
        assert_eq!(shown, lag(40));
        service.reset_configuration(Request::new(ResetConfigurationRequest::default())).await.expect("reset");
        assert_eq!(clone.max_lag(), Some(UNLIMITED));

        let adapting = throttlers.add(Throttler::new("TransactionThrottler", UNLIMITED).adaptive(config::defaults()));
        let rate = Some(Configuration { max_increase: 0.25, ..Default::default() });
        update(rate, "TransactionThrottler", false).await.expect("set");
        let shown = get().await.expect("all").into_inner().configurations;
        assert_eq!(shown["TransactionThrottler"], Configuration { max_increase: 0.25, ..config::defaults() });
        let error = update(lag(5), "TransactionThrottler", true).await.expect_err("the others are zero");
        assert_eq!(error.message(), "target_replication_lag_sec must be >= 1");
        let shown = service.max_rates(Request::new(MaxRatesRequest {})).await.expect("rates").into_inner();
        assert_eq!(shown.rates["TransactionThrottler"], 100);
        let reset = ResetConfigurationRequest { throttler_name: "TransactionThrottler".into() };
        service.reset_configuration(Request::new(reset)).await.expect("reset");
        assert_eq!(adapting.adaptive_config(), Some(config::defaults()));
        drop(adapting);

        let _stream = throttlers.add(Throttler::new("BinlogPlayer/1", UNLIMITED));
        assert_eq!(update(lag(5), "", false).await.expect("kept").into_inner().names, ["BinlogPlayer/1", "ks/0"]);
        assert_eq!(clone.max_lag(), Some(5));
    }
}
