//! Flags of vtctld, vtctl and their client.

use super::Group;
use crate::flags::Kind::{Bool, Dur, Int, List, Str};

pub(super) const GROUPS: &[Group] = &[
    Group {
        letters: "CLWO",
        used_by: "CLWO",
        heading: "Commands",
        rows: &[
            ("wait_for_drain_sleep_rdonly", Dur, "5s", "pause after rdonly traffic was moved"),
            ("wait_for_drain_sleep_replica", Dur, "15s", "pause after replica traffic was moved"),
        ],
    },
    Group {
        letters: "CLO",
        used_by: "CLO",
        heading: "Commands",
        rows: &[
            ("enable_queries", Bool, "false", "allow the commands that send queries"),
            ("throttler_client_protocol", Str, "grpc", "how throttlers are called: grpc"),
            ("vtctl_healthcheck_retry_delay", Dur, "5s", "how long to wait before asking for a tablet's health again"),
            ("vtctl_healthcheck_timeout", Dur, "1m", "a tablet silent for longer is not used"),
            ("vtctl_healthcheck_topology_refresh", Dur, "30s", "how often the list of tablets is read"),
        ],
    },
    Group {
        letters: "CcOS",
        used_by: "CcOS",
        heading: "Other",
        rows: &[("vtctl_client_protocol", Str, "grpc", "how vtctld is called: grpc")],
    },
    Group {
        letters: "CLS",
        used_by: "CLS",
        heading: "TLS to vtgate",
        rows: &[
            ("vtgate_grpc_ca", Str, "", "PEM file of the authority of vtgate's certificate"),
            ("vtgate_grpc_cert", Str, "", "PEM file of the certificate shown to vtgate"),
            ("vtgate_grpc_key", Str, "", "PEM file of its private key"),
            ("vtgate_grpc_server_name", Str, "", "name expected in vtgate's certificate"),
        ],
    },
    Group {
        letters: "CL",
        used_by: "CL",
        heading: "TLS to throttlers",
        rows: &[
            ("throttler_client_grpc_ca", Str, "", "PEM file of the authority of the throttlers' certificates"),
            ("throttler_client_grpc_cert", Str, "", "PEM file of the certificate shown to throttlers"),
            ("throttler_client_grpc_key", Str, "", "PEM file of its private key"),
            ("throttler_client_grpc_server_name", Str, "", "name expected in the throttlers' certificates"),
        ],
    },
    Group {
        letters: "COS",
        used_by: "COS",
        heading: "Workflows",
        rows: &[("workflow_manager_init", Bool, "false", "run the workflow manager")],
    },
    Group {
        letters: "CO",
        used_by: "CO",
        heading: "Workflows",
        rows: &[
            ("workflow_manager_disable", List, "", "kinds of workflows that are not offered"),
            ("workflow_manager_use_election", Bool, "false", "run workflows only on the vtctld that is elected"),
        ],
    },
    Group {
        letters: "CcO",
        used_by: "CcO",
        heading: "Commands",
        rows: &[("action_timeout", Dur, "2m", "limit of one command")],
    },
    Group {
        letters: "CO",
        used_by: "CO",
        heading: "Web",
        rows: &[
            ("enable_realtime_stats", Bool, "false", "gather the health of every tablet for the web pages"),
            ("tablet_health_keep_alive", Dur, "5m", "how long a tablet's health stream stays open without readers"),
            ("vtctld_show_topology_crud", Bool, "true", "show the buttons that change the topology"),
            // Flags of v4.0.1.
            ("web_dir", Str, "", ""),
            ("web_dir2", Str, "", ""),
            ("schema_swap_admin_query_timeout", Dur, "30s", ""),
            ("schema_swap_backup_concurrency", Int, "4", ""),
            ("schema_swap_delay_between_errors", Dur, "1m", ""),
            ("schema_swap_reparent_timeout", Dur, "30s", ""),
        ],
    },
    Group {
        letters: "C",
        used_by: "C",
        heading: "Schema changes from a directory",
        rows: &[
            ("schema_change_check_interval", Int, "60", "seconds between two looks"),
            ("schema_change_controller", Str, "", "how changes are found: local"),
            ("schema_change_dir", Str, "", "directory that is looked at"),
            ("schema_change_slave_timeout", Dur, "10s", "how long replicas may take to apply a change"),
            ("schema_change_user", Str, "", "user the changes are made for"),
        ],
    },
    Group {
        letters: "cS",
        used_by: "cS",
        heading: "TLS to vtctld",
        rows: &[
            ("vtctld_grpc_ca", Str, "", "PEM file of the authority of vtctld's certificate"),
            ("vtctld_grpc_cert", Str, "", "PEM file of the certificate shown to vtctld"),
            ("vtctld_grpc_key", Str, "", "PEM file of its private key"),
            ("vtctld_grpc_server_name", Str, "", "name expected in vtctld's certificate"),
        ],
    },
    Group {
        letters: "cw",
        used_by: "cw",
        heading: "Server",
        rows: &[("server", Str, "", "address of the server: host:port (required)")],
    },
    // Vitess's vtworkerclient has the same limit as vtctlclient.
    Group {
        letters: "w",
        used_by: "w",
        heading: "Commands",
        rows: &[("action_timeout", Dur, "1h", "limit of one command")],
    },
    Group {
        letters: "L",
        used_by: "L",
        heading: "Commands",
        rows: &[("wait-time", Dur, "24h", "limit of one command")],
    },
    Group {
        letters: "LB",
        used_by: "LB",
        heading: "Commands",
        rows: &[("detach", Bool, "false", "run in the background")],
    },
];
