//! What SET does with each system variable.
//!
//! | handling | meaning |
//! | --- | --- |
//! | own | the gate's session has the value; `select @@x` answers from there |
//! | checked | accepted with the values listed, without an effect |
//! | ignored | accepted with a warning, without an effect |
//! | setting | kept in the session and set on each connection that runs its statements |
//! | anything else | `unsupported construct: …` |
//!
//! A variable is a setting when its effect ends with the statement or transaction of this session.
//! Variables that would harm others or lose data (`sql_log_bin`, `gtid_next`, `pseudo_thread_id` …) are in
//! no list on purpose.

use vtsql::VariableSource;

/// How a variable is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handling {
    Own,
    Checked,
    Ignored,
    Setting,
}

/// Variables whose value is in the gate's session.
const OWN: &[&str] = &[
    "autocommit",
    "client_found_rows",
    "skip_query_plan_cache",
    "sql_select_limit",
    "transaction_isolation",
    "transaction_mode",
    "transaction_read_only",
    "tx_isolation",
    "tx_read_only",
    "workload",
];

/// Those of [`OWN`] that mysqld knows nothing of, or another value. The others are right there until they are set.
const OWN_ALWAYS: &[&str] =
    &["autocommit", "client_found_rows", "skip_query_plan_cache", "sql_select_limit", "transaction_mode", "workload"];

/// Variables whose value is looked at, without an effect.
const CHECKED: &[&str] = &[
    // Text travels as utf8mb4 between gate and tablets whatever is set here.
    "character_set_results",
    // Idle connections are ended by the gate's own flags.
    "interactive_timeout",
    "sql_auto_is_null",
    "sql_safe_updates",
    "wait_timeout",
];

/// Variables that are taken without an effect, with a warning.
const IGNORED: &[&str] = &[
    "character_set_client",
    "character_set_connection",
    "collation_connection",
    "lc_messages",
    "net_read_timeout",
    "net_write_timeout",
];

/// Variables that tablets set on the connection; sorted.
const SETTINGS: &[&str] = &[
    "auto_increment_increment",
    "auto_increment_offset",
    "big_tables",
    "cte_max_recursion_depth",
    "default_storage_engine",
    "default_tmp_storage_engine",
    "default_week_format",
    "div_precision_increment",
    "end_markers_in_json",
    "eq_range_index_dive_limit",
    "explicit_defaults_for_timestamp",
    "foreign_key_checks",
    "group_concat_max_len",
    "histogram_generation_max_mem_size",
    "information_schema_stats_expiry",
    "innodb_lock_wait_timeout",
    "innodb_strict_mode",
    "innodb_table_locks",
    "innodb_tmpdir",
    "join_buffer_size",
    "lc_time_names",
    "lock_wait_timeout",
    "low_priority_updates",
    "max_execution_time",
    "max_heap_table_size",
    "max_join_size",
    "max_length_for_sort_data",
    "max_points_in_geometry",
    "max_recursive_iterations",
    "max_seeks_for_key",
    "max_sort_length",
    "max_sp_recursion_depth",
    "max_statement_time",
    "min_examined_row_limit",
    "myisam_sort_buffer_size",
    "myisam_stats_method",
    "old_alter_table",
    "old_mode",
    "optimizer_prune_level",
    "optimizer_search_depth",
    "optimizer_switch",
    "optimizer_trace",
    "optimizer_trace_max_mem_size",
    "query_alloc_block_size",
    "query_prealloc_size",
    "range_alloc_block_size",
    "range_optimizer_max_mem_size",
    "read_buffer_size",
    "read_rnd_buffer_size",
    "show_create_table_verbosity",
    "show_old_temporals",
    "sort_buffer_size",
    "sql_big_selects",
    "sql_mode",
    "sql_notes",
    "sql_quote_show_create",
    "sql_warnings",
    "time_zone",
    "timestamp",
    "tmp_table_size",
    "unique_checks",
    "updatable_views_with_limit",
    "windowing_use_high_precision",
];

/// How SET handles a variable (lower case, no scope); `None`: not at all.
pub fn handling(name: &str) -> Option<Handling> {
    if OWN.contains(&name) {
        Some(Handling::Own)
    } else if CHECKED.contains(&name) {
        Some(Handling::Checked)
    } else if IGNORED.contains(&name) {
        Some(Handling::Ignored)
    } else if SETTINGS.binary_search(&name).is_ok() {
        Some(Handling::Setting)
    } else {
        None
    }
}

/// Where `select @@name` has its answer from.
pub fn source(name: &str) -> VariableSource {
    if OWN_ALWAYS.contains(&name) {
        VariableSource::Session
    } else if OWN.contains(&name) {
        VariableSource::SessionOnceSet
    } else {
        VariableSource::Mysqld
    }
}

/// Modes under which text would have to be read or written otherwise than gate and tablets do.
const UNSAFE_MODES: &[&str] = &["ANSI_QUOTES", "NO_BACKSLASH_ESCAPES"];
/// Combined modes of MariaDB and old MySQL with [`UNSAFE_MODES`] inside.
const FOREIGN_MODES: &[&str] = &["ORACLE", "MSSQL", "POSTGRESQL", "DB2", "MAXDB"];

/// A value of `sql_mode` as it may be set on a tablet's connection, and what was left out of it.
///
/// `None`: a mode that cannot be had at all.
pub fn usable_sql_mode(value: &str) -> Option<(String, Vec<&'static str>)> {
    let mut kept: Vec<String> = Vec::new();
    let mut left_out = Vec::new();
    for mode in value.split(',').map(|mode| mode.trim().to_ascii_uppercase()).filter(|mode| !mode.is_empty()) {
        if FOREIGN_MODES.contains(&mode.as_str()) {
            return None;
        }
        if let Some(bad) = UNSAFE_MODES.iter().find(|bad| **bad == mode) {
            left_out.push(*bad);
        } else if mode == "ANSI" {
            left_out.push("ANSI_QUOTES");
            kept.extend(["REAL_AS_FLOAT", "PIPES_AS_CONCAT", "IGNORE_SPACE", "ONLY_FULL_GROUP_BY"].map(String::from));
        } else {
            kept.push(mode);
        }
    }
    Some((kept.join(","), left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_in_one_list() {
        assert!(SETTINGS.is_sorted());
        let all: Vec<&str> = [OWN, CHECKED, IGNORED, SETTINGS].concat();
        let distinct: std::collections::BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(all.len(), distinct.len());
        assert!(OWN_ALWAYS.iter().all(|name| OWN.contains(name)));
        assert_eq!(handling("nonsense"), None);
        assert_eq!(handling("sql_log_bin"), None);
    }

    #[test]
    fn modes_that_change_the_lexer_are_left_out() {
        assert_eq!(
            usable_sql_mode("ansi"),
            Some(("REAL_AS_FLOAT,PIPES_AS_CONCAT,IGNORE_SPACE,ONLY_FULL_GROUP_BY".into(), vec!["ANSI_QUOTES"]))
        );
        assert_eq!(
            usable_sql_mode("STRICT_TRANS_TABLES, no_backslash_escapes"),
            Some(("STRICT_TRANS_TABLES".into(), vec!["NO_BACKSLASH_ESCAPES"]))
        );
        assert_eq!(usable_sql_mode(""), Some((String::new(), vec![])));
        assert_eq!(usable_sql_mode("oracle"), None);
    }
}
