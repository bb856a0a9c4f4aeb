//! Flags of mysqld, its users, its files and its backups.

use super::Group;
use crate::flags::FlagSet;
use crate::flags::Kind::{Bool, Dur, Int, Str, Uint};

pub(super) const GROUPS: &[Group] = &[
    Group {
        letters: "TCLWMDXOB",
        used_by: "TMDOB",
        heading: "Connections to MySQL",
        rows: &[
            ("db_host", Str, "", "host of a MySQL that is managed elsewhere"),
            ("db_port", Int, "0", "its port"),
            ("db_socket", Str, "", "its socket; used rather than host and port"),
            ("db_charset", Str, "", "character set of connections; empty: utf8mb4"),
            ("db_flags", Uint, "0", "capability flags of connections"),
            ("db_flavor", Str, "", "has to be empty: the flavour is read from the version of the server"),
            ("db_server_name", Str, "", "name expected in the server's certificate"),
            ("db_ssl_ca", Str, "", "PEM file of the authority of the server's certificate"),
            ("db_ssl_ca_path", Str, "", ""),
            ("db_ssl_cert", Str, "", "PEM file of the certificate shown to the server"),
            ("db_ssl_key", Str, "", "PEM file of its private key"),
            ("db-credentials-file", Str, "", "JSON file of user to list of passwords"),
            ("db-credentials-server", Str, "file", "where passwords come from: file"),
            ("app_idle_timeout", Dur, "1m", "close idle app connections of the tablet manager after this long"),
            ("app_pool_size", Int, "40", "app connections of the tablet manager"),
            ("dba_idle_timeout", Dur, "1m", "close idle dba connections after this long"),
            ("dba_pool_size", Int, "20", "dba connections of the tablet manager"),
            ("pool_hostname_resolve_interval", Dur, "0", ""),
        ],
    },
    Group {
        letters: "TCLWMDXOB",
        used_by: "TCLWOB",
        heading: "Replication",
        rows: &[
            ("disable_active_reparents", Bool, "false", "refuse the commands that change the master"),
            ("master_connect_retry", Dur, "10s", "how long a replica waits before it connects to its master again"),
            ("tablet_manager_protocol", Str, "grpc", "how tablet managers are called: grpc"),
        ],
    },
    Group {
        letters: "TCLWMDXOB",
        used_by: "TMDOB",
        heading: "Files of mysqld",
        rows: &[
            ("mycnf-file", Str, "", "path of my.cnf; empty: the one of the tablet directory"),
            ("tablet_dir", Str, "", "tablet directory inside of $VTDATAROOT; empty: vt_ and the uid"),
            ("mysqlctl_socket", Str, "", "socket of a mysqlctld to start and stop mysqld through"),
            ("mysqlctl_client_protocol", Str, "grpc", "how mysqlctld is called: grpc"),
            ("mycnf_bin_log_path", Str, "", "path of binary logs"),
            ("mycnf_data_dir", Str, "", "data directory"),
            ("mycnf_error_log_path", Str, "", "error log"),
            ("mycnf_general_log_path", Str, "", "general log"),
            ("mycnf_innodb_data_home_dir", Str, "", "InnoDB data directory"),
            ("mycnf_innodb_log_group_home_dir", Str, "", "InnoDB log directory"),
            ("mycnf_master_info_file", Str, "", "master.info"),
            ("mycnf_mysql_port", Int, "0", "port of mysqld"),
            ("mycnf_pid_file", Str, "", "pid file of mysqld"),
            ("mycnf_relay_log_index_path", Str, "", "index of relay logs"),
            ("mycnf_relay_log_info_path", Str, "", "relay-log.info"),
            ("mycnf_relay_log_path", Str, "", "path of relay logs"),
            ("mycnf_server_id", Int, "0", "server id; 0 takes all of these from my.cnf"),
            ("mycnf_slave_load_tmp_dir", Str, "", "slave_load_tmpdir"),
            ("mycnf_slow_log_path", Str, "", "slow query log"),
            ("mycnf_socket_file", Str, "", "socket of mysqld"),
            ("mycnf_tmp_dir", Str, "", "tmpdir"),
            // Flags of v4.0.1.
            ("mysqlctl_mycnf_template", Str, "", ""),
            ("mysql-socket-file", Str, "", ""),
        ],
    },
    Group {
        letters: "TCLWMDXOB",
        used_by: "TOB",
        heading: "Backups",
        rows: &[
            ("backup_engine_implementation", Str, "builtin", "how backups are taken: builtin"),
            ("backup_storage_implementation", Str, "", "where backups are kept: file"),
            ("backup_storage_block_size", Int, "250000", "bytes that are compressed at a time"),
            ("backup_storage_number_blocks", Int, "2", "blocks that are compressed in parallel"),
            ("backup_storage_compress", Bool, "true", "compress backups with gzip"),
            ("backup_storage_hook", Str, "", "hook that filters the content of backups"),
            ("xbstream_restore_flags", Str, "", ""),
            ("xtrabackup_backup_flags", Str, "", ""),
            ("xtrabackup_root_path", Str, "", ""),
            ("xtrabackup_stream_mode", Str, "tar", ""),
            ("xtrabackup_stripe_block_size", Uint, "102400", ""),
            ("xtrabackup_stripes", Uint, "0", ""),
            ("xtrabackup_user", Str, "", ""),
        ],
    },
    Group {
        letters: "TCLB",
        used_by: "TCLB",
        heading: "Backups",
        rows: &[
            ("file_backup_storage_root", Str, "", "directory of backups for -backup_storage_implementation file"),
            ("ceph_backup_storage_config", Str, "ceph_backup_config.json", ""),
            ("gcs_backup_storage_bucket", Str, "", ""),
            ("gcs_backup_storage_project", Str, "", ""),
            ("gcs_backup_storage_root", Str, "", ""),
            ("s3_backup_aws_endpoint", Str, "", ""),
            ("s3_backup_aws_region", Str, "us-east-1", ""),
            ("s3_backup_aws_retries", Int, "-1", ""),
            ("s3_backup_force_path_style", Bool, "false", ""),
            ("s3_backup_log_level", Str, "LogOff", ""),
            ("s3_backup_server_side_encryption", Str, "", ""),
            ("s3_backup_storage_bucket", Str, "", ""),
            ("s3_backup_storage_root", Str, "", ""),
            ("s3_backup_tls_skip_verify_cert", Bool, "false", ""),
        ],
    },
    Group {
        letters: "MDB",
        used_by: "MDB",
        heading: "mysqld",
        rows: &[
            ("mysql_port", Int, "3306", "port of mysqld"),
            ("mysql_socket", Str, "", "socket of mysqld; empty: mysql.sock in the tablet directory"),
        ],
    },
    Group {
        letters: "MD",
        used_by: "MD",
        heading: "mysqld",
        rows: &[("tablet_uid", Uint, "41983", "uid of the tablet")],
    },
    Group {
        letters: "DB",
        used_by: "DB",
        heading: "mysqld",
        rows: &[(
            "init_db_sql_file",
            Str,
            "",
            "SQL to run in a new database; empty: users and tables that Vitess needs",
        )],
    },
    Group {
        letters: "D",
        used_by: "D",
        heading: "mysqld",
        rows: &[("wait_time", Dur, "5m", "how long mysqld may take to start or stop")],
    },
];

/// The users of MySQL, one per purpose. The last is for MySQL servers outside of the cluster.
const USERS: [&str; 7] = ["app", "appdebug", "allprivs", "dba", "filtered", "repl", "erepl"];

/// Flags per user of MySQL: `db_dba_user` and so on, and the old `db-config-dba-uname` spellings.
pub(super) fn add_users(set: &mut FlagSet, letter: char) {
    let users = match letter {
        'T' | 'O' | 'B' => &USERS[..],
        'M' | 'D' => &["dba"],
        _ => &[],
    };
    set.group("Users of MySQL");
    for user in users {
        let name = format!("vt_{user}");
        set.row(&format!("db_{user}_user"), Str, "", "name; empty or unset: vt_ and the purpose")
            .set_default(&format!("db_{user}_user"), &name)
            .row(&format!("db_{user}_password"), Str, "", "password")
            .row(&format!("db_{user}_use_ssl"), Bool, "true", "use TLS for this user if -db_ssl_* say so");
        let old = |suffix: &str| format!("db-config-{user}-{suffix}");
        set.row(&old("uname"), Str, "", "old spelling of the name").set_default(&old("uname"), &name);
        set.row(&old("charset"), Str, "utf8", "old spelling of -db_charset");
        set.row(&old("port"), Int, "0", "old spelling of -db_port");
        set.row(&old("flags"), Uint, "0", "old spelling of -db_flags");
        let strings =
            ["pass", "host", "unixsocket", "ssl-ca", "ssl-ca-path", "ssl-cert", "ssl-key", "server_name", "flavor"];
        for suffix in strings.into_iter().chain(["dbname"]) {
            set.row(&old(suffix), Str, "", "old spelling, see -db_*");
        }
    }
}
