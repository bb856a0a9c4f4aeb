#!/usr/bin/env python3
"""The measuring part of bench.sh: one mysqld, one vttablet, one vtgate; sysbench to both ends in turns."""

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

# Name, sysbench script, options of its own, rows a query stands for.
WORKLOADS = {
    "point_select": ("oltp_point_select", [], 1),
    "point_select_ps": ("oltp_point_select", ["--db-ps-mode=auto"], 1),
    "point_select_1": ("oltp_point_select", ["--threads=1"], 1),
    "read_only": ("oltp_read_only", [], 1),
    "read_write": ("oltp_read_write", [], 1),
    "update_index": ("oltp_update_index", [], 1),
    "insert": ("oltp_insert", [], 1),
    "bulk_insert_500": ("bulk_insert_500", ["--threads=4"], 500),
    "select_10000": ("select_10000", ["--threads=2"], 10_000),
}
WAYS = ["direct", "grpc", "framed"]
# Vitess v5.0.1 in Go, measured the same way on two cores: CPU-µs of both processes a query, ratio to direct.
GO_VITESS = {"point_select": (190, 0.15), "point_select_ps": (241, 0.09), "read_only": (244, 0.17), "read_write": (255, 0.21),
             "update_index": (402, 0.26), "insert": (417, 0.23), "bulk_insert_500": (None, 0.2), "select_10000": (None, 0.6)}
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1)) / 1024


def wait_for(what, condition, seconds=60):
    end = time.time() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.time() > end:
            sys.exit(f"waited {seconds} s in vain for {what}")
        time.sleep(0.05)


def answers(port, path):
    return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).status == 200


class Cluster:
    def __init__(self, binaries):
        self.bin = binaries
        self.dir = os.path.join(tempfile.mkdtemp(prefix="bench-"), "vtdataroot")
        os.makedirs(self.dir + "/tmp")
        os.environ["PATH"] = f"{binaries}:/usr/sbin:{os.environ['PATH']}"  # where programs are looked up
        self.env = dict(os.environ, VTDATAROOT=self.dir)
        self.children = []
        names = "etcd peer vtctld_http vtctld_grpc tablet_http tablet_grpc mysqld"
        names += "".join(f" {way} {way}_http {way}_grpc" for way in WAYS[1:])
        self.port = {name: free_port() for name in names.split()}

    def spawn(self, *args):
        log = open(f"{self.dir}/tmp/{os.path.basename(args[0])}.out", "ab")
        child = subprocess.Popen(args, env=self.env, stdout=log, stderr=log, cwd=self.dir)
        self.children.append(child)
        return child

    def run(self, *args):
        done = subprocess.run(args, env=self.env, cwd=self.dir, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(args)}:\n{done.stdout}")
        return done.stdout

    def start(self):
        p, url = self.port, lambda name: f"http://127.0.0.1:{self.port[name]}"
        self.spawn("etcd", "--data-dir", self.dir + "/etcd", "--listen-client-urls", url("etcd"), "--advertise-client-urls",
                   url("etcd"), "--listen-peer-urls", url("peer"), "--initial-advertise-peer-urls", url("peer"),
                   f"--initial-cluster=default={url('peer')}")
        wait_for("etcd", lambda: answers(p["etcd"], "/health"))
        topo = ["-topo_implementation", "etcd2", "-topo_global_server_address", f"127.0.0.1:{p['etcd']}", "-topo_global_root",
                "/vitess/global"]
        local = ["-log_dir", self.dir + "/tmp", "-bind_address", "127.0.0.1"]
        self.run("vtctl", *topo, "AddCellInfo", "-root", "/vitess/zone1", "-server_address", f"127.0.0.1:{p['etcd']}", "zone1")
        self.spawn("vtctld", *topo, *local, "-cell", "zone1", "-service_map", "grpc-vtctl", "-port", str(p["vtctld_http"]),
                   "-grpc_port", str(p["vtctld_grpc"]))
        self.run("mysqlctl", "-log_dir", self.dir + "/tmp", "-tablet_uid", "100", "-mysql_port", str(p["mysqld"]), "init")
        self.vttablet = self.spawn(
            "vttablet", *topo, *local, "-tablet-path", "zone1-100", "-tablet_hostname", "127.0.0.1", "-init_keyspace", "bench",
            "-init_shard", "0", "-init_tablet_type", "replica", "-health_check_interval", "5s", "-service_map",
            "grpc-queryservice,grpc-tabletmanager", "-port", str(p["tablet_http"]), "-grpc_port", str(p["tablet_grpc"]))
        wait_for("vttablet", lambda: answers(p["tablet_http"], "/debug/vars"))
        self.run("vtctlclient", "-server", f"127.0.0.1:{p['vtctld_grpc']}", "InitShardMaster", "-force", "bench/0", "zone1-100")
        # One gate a transport, to the same tablet.
        self.vtgate = {}
        for way in WAYS[1:]:
            self.vtgate[way] = self.spawn(
                "vtgate", *topo, *local, "-cell", "zone1", "-cells_to_watch", "zone1", "-tablet_types_to_wait", "MASTER",
                "-service_map", "grpc-vtgateservice", "-port", str(p[way + "_http"]), "-grpc_port", str(p[way + "_grpc"]),
                "-mysql_server_port", str(p[way]), "-mysql_server_bind_address", "127.0.0.1", "-mysql_auth_server_impl", "none",
                f"-framed_transport={'true' if way == 'framed' else 'false'}")
            wait_for("vtgate", lambda: answers(p[way + "_http"], "/debug/health"))
            wait_for("vtgate's MySQL port", lambda: socket.create_connection(("127.0.0.1", p[way])).close() is None)
        self.run("mysql", "--no-defaults", "-u", "vt_dba", "-S", f"{self.dir}/vt_0000000100/mysql.sock", "-e",
                 "create user bench@'127.0.0.1'; grant all on *.* to bench@'127.0.0.1'")

    def stop(self):
        for child in reversed(self.children[1:]):
            child.send_signal(signal.SIGTERM)
        subprocess.run(["mysqlctl", "-log_dir", self.dir + "/tmp", "-tablet_uid", "100", "shutdown"], env=self.env,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for child in reversed(self.children):
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
        shutil.rmtree(os.path.dirname(self.dir), ignore_errors=True)


def sysbench(cluster, way, script, options, command, more=(), seconds=0):
    port, database = (cluster.port["mysqld"], "vt_bench") if way == "direct" else (cluster.port[way], "bench")
    own = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench", script + ".lua")
    args = ["sysbench", own if os.path.exists(own) else script, "--mysql-host=127.0.0.1", f"--mysql-port={port}",
            "--mysql-user=bench", f"--mysql-db={database}", "--tables=1", f"--table-size={options.rows}",
            f"--threads={options.threads}", f"--time={seconds}", "--percentile=99", "--histogram=on", "--db-ps-mode=disable",
            "--mysql-ignore-errors=1062,1213"]
    # Of an option given twice sysbench takes the first.
    args = [a for a in args if a.split("=")[0] not in [m.split("=")[0] for m in more]] + [*more, command]
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(args)}:\n{done.stdout}")
    return done.stdout


def median_latency(text):
    """The median of sysbench's latency histogram, in ms."""
    rows = [(float(m[1]), int(m[2])) for m in re.finditer(r"^\s+([\d.]+) \|[* ]+ (\d+)$", text, re.M)]
    half, seen = sum(count for _, count in rows) / 2, 0
    for value, count in rows:
        seen += count
        if seen >= half:
            return value
    return float("nan")


def measure(cluster, way, workload, options):
    script, more, _ = WORKLOADS[workload]
    pids = (cluster.vtgate[way].pid if way != "direct" else cluster.vttablet.pid, cluster.vttablet.pid)
    before = [cpu_seconds(pid) for pid in pids]
    text = sysbench(cluster, way, script, options, "run", more, options.seconds)
    used = [cpu_seconds(pid) - b for pid, b in zip(pids, before)]
    queries = int(re.search(r"total:\s+(\d+)", text).group(1))
    return {
        "qps": float(re.search(r"queries:\s+\d+\s+\(([\d.]+) per sec", text).group(1)),
        "p50": median_latency(text),
        "p99": float(re.search(r"99th percentile:\s+([\d.]+)", text).group(1)),
        "vtgate": used[0] / queries * 1e6,
        "vttablet": used[1] / queries * 1e6,
    }


def idle_connections(port, count):
    """Opens authenticated connections that do nothing."""
    held = []
    for _ in range(count):
        s = socket.create_connection(("127.0.0.1", port))
        header = s.recv(4, socket.MSG_WAITALL)
        s.recv(header[0] | header[1] << 8 | header[2] << 16, socket.MSG_WAITALL)
        login = struct.pack("<IIB23x", 0x8208, 1 << 24, 45) + b"bench\0\0bench\0"
        s.sendall(struct.pack("<I", len(login))[:3] + b"\x01" + login)
        s.recv(64)
        held.append(s)
    return held


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", help="workloads, separated by commas: " + ", ".join(WORKLOADS))
    parser.add_argument("--ways", default=",".join(WAYS), help="which of direct, grpc and framed")
    options = parser.parse_args()
    ways = [way for way in WAYS if way in options.ways.split(",")]
    wanted = options.only.split(",") if options.only else list(WORKLOADS)
    cluster = Cluster(os.path.abspath(options.bin))
    both = lambda: [resident_mb(cluster.vtgate["framed"].pid), resident_mb(cluster.vttablet.pid)]
    try:
        cluster.start()
        memory = {"idle": both()}
        print(f"{options.rows} rows, {options.threads} threads, {options.rounds} rounds of {options.seconds} s each way, medians\n")
        sysbench(cluster, "direct", "oltp_read_write", options, "prepare", ["--threads=1"])
        sysbench(cluster, "direct", "bulk_insert_500", options, "prepare", ["--threads=1"])
        cluster.run("vtctlclient", "-server", f"127.0.0.1:{cluster.port['vtctld_grpc']}", "ReloadSchema", "zone1-100")
        print(f"{'workload':16} {'':8} {'queries/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'ratio':>7}   CPU-µs a query: vtgate + vttablet")
        for workload in wanted:
            seen = {way: [] for way in ways}
            for _ in range(options.rounds):
                for way in seen:
                    seen[way].append(measure(cluster, way, workload, options))
            for way, runs in seen.items():
                middle = {k: statistics.median(r[k] for r in runs) for k in runs[0]}
                line = f"{workload:16} {way:8} {middle['qps']:10.0f} {middle['p50']:8.2f} {middle['p99']:8.2f}"
                if way != "direct":
                    ratio = "".join(f"{statistics.median(o['qps'] / d['qps'] for o, d in zip(runs, seen['direct'])):.2f}"
                                    for _ in seen.get("direct", [])[:1])
                    line += f" {ratio:>7}   {middle['vtgate']:.0f} + {middle['vttablet']:.0f} = {middle['vtgate'] + middle['vttablet']:.0f}"
                    rows = WORKLOADS[workload][2]
                    if rows > 1:
                        line += f" ({(middle['vtgate'] + middle['vttablet']) / rows:.2f} a row)"
                print(line)
            if workload in GO_VITESS:
                cpu, ratio = GO_VITESS[workload]
                print(f"{'':16} {'Go v5':8} {'':10} {'':8} {'':8} {ratio:7}   {cpu or ''}")
            print(flush=True)
        memory["after load"] = both()
        held = idle_connections(cluster.port["framed"], 1000)
        memory["with 1,000 idle connections"] = both()
        print(f"{'resident memory':30} {'vtgate':>8} {'vttablet':>8}")
        for name, (vtgate, vttablet) in memory.items():
            print(f"{name:30} {vtgate:6.1f}MB {vttablet:6.1f}MB")
        each = (memory["with 1,000 idle connections"][0] - memory["after load"][0]) * 1024 / 1000
        print(f"{'per idle connection':30} {each:6.1f}KB")
        del held
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
