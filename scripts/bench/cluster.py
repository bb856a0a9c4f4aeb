"""A cluster for measuring queries: one mysqld, tablets on databases of it, one vtgate a transport."""

import json
import socket
import struct

from processes import Processes, answers, free_port, wait_for

# Keyspaces with a table sharded by id, and their shards.
SHARDED = {"sharded1": ["0"], "sharded2": ["-80", "80-"], "sharded4": ["-40", "40-80", "80-c0", "c0-"]}
BY_ID = [{"column": "id", "name": "hash"}]
VSCHEMA = {
    "sharded": True,
    "vindexes": {"hash": {"type": "hash"}},
    "tables": {
        "sbtest1": {"column_vindexes": BY_ID},
        "bulk": {"column_vindexes": BY_ID},
        "numbered": {"column_vindexes": BY_ID, "auto_increment": {"column": "id", "sequence": "bench.numbered_seq"}},
    },
}


def login(port, database="bench"):
    """An authenticated connection."""
    s = socket.create_connection(("127.0.0.1", port))
    header = s.recv(4, socket.MSG_WAITALL)
    s.recv(header[0] | header[1] << 8 | header[2] << 16, socket.MSG_WAITALL)
    packet = struct.pack("<IIB23x", 0x8208, 1 << 24, 45) + b"bench\0\0" + database.encode() + b"\0"
    s.sendall(struct.pack("<I", len(packet))[:3] + b"\x01" + packet)
    s.recv(64)
    return s


class Cluster(Processes):
    """`vttablets[keyspace]` and `vtgate[way]` are processes, `port[name]` ports."""

    def __init__(self, binaries, ways, keyspaces=()):
        super().__init__(binaries)
        self.ways = ways
        self.keyspaces = keyspaces
        names = ["tablet_http"] + [name for way in ways for name in (way, way + "_http", way + "_grpc")]
        self.port |= {name: free_port() for name in names}
        self.vttablets = {}
        self.vtgate = {}

    def mysql(self, statements):
        """Straight to mysqld, as an administrator."""
        return self.run("mysql", "--no-defaults", "-u", "vt_dba", "-S", self.socket, "-e", statements)

    def tablet(self, keyspace, shard, uid, http, *more):
        child = self.spawn(
            "vttablet", *self.topo, *self.local, "-tablet-path", f"zone1-{uid}", "-tablet_hostname", "127.0.0.1",
            "-init_keyspace", keyspace, "-init_shard", shard, "-init_tablet_type", "replica", "-health_check_interval", "5s",
            "-service_map", "grpc-queryservice,grpc-tabletmanager", "-port", str(http), "-grpc_port", str(free_port()), *more)
        self.vttablets.setdefault(keyspace, []).append(child)
        wait_for("vttablet", lambda: answers(http, "/debug/vars"))

    def start(self):
        p = self.port
        self.start_control()
        self.start_mysqld(100)
        self.socket = self.socket_of(100)
        self.tablet("bench", "0", 100, p["tablet_http"])
        self.vttablet = self.vttablets["bench"][0]
        self.vtctl("InitShardMaster", "-force", "bench/0", "zone1-100")
        self.mysql("create user bench@'127.0.0.1'; grant all on *.* to bench@'127.0.0.1'")
        uid = 200
        for keyspace in self.keyspaces:
            self.vtctl("CreateKeyspace", keyspace)
            # All of them first: a keyspace with a gap is not served.
            for shard in SHARDED[keyspace]:
                self.vtctl("CreateShard", f"{keyspace}/{shard}")
            for shard in SHARDED[keyspace]:
                uid += 1
                database = f"vt_{keyspace}_{uid}"
                self.mysql(f"create database {database}")
                self.tablet(keyspace, shard, uid, free_port(), "-db_socket", self.socket, "-init_db_name_override", database)
                self.vtctl("TabletExternallyReparented", f"zone1-{uid}")
            self.vtctl("ApplyVSchema", "-vschema", json.dumps(VSCHEMA), keyspace)
        # One gate a transport, to the same tablets.
        for way in self.ways:
            self.vtgate[way] = self.spawn(
                "vtgate", *self.topo, *self.local, "-cell", "zone1", "-cells_to_watch", "zone1", "-tablet_types_to_wait",
                "MASTER", "-service_map", "grpc-vtgateservice", "-port", str(p[way + "_http"]), "-grpc_port",
                str(p[way + "_grpc"]), "-mysql_server_port", str(p[way]), "-mysql_server_bind_address", "127.0.0.1",
                "-mysql_auth_server_impl", "none", f"-framed_transport={'true' if way == 'framed' else 'false'}")
            wait_for("vtgate", lambda: answers(p[way + "_http"], "/debug/health"))
            wait_for("vtgate's MySQL port", lambda: socket.create_connection(("127.0.0.1", p[way])).close() is None)
