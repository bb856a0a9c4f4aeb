#!/usr/bin/env python3
"""Goodput under more load than a vttablet can bear: the same work with more and more clients at a time, all of them busy.

What is counted is what was answered without an error; the best of it is the measure for the rest. Fails where three times
as many clients as get the most, or more of them up to `--judged`, get less than four fifths of that."""

import argparse
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster  # noqa: E402
from processes import resident_mb  # noqa: E402

LOADS = ["oltp_point_select", "oltp_read_write"]
LEAST = 0.8


def run(cluster, load, threads, seconds, rows, action="run"):
    args = ["sysbench", load, "--mysql-host=127.0.0.1", f"--mysql-port={cluster.port['framed']}", "--mysql-user=bench",
            "--mysql-db=bench", "--tables=1", f"--table-size={rows}", f"--threads={threads}", f"--time={seconds}",
            "--percentile=99", "--db-ps-mode=disable", "--mysql-ignore-errors=all", action]
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + 300)
    if done.returncode:
        sys.exit(f"{' '.join(args)}:\n{done.stdout}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--clients", default="16,48,200,2000", help="numbers of clients")
    parser.add_argument("--judged", type=int, default=200, help="the most clients that are judged; more are shown")
    options = parser.parse_args()
    counts = [int(count) for count in options.clients.split(",")]
    cluster = Cluster(os.path.abspath(options.bin), ["framed"])
    failed = []
    try:
        cluster.start()
        run(cluster, LOADS[0], 1, 0, options.rows, "prepare")
        cluster.vtctl("ReloadSchema", "zone1-100")
        print("| load | clients | answered/s | of the best | errors/s | p99 ms | vtgate, vttablet MB |\n| --- "
              + "| --- | --- | --- | --- | --- | --- |")
        for load in LOADS:
            seen = []
            for count in counts:
                text = run(cluster, load, count, options.seconds, options.rows)
                per_second = lambda name: float(re.search(name + r":\s+\d+\s+\(([\d.]+) per sec", text).group(1))
                p99 = re.search(r"99th percentile:\s+([\d.]+)", text).group(1)
                memory = [resident_mb(child.pid) for child in (cluster.vtgate["framed"], cluster.vttablet)]
                seen.append((count, per_second("queries"), per_second("ignored errors"), p99, memory))
            best = max(answered for _, answered, *_ in seen)
            for count, answered, errors, p99, (gate, tablet) in seen:
                print(f"| {load} | {count:,} | {answered:,.0f} | {answered / best:.2f} | {errors:,.0f} | {p99} | "
                      f"{gate:.0f}, {tablet:.0f} |", flush=True)
            bears = max(seen, key=lambda run: run[1])[0]
            failed += [f"{load} with {count} clients: {answered / best:.2f} of the best" for count, answered, *_ in seen
                       if 3 * bears <= count <= options.judged and answered < best * LEAST]
    finally:
        cluster.stop()
    if failed:
        sys.exit("goodput falls under load: " + "; ".join(failed))


if __name__ == "__main__":
    main()
