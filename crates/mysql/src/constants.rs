//! Numbers of the MySQL protocol: capabilities, commands, status flags, character sets, errors.
//!
//! Source: MySQL manual, "Client/Server Protocol"; MariaDB knowledge base, "Client/Server Protocol".

/// Capability bits, which both sides announce in the handshake; the connection uses the AND of both.
pub mod capability {
    pub const LONG_PASSWORD: u32 = 1;
    /// rows_affected counts matched rows, not changed ones.
    pub const FOUND_ROWS: u32 = 1 << 1;
    pub const LONG_FLAG: u32 = 1 << 2;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const COMPRESS: u32 = 1 << 5;
    pub const LOCAL_FILES: u32 = 1 << 7;
    pub const IGNORE_SPACE: u32 = 1 << 8;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const INTERACTIVE: u32 = 1 << 10;
    pub const SSL: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    pub const MULTI_STATEMENTS: u32 = 1 << 16;
    pub const MULTI_RESULTS: u32 = 1 << 17;
    pub const PS_MULTI_RESULTS: u32 = 1 << 18;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const CONNECT_ATTRS: u32 = 1 << 20;
    pub const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
    pub const SESSION_TRACK: u32 = 1 << 23;
    pub const DEPRECATE_EOF: u32 = 1 << 24;
}

/// What servers and clients of MariaDB agree upon beside [`capability`], in bytes that MySQL does not use.
pub mod mariadb_capability {
    /// COM_STMT_BULK_EXECUTE.
    pub const STMT_BULK_OPERATIONS: u32 = 1 << 2;
}

/// Flags of OK and EOF packets.
pub mod status {
    pub const IN_TRANS: u16 = 0x0001;
    pub const AUTOCOMMIT: u16 = 0x0002;
    pub const MORE_RESULTS: u16 = 0x0008;
    pub const NO_GOOD_INDEX_USED: u16 = 0x0010;
    pub const NO_INDEX_USED: u16 = 0x0020;
    pub const CURSOR_EXISTS: u16 = 0x0040;
    pub const LAST_ROW_SENT: u16 = 0x0080;
    pub const SESSION_STATE_CHANGED: u16 = 0x4000;
}

/// The first byte of a command packet.
pub mod command {
    pub const QUIT: u8 = 0x01;
    pub const INIT_DB: u8 = 0x02;
    pub const QUERY: u8 = 0x03;
    pub const FIELD_LIST: u8 = 0x04;
    pub const STATISTICS: u8 = 0x09;
    pub const PROCESS_INFO: u8 = 0x0a;
    pub const PROCESS_KILL: u8 = 0x0c;
    pub const DEBUG: u8 = 0x0d;
    pub const PING: u8 = 0x0e;
    pub const CHANGE_USER: u8 = 0x11;
    pub const BINLOG_DUMP: u8 = 0x12;
    pub const REGISTER_SLAVE: u8 = 0x15;
    pub const STMT_PREPARE: u8 = 0x16;
    pub const STMT_EXECUTE: u8 = 0x17;
    pub const STMT_SEND_LONG_DATA: u8 = 0x18;
    pub const STMT_CLOSE: u8 = 0x19;
    pub const STMT_RESET: u8 = 0x1a;
    pub const SET_OPTION: u8 = 0x1b;
    pub const STMT_FETCH: u8 = 0x1c;
    pub const BINLOG_DUMP_GTID: u8 = 0x1e;
    pub const RESET_CONNECTION: u8 = 0x1f;
    /// MariaDB's.
    pub const STMT_BULK_EXECUTE: u8 = 0xfa;
}

/// Collation ids.
pub mod charset {
    pub const LATIN1_SWEDISH_CI: u8 = 8;
    /// What "utf8" meant until MySQL 8: three bytes a character at most.
    pub const UTF8_GENERAL_CI: u8 = 33;
    pub const UTF8MB4_GENERAL_CI: u8 = 45;
    pub const UTF8MB4_UNICODE_CI: u8 = 224;
    pub const UTF8MB4_0900_AI_CI: u8 = 255;
    pub const BINARY: u8 = 63;

    /// The default collation of a character set, by name. `None` for a name this client does not know.
    pub fn by_name(name: &str) -> Option<u8> {
        Some(match name.to_ascii_lowercase().as_str() {
            "utf8" | "utf8mb3" => UTF8_GENERAL_CI,
            "" | "utf8mb4" => UTF8MB4_GENERAL_CI,
            "latin1" => LATIN1_SWEDISH_CI,
            "binary" => BINARY,
            "big5" => 1,
            "latin2" => 9,
            "ascii" => 11,
            "ujis" => 12,
            "sjis" => 13,
            "euckr" => 19,
            "gb2312" => 24,
            "greek" => 25,
            "cp1250" => 26,
            "gbk" => 28,
            "latin5" => 30,
            "ucs2" => 35,
            "cp866" => 36,
            "cp1251" => 51,
            "utf16" => 54,
            "cp1256" => 57,
            "cp1257" => 59,
            "utf32" => 60,
            _ => return None,
        })
    }
}

/// Error numbers of server and client libraries that this crate raises or looks at.
pub mod errno {
    pub const CON_COUNT: u16 = 1040;
    pub const HANDSHAKE: u16 = 1043;
    pub const ACCESS_DENIED: u16 = 1045;
    pub const UNKNOWN_COM: u16 = 1047;
    pub const SERVER_SHUTDOWN: u16 = 1053;
    pub const NO_SUCH_THREAD: u16 = 1094;
    pub const KILL_DENIED: u16 = 1095;
    pub const UNKNOWN: u16 = 1105;
    pub const PACKET_TOO_LARGE: u16 = 1153;
    pub const PACKETS_OUT_OF_ORDER: u16 = 1156;
    pub const NET_READ_ERROR: u16 = 1158;
    pub const NET_READ_INTERRUPTED: u16 = 1159;
    pub const SPECIFIC_ACCESS_DENIED: u16 = 1227;
    pub const WRONG_ARGUMENTS: u16 = 1210;
    pub const NOT_SUPPORTED_YET: u16 = 1235;
    pub const UNKNOWN_STMT_HANDLER: u16 = 1243;
    pub const NOT_SUPPORTED_AUTH_MODE: u16 = 1251;
    pub const QUERY_INTERRUPTED: u16 = 1317;
    pub const MAX_PREPARED_STMT_COUNT: u16 = 1461;
    pub const MALFORMED_PACKET: u16 = 1835;
    pub const SECURE_TRANSPORT_REQUIRED: u16 = 3159;
    /// Client side: cannot connect over a unix socket, over TCP; connection gone before, lost during a command.
    pub const CR_CONNECTION: u16 = 2002;
    pub const CR_CONN_HOST: u16 = 2003;
    pub const CR_SERVER_GONE: u16 = 2006;
    pub const CR_SERVER_LOST: u16 = 2013;
    pub const CR_MALFORMED_PACKET: u16 = 2027;
    pub const CR_SSL_CONNECTION: u16 = 2026;
    pub const CR_AUTH_PLUGIN: u16 = 2059;
    /// Vitess: a result has more rows than the caller allows.
    pub const VT_MAX_ROWS_EXCEEDED: u16 = 10001;
}

/// Names of the authentication methods.
pub mod auth_plugin {
    pub const NATIVE: &str = "mysql_native_password";
    pub const CACHING_SHA2: &str = "caching_sha2_password";
    pub const CLEAR: &str = "mysql_clear_password";
}

/// Default bound on one statement or row, bytes: `max_allowed_packet` of the my.cnf that mysqlctl writes.
pub const DEFAULT_MAX_ALLOWED_PACKET: usize = 64 << 20;
/// Largest payload of one frame; one of exactly this size is followed by another.
pub const MAX_FRAME: usize = 0xff_ffff;
