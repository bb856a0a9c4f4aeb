//! Flags of vtgate, and of programs that run one inside.

use super::Group;
use crate::flags::Kind::{Bool, Dur, Int, List, Str};

pub(super) const GROUPS: &[Group] = &[
    Group {
        letters: "GXO",
        used_by: "GXO",
        heading: "MySQL server",
        rows: &[
            ("mysql_server_port", Int, "-1", "port for MySQL clients; -1: none"),
            ("mysql_server_bind_address", Str, "", "address that port listens on; empty: all"),
            ("mysql_server_socket_path", Str, "", "socket for MySQL clients"),
            ("mysql_tcp_version", Str, "tcp", "tcp, tcp4 or tcp6"),
            ("mysql_server_version", Str, "5.7.9-Vitess", "version that clients are told"),
            ("mysql_auth_server_impl", Str, "static", "how MySQL clients prove who they are: none or static"),
            (
                "mysql_allow_clear_text_without_tls",
                Bool,
                "false",
                "let clients send passwords in clear text without TLS",
            ),
            ("mysql_server_require_secure_transport", Bool, "false", "refuse clients without TLS"),
            ("mysql_server_ssl_ca", Str, "", "PEM file of the authority that signs client certificates"),
            ("mysql_server_ssl_cert", Str, "", "PEM file of the certificate for MySQL clients"),
            ("mysql_server_ssl_key", Str, "", "PEM file of its private key"),
            ("mysql_server_query_timeout", Dur, "0", "limit of one query; 0: none"),
            ("mysql_server_read_timeout", Dur, "0", "close a connection that sends nothing for this long; 0: never"),
            ("mysql_server_write_timeout", Dur, "0", "close a connection that takes nothing for this long; 0: never"),
            ("mysql_slow_connect_warn_threshold", Dur, "0", "warn when a handshake takes longer; 0: never"),
            ("proxy_protocol", Bool, "false", "expect the PROXY protocol in front of MySQL connections"),
        ],
    },
    Group {
        letters: "GXO",
        used_by: "GXO",
        heading: "Discovery",
        rows: &[
            ("gateway_implementation", Str, "discoverygateway", "how tablets are chosen: discoverygateway"),
            ("gateway_initial_tablet_timeout", Dur, "30s", "how long a start waits for the first tablets"),
            ("cells_to_watch", List, "", "cells whose tablets are used"),
            ("keyspaces_to_watch", List, "", "keyspaces whose tablets are used; empty: all"),
            ("tablet_filters", List, "", "keyspace|shard or keyspace|range of tablets to use"),
            ("tablet_refresh_interval", Dur, "1m", "how often the list of tablets is read"),
            ("tablet_refresh_known_tablets", Bool, "true", "read the records of known tablets again too"),
            ("topo_read_concurrency", Int, "32", "records read in parallel"),
            ("disable_local_gateway", Bool, "false", ""),
            (
                "default_tablet_type",
                Str,
                "",
                "type of tablets that queries go to when the client names none; empty: master",
            ),
        ],
    },
    Group {
        letters: "GXO",
        used_by: "GXO",
        heading: "Buffering during a change of master",
        rows: &[
            ("enable_buffer", Bool, "false", "hold queries to a master while it changes"),
            ("enable_buffer_dry_run", Bool, "false", "only count what would be held"),
            ("buffer_drain_concurrency", Int, "1", "held queries sent in parallel afterwards"),
            ("buffer_keyspace_shards", List, "", "hold queries to these keyspaces or shards only"),
            ("buffer_max_failover_duration", Dur, "20s", "stop holding when a change takes longer"),
            ("buffer_min_time_between_failovers", Dur, "1m", "do not hold again before"),
            ("buffer_size", Int, "10", "queries held at most"),
            ("buffer_window", Dur, "10s", "how long one query is held at most"),
        ],
    },
    Group {
        letters: "GXO",
        used_by: "G",
        heading: "Buffering while a cutover moves tables",
        rows: &[
            ("cutover_buffer_bytes", Int, "67108864", "bytes of held queries at most"),
            ("cutover_buffer_size", Int, "10000", "queries held at most; 0 holds none"),
            ("cutover_buffer_window", Dur, "30s", "how long one query is held at most"),
        ],
    },
    Group {
        letters: "GXO",
        used_by: "GXO",
        heading: "Queries",
        rows: &[
            ("normalize_queries", Bool, "true", "replace literals by bind variables, so that plans are shared"),
            ("gate_query_cache_size", Int, "10000", "plans kept"),
            ("max_memory_rows", Int, "300000", "rows of a result that are kept in memory at most"),
            ("warn_memory_rows", Int, "30000", "count a warning for results with more rows"),
            ("stream_buffer_size", Int, "32768", "bytes sent at a time by streaming queries"),
            ("message_stream_grace_period", Dur, "30s", "how long a message stream survives a loss of its tablet"),
            ("vtgate-config-terse-errors", Bool, "false", "leave bind variables out of error texts"),
        ],
    },
    Group {
        letters: "GXOS",
        used_by: "GXOS",
        heading: "Queries",
        rows: &[
            (
                "transaction_mode",
                Str,
                "MULTI",
                "SINGLE: one shard per transaction, MULTI: several, TWOPC: several, atomically",
            ),
            ("vschema_ddl_authorized_users", Str, "", "users who may change the vschema by SQL; %: all"),
            (
                "kill_authorized_users",
                Str,
                "",
                "users who may KILL connections of others; %: all (a flag of this implementation)",
            ),
        ],
    },
    Group {
        letters: "GO",
        used_by: "GO",
        heading: "gRPC server",
        rows: &[("grpc_use_effective_callerid", Bool, "false", "trust the caller id that clients send")],
    },
    Group {
        letters: "G",
        used_by: "G",
        heading: "Discovery",
        rows: &[
            ("healthcheck_retry_delay", Dur, "2ms", "how long to wait before asking for a tablet's health again"),
            ("healthcheck_timeout", Dur, "1m", "a tablet silent for longer is not used"),
            ("retry-count", Int, "2", "how often a query is tried on another tablet"),
            ("tablet_types_to_wait", List, "", "types of tablets a start waits for"),
        ],
    },
    Group {
        letters: "G",
        used_by: "G",
        heading: "MySQL server",
        rows: &[
            ("mysql_ldap_auth_config_file", Str, "", ""),
            ("mysql_ldap_auth_config_string", Str, "", ""),
            ("mysql_ldap_auth_method", Str, "mysql_clear_password", ""),
        ],
    },
    Group {
        letters: "G",
        used_by: "G",
        heading: "Overload",
        rows: &[
            (
                "mysql_server_max_connections",
                Int,
                "0",
                "MySQL connections open at once, one more gets errno 1040; 0: as many as open files allow (a flag of this implementation)",
            ),
            (
                "max_calls_per_tablet",
                Int,
                "10000",
                "calls of one tablet under way at once, one more fails with RESOURCE_EXHAUSTED (a flag of this implementation)",
            ),
        ],
    },
];
