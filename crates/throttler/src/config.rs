//! The settings of a rate that adapts to replication lag: `throttlerdata.Configuration` its text form and its
//! limits.

use vterrors::{Code, Result, VtError};
use vtproto::throttlerdata::Configuration;

/// Settings for tests: those that vttablet's flag has by default.
#[cfg(test)]
pub(crate) fn defaults() -> Configuration {
    Configuration {
        target_replication_lag_sec: 2,
        max_replication_lag_sec: 10,
        initial_rate: 100,
        max_increase: 1.0,
        emergency_decrease: 0.5,
        min_duration_between_increases_sec: 40,
        max_duration_between_increases_sec: 62,
        min_duration_between_decreases_sec: 20,
        spread_backlog_across_sec: 20,
        ignore_n_slowest_replicas: 0,
        ignore_n_slowest_rdonlys: 0,
        age_bad_rate_after_sec: 180,
        bad_rate_increase: 0.1,
        max_rate_approach_threshold: 0.9,
    }
}

fn invalid(text: impl Into<String>) -> VtError {
    VtError::new(Code::InvalidArgument, text.into())
}

/// A configuration in the text form of protobuf: `name: number`, separated by blanks, commas or semicolons; `#` begins a
/// comment. What is not named is zero, as in any message.
///
/// # Errors
/// INVALID_ARGUMENT naming the field that is unknown, or whose value is not a number of its type.
pub fn parse_text(text: &str) -> Result<Configuration> {
    let without_comments: String =
        text.lines().map(|line| line.split('#').next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let spaced = without_comments.replace(':', " : ");
    let mut words = spaced.split(|c: char| c.is_whitespace() || c == ',' || c == ';').filter(|word| !word.is_empty());
    let mut configuration = Configuration::default();
    while let Some(name) = words.next() {
        match (words.next(), words.next()) {
            (Some(":"), Some(value)) => set(&mut configuration, name, value)?,
            _ => return Err(invalid(format!("{name}: expected a name, a colon and a number"))),
        }
    }
    Ok(configuration)
}

fn set(configuration: &mut Configuration, name: &str, value: &str) -> Result<()> {
    fn put<T: std::str::FromStr>(field: &mut T, name: &str, value: &str) -> Result<()> {
        *field = value.parse().map_err(|_| invalid(format!("{name}: {value} is not a number of its type")))?;
        Ok(())
    }
    let c = configuration;
    match name {
        "target_replication_lag_sec" => put(&mut c.target_replication_lag_sec, name, value),
        "max_replication_lag_sec" => put(&mut c.max_replication_lag_sec, name, value),
        "initial_rate" => put(&mut c.initial_rate, name, value),
        "max_increase" => put(&mut c.max_increase, name, value),
        "emergency_decrease" => put(&mut c.emergency_decrease, name, value),
        "min_duration_between_increases_sec" => put(&mut c.min_duration_between_increases_sec, name, value),
        "max_duration_between_increases_sec" => put(&mut c.max_duration_between_increases_sec, name, value),
        "min_duration_between_decreases_sec" => put(&mut c.min_duration_between_decreases_sec, name, value),
        "spread_backlog_across_sec" => put(&mut c.spread_backlog_across_sec, name, value),
        "ignore_n_slowest_replicas" => put(&mut c.ignore_n_slowest_replicas, name, value),
        "ignore_n_slowest_rdonlys" => put(&mut c.ignore_n_slowest_rdonlys, name, value),
        "age_bad_rate_after_sec" => put(&mut c.age_bad_rate_after_sec, name, value),
        "bad_rate_increase" => put(&mut c.bad_rate_increase, name, value),
        "max_rate_approach_threshold" => put(&mut c.max_rate_approach_threshold, name, value),
        _ => Err(invalid(format!("{name} is not a setting of a throttler"))),
    }
}

/// # Errors
/// INVALID_ARGUMENT naming the first field whose value cannot be.
pub fn verify(c: &Configuration) -> Result<()> {
    let at_least = |name: &str, value: i64, least: i64| {
        if value < least { Err(invalid(format!("{name} must be >= {least}"))) } else { Ok(()) }
    };
    let above_zero = |name: &str, value: f64| {
        if value > 0.0 { Ok(()) } else { Err(invalid(format!("{name} must be > 0"))) }
    };
    at_least("target_replication_lag_sec", c.target_replication_lag_sec, 1)?;
    at_least("max_replication_lag_sec", c.max_replication_lag_sec, 2)?;
    let (target, max) = (c.target_replication_lag_sec, c.max_replication_lag_sec);
    if target > max {
        let text = "target_replication_lag_sec must not be higher than max_replication_lag_sec: invalid";
        return Err(invalid(format!("{text}: {target} > {max}")));
    }
    at_least("initial_rate", c.initial_rate, 1)?;
    above_zero("max_increase", c.max_increase)?;
    above_zero("emergency_decrease", c.emergency_decrease)?;
    at_least("min_duration_between_increases_sec", c.min_duration_between_increases_sec, 1)?;
    at_least("max_duration_between_increases_sec", c.max_duration_between_increases_sec, 1)?;
    at_least("min_duration_between_decreases_sec", c.min_duration_between_decreases_sec, 1)?;
    at_least("spread_backlog_across_sec", c.spread_backlog_across_sec, 1)?;
    at_least("ignore_n_slowest_replicas", c.ignore_n_slowest_replicas.into(), 0)?;
    at_least("ignore_n_slowest_rdonlys", c.ignore_n_slowest_rdonlys.into(), 0)?;
    at_least("age_bad_rate_after_sec", c.age_bad_rate_after_sec, 1)?;
    above_zero("bad_rate_increase", c.bad_rate_increase)?;
    if !(0.0..=1.0).contains(&c.max_rate_approach_threshold) {
        return Err(invalid("max_rate_approach_threshold must be between 0 and 1"));
    }
    Ok(())
}

/// The fields of `wanted`, those that are zero only if `copy_zero_values`, over what was there.
pub(crate) fn merged(before: Configuration, wanted: &Configuration, copy_zero_values: bool) -> Configuration {
    if copy_zero_values {
        return *wanted;
    }
    let int = |before: i64, wanted: i64| if wanted == 0 { before } else { wanted };
    let small = |before: i32, wanted: i32| if wanted == 0 { before } else { wanted };
    let float = |before: f64, wanted: f64| if wanted == 0.0 { before } else { wanted };
    Configuration {
        target_replication_lag_sec: int(before.target_replication_lag_sec, wanted.target_replication_lag_sec),
        max_replication_lag_sec: int(before.max_replication_lag_sec, wanted.max_replication_lag_sec),
        initial_rate: int(before.initial_rate, wanted.initial_rate),
        max_increase: float(before.max_increase, wanted.max_increase),
        emergency_decrease: float(before.emergency_decrease, wanted.emergency_decrease),
        min_duration_between_increases_sec: int(
            before.min_duration_between_increases_sec,
            wanted.min_duration_between_increases_sec,
        ),
        max_duration_between_increases_sec: int(
            before.max_duration_between_increases_sec,
            wanted.max_duration_between_increases_sec,
        ),
        min_duration_between_decreases_sec: int(
            before.min_duration_between_decreases_sec,
            wanted.min_duration_between_decreases_sec,
        ),
        spread_backlog_across_sec: int(before.spread_backlog_across_sec, wanted.spread_backlog_across_sec),
        ignore_n_slowest_replicas: small(before.ignore_n_slowest_replicas, wanted.ignore_n_slowest_replicas),
        ignore_n_slowest_rdonlys: small(before.ignore_n_slowest_rdonlys, wanted.ignore_n_slowest_rdonlys),
        age_bad_rate_after_sec: int(before.age_bad_rate_after_sec, wanted.age_bad_rate_after_sec),
        bad_rate_increase: float(before.bad_rate_increase, wanted.bad_rate_increase),
        max_rate_approach_threshold: float(before.max_rate_approach_threshold, wanted.max_rate_approach_threshold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_read() {
        let text = "target_replication_lag_sec: 3 max_replication_lag_sec:7, # seconds\nmax_increase: 0.5;\n";
        let read = parse_text(text).expect("valid");
        assert_eq!((read.target_replication_lag_sec, read.max_replication_lag_sec, read.max_increase), (3, 7, 0.5));
        for (text, message) in [
            ("initial_speed: 5", "initial_speed is not a setting of a throttler"),
            ("initial_rate: fast", "initial_rate: fast is not a number of its type"),
            ("initial_rate 5", "initial_rate: expected a name, a colon and a number"),
            ("initial_rate:", "initial_rate: expected a name, a colon and a number"),
        ] {
            assert_eq!(parse_text(text).expect_err(text).message(), message);
        }
    }

    #[test]
    fn impossible_settings_are_named() {
        verify(&defaults()).expect("valid");
        let refused = |change: fn(&mut Configuration)| {
            let mut c = defaults();
            change(&mut c);
            verify(&c).expect_err("refused").message().to_owned()
        };
        assert_eq!(refused(|c| c.max_replication_lag_sec = 1), "max_replication_lag_sec must be >= 2");
        assert_eq!(
            refused(|c| c.target_replication_lag_sec = 11),
            "target_replication_lag_sec must not be higher than max_replication_lag_sec: invalid: 11 > 10"
        );
        assert_eq!(refused(|c| c.max_increase = 0.0), "max_increase must be > 0");
        assert_eq!(refused(|c| c.ignore_n_slowest_replicas = -1), "ignore_n_slowest_replicas must be >= 0");
        assert_eq!(
            refused(|c| c.max_rate_approach_threshold = 1.5),
            "max_rate_approach_threshold must be between 0 and 1"
        );
    }
}
