#!/usr/bin/env python3
"""Mixed load with clients killed at random. In the end nothing may be left of it: connections, transactions, pool slots and
threads of mysqld are as at the start, and memory stopped growing early on."""

import argparse
import os
import random
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster  # noqa: E402
from processes import resident_mb, variables  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
# What clients do, and how many threads each has.
LOADS = [("oltp_read_write", 4), ("oltp_point_select", 8), ("oltp_insert", 2), ("oltp_update_index", 2),
         ("bulk_insert_500", 1), ("select_10000", 1)]
GATE = ["MysqlServerConnCount"]
TABLET = ["ConnPoolInUse", "StreamConnPoolInUse", "TransactionPoolInUse", "FoundRowsPoolInUse", "QueryPoolWaiters",
          "TransactionPoolWaiters"]
# Memory may be larger at the end than after the first fifth by a tenth and so many MB: tables grow, and caches with them.
SLACK_MB = 6


def command(cluster, load, threads, seconds, action="run"):
    own = os.path.join(HERE, load + ".lua")
    return ["sysbench", own if os.path.exists(own) else load, "--mysql-host=127.0.0.1", f"--mysql-port={cluster.port['framed']}",
            "--mysql-user=bench", "--mysql-db=bench", "--tables=1", "--table-size=20000", f"--threads={threads}",
            f"--time={seconds}", "--db-ps-mode=" + random.choice(["auto", "disable"]), "--mysql-ignore-errors=all", action]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=8, help="processes of sysbench at a time")
    options = parser.parse_args()
    cluster = Cluster(os.path.abspath(options.bin), ["framed"])
    clients = []
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def state():
        gate, tablet = variables(cluster.port["framed_http"]), variables(cluster.port["tablet_http"])
        seen = {f"vtgate {name}": gate[name] for name in GATE} | {f"vttablet {name}": tablet[name] for name in TABLET}
        busy = "select count(*) from information_schema.innodb_trx"
        seen["transactions in mysqld"] = int(cluster.mysql(busy).split()[-1])
        return seen

    def memory():
        return {"vtgate": resident_mb(cluster.vtgate["framed"].pid), "vttablet": resident_mb(cluster.vttablet.pid)}

    try:
        cluster.start()
        for load in ("oltp_read_write", "bulk_insert_500"):
            subprocess.run(command(cluster, load, 1, 0, "prepare"), check=True, **quiet)
        cluster.vtctl("ReloadSchema", "zone1-100")
        before = state()
        end = time.time() + options.minutes * 60
        early, started, killed, samples = None, 0, 0, []
        while time.time() < end:
            for client in [c for c in clients if c.poll() is not None]:
                clients.remove(client)
            while len(clients) < options.clients:
                load, threads = random.choice(LOADS)
                clients.append(subprocess.Popen(command(cluster, load, threads, 20), **quiet))
                started += 1
            time.sleep(random.uniform(0.1, 1.0))
            if random.random() < 0.5:
                random.choice(clients).send_signal(signal.SIGKILL)
                killed += 1
            samples.append(memory())
            if early is None and time.time() > end - options.minutes * 60 * 0.8:
                early = memory()
        for client in clients:
            client.kill()
            client.wait()
        # What was under way when its client went may take a moment to end.
        patience = time.time() + 60
        while (after := state()) != before and time.time() < patience:
            time.sleep(0.5)
        late = memory()
        print(f"{started} clients, {killed} of them killed, in {options.minutes:g} minutes\n")
        print("| | start | end |\n| --- | --- | --- |")
        for name, value in before.items():
            print(f"| {name} | {value} | {after[name]} |")
        for name, value in late.items():
            highest = max(sample[name] for sample in samples)
            print(f"| {name} resident, after a fifth of the time and at the end | {early[name]:.1f} MB | {value:.1f} MB, "
                  f"at most {highest:.1f} MB |")
        failed = [name for name in before if after[name] != before[name]]
        failed += [f"memory of {name}" for name in late if late[name] > early[name] * 1.1 + SLACK_MB]
        failed += [f"{name} ended" for name, child in (("vtgate", cluster.vtgate["framed"]), ("vttablet", cluster.vttablet))
                   if child.poll() is not None]
        if failed:
            sys.exit("not as at the start: " + ", ".join(failed))
    finally:
        for client in clients:
            if client.poll() is None:
                client.kill()
        cluster.stop()


if __name__ == "__main__":
    main()
