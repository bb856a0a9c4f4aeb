#!/usr/bin/env python3
"""The measuring part of bench.sh: sysbench straight to mysqld and through vtgate and vttablet, in turns; tables for
docs/performance.md."""

import argparse
import collections
import os
import re
import resource
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench"))
from cluster import Cluster, login  # noqa: E402
from processes import cpu_seconds, resident_mb  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
WAYS = ["direct", "grpc", "framed"]
IDLE = 10_000

# `script` of sysbench or scripts/bench, options of its own, rows a query stands for, keyspace, what Vitess v5.0.1 in Go
# costs (CPU-µs of both processes a query) and gives (ratio to direct) on two cores, what is aimed at.
Workload = collections.namedtuple("Workload", "script options rows keyspace go target", defaults=[[], 1, "bench", "", ""])
WORKLOADS = {
    "point select": Workload("oltp_point_select", go="190, 0.15", target="≤ 50, ≥ 0.45"),
    "point select, prepared": Workload("oltp_point_select", ["--db-ps-mode=auto"], go="241, 0.09", target="≥ 0.40"),
    "point select, 1 client": Workload("oltp_point_select", ["--threads=1"], go="+0.4 ms", target="+0.15 ms"),
    "read_only": Workload("oltp_read_only", go="244, 0.17", target="≥ 0.50"),
    "read_write": Workload("oltp_read_write", go="255, 0.21", target="≥ 0.55"),
    "update_index": Workload("oltp_update_index", go="402, 0.26", target="≥ 0.60"),
    "insert": Workload("oltp_insert", ["--auto-inc=off"], go="417, 0.23", target="≥ 0.60"),
    "INSERT of 500 rows": Workload("bulk_insert_500", ["--threads=4"], 500, go="24–29 a row, 0.2", target="≥ 0.7"),
    "the same, 2 shards": Workload("bulk_insert_500", ["--threads=4"], 500, "sharded2", target="≥ 0.6"),
    "insert, sequence, 2 shards": Workload("numbered", keyspace="sharded2"),
    "SELECT of 10,000 rows": Workload("select_10000", ["--threads=2"], 10_000, go="2.2–3.3 a row, 0.6", target="≥ 0.9"),
}
# A point select routed by its id: keyspace, and how many times the threads. Requests that arrive together share reads, writes
# and wake-ups, so that clients who are spread over more tablets cost more each.
ROUTED = {"unsharded": ("bench", 1), "1 shard": ("sharded1", 1), "2 shards": ("sharded2", 1), "4 shards": ("sharded4", 1),
          "4 shards, as many clients a shard": ("sharded4", 4)}


def sysbench(cluster, way, keyspace, script, options, command, more=(), seconds=0):
    port, database = (cluster.port["mysqld100"], "vt_bench") if way == "direct" else (cluster.port[way], keyspace)
    own = os.path.join(HERE, "bench", script + ".lua")
    args = ["sysbench", own if os.path.exists(own) else script, "--mysql-host=127.0.0.1", f"--mysql-port={port}",
            "--mysql-user=bench", f"--mysql-db={database}", "--tables=1", f"--table-size={options.rows}",
            f"--threads={options.threads}", f"--time={seconds}", "--percentile=99", "--histogram=on", "--db-ps-mode=disable",
            "--mysql-ignore-errors=1062,1213"]
    # Of an option given twice sysbench takes the first.
    args = [a for a in args if a.split("=")[0] not in [m.split("=")[0] for m in more]] + [*more, command]
    try:
        # sysbench repeats a transaction whose errors are ignored without looking at its time.
        done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + 300)
    except subprocess.TimeoutExpired:
        sys.exit(f"{' '.join(args)}: does not end")
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
    tablets = [child.pid for child in cluster.vttablets[workload.keyspace]]
    gates = [cluster.vtgate[way].pid] if way != "direct" else []
    used = lambda: [sum(cpu_seconds(pid) for pid in pids) for pids in (gates, tablets)]
    before = used()
    text = sysbench(cluster, way, workload.keyspace, workload.script, options, "run", workload.options, options.seconds)
    cpu = [after - b for after, b in zip(used(), before)]
    queries = int(re.search(r"total:\s+(\d+)", text).group(1))
    return {
        "qps": float(re.search(r"queries:\s+\d+\s+\(([\d.]+) per sec", text).group(1)),
        "p50": median_latency(text),
        "p99": float(re.search(r"99th percentile:\s+([\d.]+)", text).group(1)),
        "vtgate": cpu[0] / queries * 1e6,
        "vttablet": cpu[1] / queries * 1e6,
    }


def in_turns(cluster, ways, workload, options):
    """Medians by way, and the median over the rounds of each way's ratio to direct."""
    runs = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way in ways:
            runs[way].append(measure(cluster, way, workload, options))
    result = {way: {k: statistics.median(r[k] for r in seen) for k in seen[0]} for way, seen in runs.items()}
    for way in ways:
        if "direct" in runs:
            result[way]["ratio"] = statistics.median(o["qps"] / d["qps"] for o, d in zip(runs[way], runs["direct"]))
    return result


def cost(result, rows=1):
    parts, total = [result["vtgate"] / rows, result["vttablet"] / rows], (result["vtgate"] + result["vttablet"]) / rows
    digits = 0 if rows == 1 else 2
    return f"{parts[0]:.{digits}f} + {parts[1]:.{digits}f} = {total:.{digits}f}"


def queries_table(cluster, ways, wanted, options):
    print("| workload | direct: queries/s, p50 ms | " + " | ".join(
        f"{way}: queries/s (ratio), p50 ms; CPU-µs vtgate + vttablet" for way in ways if way != "direct")
        + " | Go v5.0.1 | target |")
    print("| --- " * (len(ways) + (0 if "direct" in ways else 1) + 3) + "|")
    for name in wanted:
        workload = WORKLOADS[name]
        result = in_turns(cluster, ways, workload, options)
        cells = [name]
        direct = result.get("direct")
        cells.append(f"{direct['qps']:,.0f}, {direct['p50']:.2f}" if direct else "")
        for way in ways:
            if way != "direct":
                r = result[way]
                ratio = f" ({r['ratio']:.2f})" if "ratio" in r else ""
                of = " a row" if workload.rows > 1 else ""
                cells.append(f"{r['qps']:,.0f}{ratio}, {r['p50']:.2f}; {cost(r, workload.rows)}{of}")
        print("| " + " | ".join([*cells, workload.go, workload.target]) + " |", flush=True)
    print()


def routed_table(cluster, options):
    ways = [way for way in ("framed", "grpc") if way in cluster.vtgate][:1]
    print(f"| point select over {ways[0]}, routed by id | CPU-µs vtgate + vttablets | against unsharded |")
    print("| --- | --- | --- |")
    runs = {name: [] for name in ROUTED}
    for _ in range(options.rounds):
        for name, (keyspace, times) in ROUTED.items():
            threads = [f"--threads={options.threads * times}"]
            runs[name].append(measure(cluster, ways[0], Workload("oltp_point_select", threads, keyspace=keyspace), options))
    base = None
    for name, seen in runs.items():
        middle = {k: statistics.median(r[k] for r in seen) for k in seen[0]}
        total = middle["vtgate"] + middle["vttablet"]
        base = base or total
        print(f"| {name} | {cost(middle)} | {total / base:.2f} |")
    print(flush=True)


def prepare(cluster, options):
    more = ["--threads=1", "--auto-inc=off"]
    sysbench(cluster, "direct", "bench", "oltp_read_write", options, "prepare", more)
    for script in ("bulk_insert_500", "numbered"):
        sysbench(cluster, "direct", "bench", script, options, "prepare", more)
    way = next(iter(cluster.vtgate))
    cluster.mysql("create table vt_bench.numbered_seq(id bigint primary key, next_id bigint, cache bigint) "
                  "comment 'vitess_sequence'; insert into vt_bench.numbered_seq values (0, 1, 1000)")
    cluster.vtctl("ApplyVSchema", "-vschema", '{"tables": {"sbtest1": {}, "bulk": {}, "numbered": {}, '
                  '"numbered_seq": {"type": "sequence"}}}', "bench")
    cluster.vtctl("ReloadSchema", "zone1-100")
    for keyspace in cluster.keyspaces:
        sysbench(cluster, way, keyspace, "oltp_read_write", options, "prepare", more)
        for script in ("bulk_insert_500", "numbered"):
            sysbench(cluster, way, keyspace, script, options, "prepare", more)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", help="workloads, separated by semicolons, and `routed`: " + "; ".join(WORKLOADS))
    parser.add_argument("--ways", default=",".join(WAYS), help="which of direct, grpc and framed")
    options = parser.parse_args()
    ways = [way for way in WAYS if way in options.ways.split(",")]
    wanted = options.only.split(";") if options.only else [*WORKLOADS, "routed"]
    wanted = [name.strip() for name in wanted]
    used = {WORKLOADS[name].keyspace for name in wanted if name in WORKLOADS}
    keyspaces = [k for k in ("sharded1", "sharded2", "sharded4") if k in used or "routed" in wanted]
    cluster = Cluster(os.path.abspath(options.bin), [way for way in ways if way != "direct"], keyspaces)
    gate = "framed" if "framed" in ways else "grpc"
    both = lambda: [resident_mb(cluster.vtgate[gate].pid), resident_mb(cluster.vttablet.pid)]
    started = time.time()
    try:
        cluster.start()
        # Servers are at rest when what only their start needed is given back.
        time.sleep(15)
        memory = {"idle": both()}
        prepare(cluster, options)
        server = cluster.mysql("select version()").split()[-1]
        print(f"{time.strftime('%B %Y', time.gmtime())}, {os.cpu_count()} cores, {server}; {options.rows:,} rows, "
              f"{options.threads} threads unless said otherwise, medians of {options.rounds} rounds of {options.seconds} s "
              "each way, in turns in one run.\n")
        queries_table(cluster, ways, [name for name in wanted if name in WORKLOADS], options)
        if "routed" in wanted:
            routed_table(cluster, options)
        memory["after the load"] = both()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        count = min(IDLE, hard - 200)
        held = [login(cluster.port[gate]) for _ in range(count)]
        name = f"with {count:,} idle client connections"
        memory[name] = both()
        each = (memory[name][0] - memory["after the load"][0]) * 1024 / count
        print("| resident | vtgate | vttablet |\n| --- | --- | --- |")
        for what, (vtgate, vttablet) in memory.items():
            more = f" ({each:.1f} KB each)" if what == name else ""
            print(f"| {what} | {vtgate:.1f} MB{more} | {vttablet:.1f} MB |")
        del held
        print(f"\n{time.time() - started:.0f} s", file=sys.stderr)
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
