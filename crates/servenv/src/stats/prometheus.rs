//! Prometheus's names and text format.
//!
//! A family without samples prints nothing, as in Prometheus's Go client.

use std::fmt::Write;

/// How a family is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

/// One histogram: cumulative counts by upper bound.
pub(crate) struct Buckets {
    pub(super) values: Vec<String>,
    pub(super) bounds: Vec<(f64, i64)>,
    pub(super) sum: f64,
    pub(super) count: i64,
}

enum Samples {
    Numbers(Kind, Vec<(Vec<String>, Number)>),
    Histograms(Vec<Buckets>),
}

/// All samples of one name.
pub(crate) struct Family {
    labels: Vec<String>,
    samples: Samples,
}

impl Family {
    pub(super) fn single(kind: Kind, number: Number) -> Self {
        Self { labels: Vec::new(), samples: Samples::Numbers(kind, vec![(Vec::new(), number)]) }
    }

    pub(super) fn labelled(kind: Kind, labels: Vec<String>, samples: Vec<(Vec<String>, Number)>) -> Self {
        Self { labels, samples: Samples::Numbers(kind, samples) }
    }

    pub(super) fn histogram(labels: Vec<String>, samples: Vec<Buckets>) -> Self {
        Self { labels, samples: Samples::Histograms(samples) }
    }
}

/// `MysqlServerConnCount` in `vtgate` is `vtgate_mysql_server_conn_count`; a name that begins with
/// the namespace does not repeat it: `VtgateApi` is `vtgate_api`.
pub(super) fn metric_name(namespace: &str, name: &str) -> String {
    let prefix = format!("{namespace}_");
    let snake = normalize(name);
    format!("{prefix}{}", snake.strip_prefix(&prefix).unwrap_or(&snake))
}

fn normalize(name: &str) -> String {
    snake_case(&name.replace("VSchema", "vschema").replace("VtGate", "vtgate"))
}

/// `CamelCase` to `camel_case`, runs of capitals being one word: `TLSVer` is `tls_ver`.
fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::with_capacity(name.len() + 8);
    for (i, &c) in chars.iter().enumerate() {
        let after_lower = i > 0 && chars[i - 1].is_ascii_lowercase();
        let before_lower = chars.get(i + 1).is_some_and(char::is_ascii_lowercase);
        let ends_run = i > 0 && chars[i - 1].is_ascii_uppercase() && before_lower;
        if c.is_ascii_uppercase() && (after_lower || ends_run) {
            out.push('_');
        }
        out.push(if matches!(c, '.' | '-') { '_' } else { c.to_ascii_lowercase() });
    }
    out
}

fn escape(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quotes { text.replace('"', "\\\"") } else { text }
}

fn label_pairs(labels: &[String], values: &[String]) -> Vec<String> {
    labels
        .iter()
        .zip(values)
        .map(|(label, value)| format!("{}=\"{}\"", normalize(label), escape(value, true)))
        .collect()
}

fn braces(pairs: &[String]) -> String {
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

/// Rounds away what binary fractions add: 0.0005, not 0.0005000000000000001.
fn float(value: f64) -> String {
    let rounded = format!("{value:.9}");
    rounded.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Appends a family. Writing into a `String` cannot fail.
pub(super) fn write(out: &mut String, name: &str, help: &str, family: &Family) {
    let head = |out: &mut String, kind: &str| {
        let _ = write!(out, "# HELP {name} {}\n# TYPE {name} {kind}\n", escape(help, false));
    };
    match &family.samples {
        Samples::Numbers(_, samples) if samples.is_empty() => {}
        Samples::Histograms(samples) if samples.is_empty() => {}
        Samples::Numbers(kind, samples) => {
            head(out, if *kind == Kind::Counter { "counter" } else { "gauge" });
            for (values, number) in samples {
                let number = match number {
                    Number::Int(number) => number.to_string(),
                    Number::Float(number) => float(*number),
                };
                let _ = writeln!(out, "{name}{} {number}", braces(&label_pairs(&family.labels, values)));
            }
        }
        Samples::Histograms(samples) => {
            head(out, "histogram");
            for sample in samples {
                let pairs = label_pairs(&family.labels, &sample.values);
                let bucket = |out: &mut String, bound: &str, count: i64| {
                    let mut pairs = pairs.clone();
                    pairs.push(format!("le=\"{bound}\""));
                    let _ = writeln!(out, "{name}_bucket{} {count}", braces(&pairs));
                };
                for (bound, count) in &sample.bounds {
                    bucket(out, &float(*bound), *count);
                }
                bucket(out, "+Inf", sample.count);
                let labels = braces(&pairs);
                let _ = writeln!(out, "{name}_sum{labels} {}", float(sample.sum));
                let _ = writeln!(out, "{name}_count{labels} {}", sample.count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of v5.0.1 as its `/metrics` shows them.
    #[test]
    fn names_are_those_of_vitess() {
        for (name, metric) in [
            ("VtgateApi", "vtgate_api"),
            ("VtgateVSchemaCounts", "vtgate_vtgatevschema_counts"),
            ("VtGateWarnings", "vtgate_warnings"),
            ("VttabletCall", "vtgate_vttablet_call"),
            ("MysqlServerConnCountByTLSVer", "vtgate_mysql_server_conn_count_by_tls_ver"),
            ("TableACLExemptCount", "vtgate_table_acl_exempt_count"),
            ("VReplicationStreamCount", "vtgate_v_replication_stream_count"),
            ("MaxDMLRows", "vtgate_max_dml_rows"),
            ("BufferFailoverDurationSumMs", "vtgate_buffer_failover_duration_sum_ms"),
            ("VSchemaUpdates", "vtgate_vschema_updates"),
        ] {
            assert_eq!(metric_name("vtgate", name), metric);
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let family =
            Family::labelled(Kind::Gauge, vec!["user".into()], vec![(vec!["a\"b\\\n".into()], Number::Int(1))]);
        let mut out = String::new();
        write(&mut out, "m", "two\nlines", &family);
        assert_eq!(out, "# HELP m two\\nlines\n# TYPE m gauge\nm{user=\"a\\\"b\\\\\\n\"} 1\n");
    }
}
