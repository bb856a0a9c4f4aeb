//! The tablet manager: the tablet's record, its role in the shard, its replication and its health.
