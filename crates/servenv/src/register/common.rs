//! Flags of every server: logs, HTTP, gRPC, shutdown, statistics.

use super::Group;
use crate::flags::Kind::{Bool, Dur, Float, Int, List, Str, Uint};

pub(super) const GROUPS: &[Group] = &[
    Group {
        letters: "GTCLWMDcwXOSB",
        heading: "Logs",
        rows: &[
            ("logtostderr", Bool, "false", "log to standard error instead of files"),
            ("alsologtostderr", Bool, "false", "log to standard error as well as files"),
            (
                "stderrthreshold",
                Str,
                "ERROR",
                "logs at or above this level also go to standard error: INFO, WARNING, ERROR, FATAL or 0 to 3",
            ),
            ("v", Int, "0", "level of detail: 1 adds debug lines, 2 all traces"),
            ("vmodule", Str, "", ""),
            ("log_backtrace_at", Str, "", ""),
            ("log_dir", Str, "", "directory of log files; empty: the directory for temporary files"),
            ("keep_logs", Dur, "0", "keep log files for this long after they were begun; 0: for ever"),
            ("keep_logs_by_mtime", Dur, "0", "keep log files for this long after their last line; 0: for ever"),
            ("purge_logs_interval", Dur, "1h", "how often old log files are looked for"),
            ("log_rotate_max_size", Uint, "1887436800", "bytes after which a new log file is begun"),
            ("log_err_stacks", Bool, "false", ""),
        ],
    },
    Group {
        letters: "GTCLWMDcwXOSB",
        heading: "gRPC client",
        rows: &[
            (
                "grpc_auth_static_client_creds",
                Str,
                "",
                "JSON file with the Username and Password to call other servers with",
            ),
            ("grpc_compression", Str, "", ""),
            ("grpc_enable_tracing", Bool, "false", ""),
            ("grpc_initial_conn_window_size", Int, "0", "HTTP/2 window of a client connection in bytes; 0: 4 MiB"),
            ("grpc_initial_window_size", Int, "0", "HTTP/2 window of a client stream in bytes; 0: 1 MiB"),
            ("grpc_keepalive_time", Dur, "0", "check a client connection after this long without traffic; 0: never"),
            ("grpc_keepalive_timeout", Dur, "0", "close a client connection when such a check takes longer; 0: 20s"),
            ("grpc_max_message_size", Int, "16777216", "largest gRPC message in bytes, sent or received"),
            ("grpc_prometheus", Bool, "false", ""),
        ],
    },
    Group {
        letters: "GTCLWMDcwXOSB",
        heading: "Statistics",
        rows: &[
            ("emit_stats", Bool, "false", ""),
            ("stats_backend", Str, "", ""),
            ("stats_emit_period", Dur, "1m", ""),
            ("jaeger-agent-host", Str, "", ""),
            ("tracer", Str, "noop", ""),
            ("tracing-sampling-rate", Float, "0.1", ""),
            ("sql-max-length-errors", Int, "0", "cut queries in error texts to this many characters; 0: do not cut"),
            ("sql-max-length-ui", Int, "512", "cut queries on debug pages to this many characters; 0: do not cut"),
        ],
    },
    Group {
        letters: "GTCLWMDXOSB",
        heading: "Server",
        rows: &[
            ("port", Int, "0", "port of the HTTP server; 0: none"),
            (
                "bind_address",
                Str,
                "",
                "address that HTTP and gRPC listen on; empty: all (a flag of this implementation)",
            ),
            ("pid_file", Str, "", "file that holds the process id while the server runs"),
            ("lameduck-period", Dur, "50ms", "keep serving for at least this long after SIGTERM"),
            ("onterm_timeout", Dur, "10s", "wait at most this long for a graceful stop after SIGTERM"),
            ("security_policy", Str, "", "who may open debug pages: empty (all), read-only or deny-all"),
            ("version", Bool, "false", "print the version and exit"),
            ("cpu_profile", Str, "", ""),
            ("mem-profile-rate", Int, "524288", ""),
            ("mutex-profile-fraction", Int, "0", ""),
            ("socket_file", Str, "", "local socket to serve gRPC on"),
        ],
    },
    Group {
        letters: "GTCLWMDXOSB",
        heading: "gRPC server",
        rows: &[
            ("grpc_port", Int, "0", "port of the gRPC server; 0: none"),
            (
                "service_map",
                Str,
                "",
                "gRPC services to offer, separated by commas, such as grpc-vtgateservice; -name withdraws one",
            ),
            ("grpc_auth_mode", Str, "", "how gRPC callers prove who they are: empty (not at all), static or mtls"),
            (
                "grpc_auth_mtls_allowed_substrings",
                Str,
                "",
                "texts separated by colons, one of which the subject of a caller's certificate has to contain, for -grpc_auth_mode mtls",
            ),
            (
                "grpc_auth_static_password_file",
                Str,
                "",
                "JSON file with the list of Username and Password for -grpc_auth_mode static",
            ),
            (
                "grpc_ca",
                Str,
                "",
                "PEM file of the authority that signs client certificates; demands one of every caller",
            ),
            ("grpc_cert", Str, "", "PEM file of the server's certificate; turns TLS on together with -grpc_key"),
            ("grpc_key", Str, "", "PEM file of the server's private key"),
            ("grpc_max_connection_age", Dur, "2562047h47m16.854775807s", "close connections after this long"),
            (
                "grpc_max_connection_age_grace",
                Dur,
                "2562047h47m16.854775807s",
                "time for calls to end once a connection is too old",
            ),
            (
                "grpc_server_initial_conn_window_size",
                Int,
                "0",
                "HTTP/2 window of a server connection in bytes; 0: 4 MiB",
            ),
            ("grpc_server_initial_window_size", Int, "0", "HTTP/2 window of a server stream in bytes; 0: 1 MiB"),
            ("grpc_server_keepalive_enforcement_policy_min_time", Dur, "5m", ""),
            ("grpc_server_keepalive_enforcement_policy_permit_without_stream", Bool, "false", ""),
        ],
    },
    Group {
        letters: "GTCLWXO",
        heading: "Query logs",
        rows: &[
            ("querylog-filter-tag", Str, "", "log only queries that contain this text"),
            ("querylog-format", Str, "text", "format of query logs: text or json"),
            (
                "redact-debug-ui-queries",
                Bool,
                "false",
                "hide literals and bind variables in query logs and on debug pages",
            ),
        ],
    },
    Group { letters: "GTCW", heading: "Statistics", rows: &[("opentsdb_uri", Str, "", "")] },
    Group {
        letters: "GTXO",
        heading: "Query logs",
        rows: &[("log_queries_to_file", Str, "", "file that every query is logged to")],
    },
    Group {
        letters: "GTCLWMDXOSB",
        heading: "Accepted",
        // Authentication of MySQL clients links into every server of Vitess; vtgate has it in use.
        rows: &[
            ("mysql_auth_server_static_file", Str, "", "JSON file of users for -mysql_auth_server_impl static"),
            ("mysql_auth_server_static_string", Str, "", "the same as JSON text"),
            (
                "mysql_auth_static_reload_interval",
                Dur,
                "0",
                "how often that file is read again; SIGHUP does so too; 0: never",
            ),
            ("mysql_clientcert_auth_method", Str, "mysql_clear_password", ""),
        ],
    },
    Group { letters: "GCWO", heading: "Cells", rows: &[("cell", Str, "test_nj", "the cell this server is in")] },
    Group {
        letters: "GT",
        heading: "Status page",
        rows: &[("vtctld_addr", Str, "", "address of a vtctld, for links on the status page")],
    },
    Group {
        letters: "GXO",
        heading: "Discovery",
        rows: &[("allowed_tablet_types", List, "", "types of tablets queries may go to; empty: all")],
    },
];
