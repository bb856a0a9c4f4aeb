//! Flags of vtworker, vtexplain, vtcombo, vttestserver and vtbackup alone.

use super::Group;
use crate::flags::Kind::{Bool, Dur, Float, Int, Str};

pub(super) const GROUPS: &[Group] = &[
    Group {
        letters: "CwO",
        heading: "Other",
        rows: &[("vtworker_client_protocol", Str, "grpc", "how vtworker is called: grpc")],
    },
    Group {
        letters: "Cw",
        heading: "TLS to vtworker",
        rows: &[
            ("vtworker_client_grpc_ca", Str, "", "PEM file of the authority of vtworker's certificate"),
            ("vtworker_client_grpc_cert", Str, "", "PEM file of the certificate shown to vtworker"),
            ("vtworker_client_grpc_key", Str, "", "PEM file of its private key"),
            ("vtworker_client_grpc_server_name", Str, "", "name expected in vtworker's certificate"),
        ],
    },
    Group {
        letters: "W",
        heading: "Worker",
        rows: &[
            ("command_display_interval", Dur, "1s", "how often the command line version shows its state"),
            ("executefetch_retry_time", Dur, "30s", "how long to wait before a failed write is tried again"),
            ("remote_actions_timeout", Dur, "1m", "limit of one call to a tablet"),
            ("retry_duration", Dur, "2h", "how long a failed write is tried again"),
            ("use_v3_resharding_mode", Bool, "true", "find the keyspace id of a row by the vschema"),
            ("username", Str, "", "name of the caller of queries"),
            ("wait_for_healthy_tablets_timeout", Dur, "1m", "how long to wait for enough healthy tablets"),
            ("worker_healthcheck_retry_delay", Dur, "5s", "how long to wait before asking for a tablet's health again"),
            ("worker_healthcheck_timeout", Dur, "1m", "a tablet silent for longer is not used"),
            ("worker_healthcheck_topology_refresh", Dur, "30s", "how often the list of tablets is read"),
        ],
    },
    Group {
        letters: "OS",
        heading: "Test cluster",
        rows: &[
            ("proto_topo", Str, "", "the cluster, in text form of vttest.VTTestTopology"),
            ("schema_dir", Str, "", "directory of the schemas of keyspaces"),
        ],
    },
    Group {
        letters: "S",
        heading: "Test cluster",
        rows: &[
            ("cells", Str, "test", "cells of the cluster"),
            ("charset", Str, "utf8", "character set of the databases"),
            ("data_dir", Str, "", "directory of the data; empty: a temporary one"),
            ("default_schema_dir", Str, "", "directory of a schema for keyspaces without one"),
            ("extra_my_cnf", Str, "", "further my.cnf files, separated by colons"),
            ("initialize_with_random_data", Bool, "false", "fill the tables with random rows"),
            ("keyspaces", Str, "test_keyspace", "keyspaces, separated by commas"),
            ("max_table_shard_size", Int, "10000", "random rows of a table at most"),
            ("min_table_shard_size", Int, "1000", "random rows of a table at least"),
            ("mysql_bind_host", Str, "localhost", "address that MySQL listens on"),
            ("mysql_only", Bool, "false", "start nothing but MySQL"),
            ("null_probability", Float, "0.1", "share of NULL in random rows"),
            ("num_shards", Str, "2", "number of shards of each keyspace, separated by commas"),
            ("rdonly_count", Int, "1", "rdonly tablets of each shard"),
            ("replica_count", Int, "2", "replicas of each shard, master included"),
            ("rng_seed", Int, "123", "seed of the random rows"),
            ("snapshot_file", Str, "", ""),
        ],
    },
    Group {
        letters: "B",
        heading: "Backup",
        rows: &[
            ("allow_first_backup", Bool, "false", "take a backup even if there is none to start from"),
            ("concurrency", Int, "4", "files handled in parallel"),
            ("initial_backup", Bool, "false", "take the first backup of an empty database"),
            ("min_backup_interval", Dur, "0", "do nothing if the latest backup is younger"),
            ("min_retention_count", Int, "1", "backups that are always kept"),
            ("min_retention_time", Dur, "0", "age up to which backups are kept; 0: remove none"),
            ("mysql_timeout", Dur, "5m", "how long mysqld may take to start"),
            ("replication_timeout", Dur, "1h", "how long replication may take to catch up"),
            ("timeout", Dur, "2h", "limit of the whole"),
        ],
    },
    Group {
        letters: "X",
        heading: "Explain",
        rows: &[
            ("batch-interval", Dur, "10ms", "interval of logical time between queries"),
            ("dbname", Str, "", "target of the queries"),
            ("execution-mode", Str, "multi", "multi, legacy-autocommit or twopc"),
            ("normalize", Bool, "false", "replace literals by bind variables"),
            ("output-mode", Str, "text", "text or json"),
            ("replication-mode", Str, "ROW", "ROW or STATEMENT"),
            ("schema", Str, "", "the tables, in SQL"),
            ("schema-file", Str, "", "file of the tables"),
            ("shards", Int, "2", "number of shards of a keyspace"),
            ("sql", Str, "", "the queries"),
            ("sql-file", Str, "", "file of the queries"),
            ("vschema", Str, "", "the vschema, in JSON"),
            ("vschema-file", Str, "", "file of the vschema"),
        ],
    },
];
