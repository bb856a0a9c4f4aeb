//! Flags of the topology and of discovering tablets in it.

use super::Group;
use crate::flags::Kind::{Bool, Dur, Int, Str};

pub(super) const GROUPS: &[Group] = &[
    Group {
        letters: "GTCLWMDXOB",
        used_by: "GTCLWOB",
        heading: "Topology",
        rows: &[
            ("topo_implementation", Str, "", "the topology server: etcd2"),
            ("topo_global_server_address", Str, "", "address list of the global topology server"),
            ("topo_global_root", Str, "", "path of the global data in it"),
            ("remote_operation_timeout", Dur, "30s", "limit of one call to a tablet or to the topology"),
            ("lock_timeout", Dur, "30s", ""),
        ],
    },
    Group {
        letters: "GTCLWOB",
        used_by: "GTCLWOB",
        heading: "Topology",
        rows: &[
            ("topo_etcd_lease_ttl", Int, "30", "seconds after which the locks of a dead process are free"),
            ("topo_etcd_tls_ca", Str, "", "PEM file of the authority of etcd's certificate"),
            ("topo_etcd_tls_cert", Str, "", "PEM file of the certificate shown to etcd"),
            ("topo_etcd_tls_key", Str, "", "PEM file of its private key"),
            ("consul_auth_static_file", Str, "", ""),
            ("topo_consul_watch_poll_duration", Dur, "30s", ""),
            ("topo_zk_auth_file", Str, "", ""),
            ("topo_zk_base_timeout", Dur, "30s", ""),
            ("topo_zk_max_concurrency", Int, "64", ""),
            ("topo_zk_tls_ca", Str, "", ""),
            ("topo_zk_tls_cert", Str, "", ""),
            ("topo_zk_tls_key", Str, "", ""),
        ],
    },
    Group {
        letters: "GTCLWXO",
        used_by: "GCWO",
        heading: "Discovery",
        rows: &[
            (
                "discovery_high_replication_lag_minimum_serving",
                Dur,
                "2h",
                "lag above which a replica is used only if there are too few others",
            ),
            ("discovery_low_replication_lag", Dur, "30s", "lag below which a replica is always good"),
            ("legacy_replication_lag_algorithm", Bool, "true", "choose replicas by their lag relative to the others"),
            ("min_number_serving_vttablets", Int, "2", "use lagging replicas rather than fewer than this many"),
            ("srv_topo_cache_refresh", Dur, "1s", "how often entries of the serving graph are asked for again"),
            ("srv_topo_cache_ttl", Dur, "1s", "how long an entry of the serving graph is used after a failure"),
            ("tablet_protocol", Str, "grpc", "how tablets are called: grpc"),
            ("tablet_url_template", Str, "http://{{.GetTabletHostPort}}", "address of a tablet's status page"),
        ],
    },
    Group {
        letters: "GTCLW",
        used_by: "GTCLW",
        heading: "TLS to tablets",
        rows: &[
            ("tablet_grpc_ca", Str, "", "PEM file of the authority of the tablets' certificates"),
            ("tablet_grpc_cert", Str, "", "PEM file of the certificate shown to tablets"),
            ("tablet_grpc_key", Str, "", "PEM file of its private key"),
            ("tablet_grpc_server_name", Str, "", "name expected in the tablets' certificates"),
        ],
    },
    Group {
        letters: "TCLWB",
        used_by: "TCLWB",
        heading: "TLS to tablet managers",
        rows: &[
            ("tablet_manager_grpc_ca", Str, "", "PEM file of the authority of the tablets' certificates"),
            ("tablet_manager_grpc_cert", Str, "", "PEM file of the certificate shown to tablets"),
            ("tablet_manager_grpc_concurrency", Int, "8", "connections kept to one tablet manager"),
            ("tablet_manager_grpc_key", Str, "", "PEM file of its private key"),
            ("tablet_manager_grpc_server_name", Str, "", "name expected in the tablets' certificates"),
        ],
    },
];
