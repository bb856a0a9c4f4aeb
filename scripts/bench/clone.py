#!/usr/bin/env python3
"""The measuring part of `bench.sh clone`: clones against mysqldump | mysql, filtered replication against MariaDB's own.

One cluster: commerce/0 (master, rdonly), customer/0 for VerticalSplitClone, commerce/-80 and 80- for SplitClone, and one
mysqld without a tablet that replicates from the rdonly as MariaDB does. Every comparison runs in turns between the same
mysqlds. The figures of one run compare with each other only."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time

from processes import Processes, answers, cpu_seconds, free_port, resident_mb, wait_for

MASTER, RDONLY, CUSTOMER, LEFT, RIGHT, REPLICA = 100, 102, 200, 300, 400, 500
TABLETS = {MASTER: ("commerce", "0", "replica"), RDONLY: ("commerce", "0", "rdonly"), CUSTOMER: ("customer", "0", "replica"),
           LEFT: ("commerce", "-80", "replica"), RIGHT: ("commerce", "80-", "replica")}
TABLES = ["narrow", "wide"]
SCHEMA = """
create table narrow (id bigint not null primary key, k int not null, v varchar(20) not null, key (k));
create table wide (id bigint not null primary key, body varchar(1000) character set latin1 not null, k int not null);
create table flow (id bigint not null auto_increment primary key, k int not null, c char(60) not null, pad char(30) not null, key (k))
"""
VSCHEMA = ('{"sharded": true, "vindexes": {"hash": {"type": "hash"}}, "tables": {'
           + ", ".join('"%s": {"column_vindexes": [{"column": "id", "name": "hash"}]}' % t for t in [*TABLES, "flow"]) + "}}")
# What the writers of the apply test do: name, statements of one transaction ({id}: a random row; {from}, {to}: a range of
# rows), rows it changes.
FLOWS = {
    "small transactions": (["insert into flow (k, c, pad) values ({n}, 'a new row with some text in it', 'pad')",
                            "update flow set k = k + 1 where id = {id}", "update flow set c = 'changed by {n}' where id = {other}",
                            "delete from flow where id = {gone}"], 4),
    "INSERT of 1,000 rows": (["insert into flow (k, c, pad) select seq, concat('row ', seq, ' of a large statement'), 'pad' "
                              "from seq_1_to_1000"], 1000),
    "UPDATE of 1,000 rows": (["update flow set k = k + 1, pad = 'updated' where id between {from} and {from} + 999"], 1000),
    "DELETE of 1,000 rows": (["delete from flow where id between {from} and {from} + 999"], 1000),
}


class Cluster(Processes):
    """`tablet[uid]` are processes."""

    def __init__(self, binaries):
        super().__init__(binaries)
        self.tablet = {}

    def start(self):
        self.start_control()
        self.start_tablets(MASTER, RDONLY)
        self.vtctl("InitShardMaster", "-force", "commerce/0", "zone1-100")

    def start_tablets(self, *uids):
        for uid in uids:
            self.start_mysqld(uid)
            http, grpc = free_port(), free_port()
            keyspace, shard, kind = TABLETS[uid]
            self.tablet[uid] = self.spawn(
                "vttablet", *self.topo, *self.local, "-tablet-path", f"zone1-{uid}", "-tablet_hostname", "127.0.0.1",
                "-init_keyspace", keyspace, "-init_shard", shard, "-init_tablet_type", kind, "-health_check_interval", "5s",
                "-vreplication_tablet_type", "rdonly", "-enable_replication_reporter", "-service_map",
                "grpc-queryservice,grpc-tabletmanager,grpc-updatestream", "-port", str(http), "-grpc_port", str(grpc))
            wait_for("vttablet", lambda: answers(http, "/debug/vars"))

    def client(self, program, uid, *args):
        return [program, "--no-defaults", "-u", "vt_dba", "-S", self.socket_of(uid), *args]

    def sql(self, uid, text):
        done = subprocess.run(self.client("mysql", uid, "-N"), input=text, env=self.env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(f"{text[:500]}\n{done.stdout}")
        return done.stdout.strip()

    def mysqld_pid(self, uid):
        return int(open(f"{self.dir}/vt_{uid:010d}/mysql.pid").read())

    def caught_up(self):
        position = self.sql(MASTER, "select @@gtid_binlog_pos")
        if self.sql(RDONLY, f"select master_gtid_wait('{position}', 600)") != "0":
            sys.exit("the rdonly does not catch up")
        return position


class Usage:
    """CPU seconds of processes that live on, from here on."""

    def __init__(self, **pids):
        self.pids = pids
        self.before = {name: cpu_seconds(pid) for name, pid in pids.items()}

    def now(self):
        return {name: cpu_seconds(pid) - self.before[name] for name, pid in self.pids.items()}


def shares(cpu, rows):
    """CPU of each process as µs a row."""
    parts = [f"{name} {seconds / rows * 1e6:.2f}" for name, seconds in cpu.items()]
    return f"{' + '.join(parts)} = {sum(cpu.values()) / rows * 1e6:.2f}"


def children_cpu():
    times = os.times()
    return times.children_user + times.children_system


def timed_pipe(cluster, source, target, database, table):
    """mysqldump | mysql of one table; seconds and CPU."""
    cluster.sql(target, f"create database {database}")
    usage = Usage(source=cluster.mysqld_pid(source), destination=cluster.mysqld_pid(target))
    begin, before = time.time(), children_cpu()
    dump = subprocess.Popen(cluster.client("mysqldump", source, "--single-transaction", "vt_commerce", table),
                            stdout=subprocess.PIPE, env=cluster.env)
    load = subprocess.run(cluster.client("mysql", target, database), stdin=dump.stdout, env=cluster.env)
    if dump.wait() or load.returncode:
        sys.exit("mysqldump | mysql failed")
    seconds = time.time() - begin
    cpu = {"mysqldump and mysql": children_cpu() - before, **usage.now()}
    cluster.sql(target, f"drop database {database}")
    return seconds, cpu


def timed_worker(cluster, source, targets, *args):
    """A vtworker command from its start to its end; seconds, CPU, resident MB sampled on the way, what it printed."""
    mysqlds = {"source mysqld": cluster.mysqld_pid(source), "source vttablet": cluster.tablet[source].pid}
    usage = Usage(**mysqlds)
    there = [Usage(**{"destination mysqld": cluster.mysqld_pid(t), "destination vttablet": cluster.tablet[t].pid}) for t in targets]
    begin, before, memory = time.time(), children_cpu(), []
    worker = subprocess.Popen(["vtworker", *cluster.topo, "-cell", "zone1", "-log_dir", cluster.dir + "/tmp", "-alsologtostderr",
                               "-use_v3_resharding_mode", *args], env=cluster.env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)

    def sample():
        while worker.returncode is None:
            try:
                memory.append(resident_mb(worker.pid))
            except (OSError, AttributeError):
                return
            time.sleep(0.1)

    sampler = threading.Thread(target=sample)
    sampler.start()
    output = worker.communicate()[0]
    seconds = time.time() - begin
    sampler.join()
    if worker.returncode:
        sys.exit(f"vtworker {' '.join(args)}:\n{output[-5000:]}")
    cpu = {"vtworker": children_cpu() - before, **usage.now()}
    for used in there:
        for name, more in used.now().items():
            cpu[name] = cpu.get(name, 0) + more
    return seconds, cpu, memory, output


def same_rows(cluster, targets, table):
    """All rows of the table are at the destinations, and nothing else is."""
    summary = "select count(*), coalesce(bit_xor(crc32(concat_ws('/', {columns}))), 0) from {database}.{table}"
    columns = cluster.sql(MASTER, "select group_concat(column_name order by ordinal_position) from information_schema.columns "
                                  f"where table_schema = 'vt_commerce' and table_name = '{table}'")
    read = lambda uid: [int(n) for n in cluster.sql(uid, summary.format(
        columns=columns, table=table, database="vt_" + TABLETS[uid][0])).split()]
    want, rows, xor = read(RDONLY), 0, 0
    for uid in targets:
        here = read(uid)
        rows, xor = rows + here[0], xor ^ here[1]
    if [rows, xor] != want:
        sys.exit(f"{table}: the copy differs from its source: {[rows, xor]} instead of {want}")


def clear(cluster, targets):
    """As if the clone had never run."""
    for uid in targets:
        keyspace, shard, _ = TABLETS[uid]
        cluster.vtctl("VReplicationExec", f"zone1-{uid}", "delete from _vt.vreplication")
        for source in json.loads(cluster.vtctl("GetShard", f"{keyspace}/{shard}")).get("source_shards") or []:
            cluster.vtctl("SourceShardDelete", f"{keyspace}/{shard}", str(source["uid"]))
        # It serves again.
        cluster.vtctl("RefreshState", f"zone1-{uid}")
        cluster.sql(uid, "drop table if exists _vt.vtworker_job, _vt.vtworker_chunk; "
                    + "; ".join(f"truncate vt_{keyspace}.{table}" for table in TABLES))


def clone_bench(cluster, options, command, targets, args):
    """One clone command for each table, in turns with mysqldump | mysql. `args`: flags and shard for a table."""
    for table in TABLES:
        rows = options.narrow if table == "narrow" else options.wide
        dumps, clones = [], []
        for _ in range(options.rounds):
            dumps.append(timed_pipe(cluster, RDONLY, targets[0], "dumped", table))
            clones.append(timed_worker(cluster, RDONLY, targets, command, *args(table)))
            same_rows(cluster, targets, table)
            clear(cluster, targets)
        ratio = statistics.median(c[0] / d[0] for c, d in zip(clones, dumps))
        middle = lambda runs: sorted(runs, key=lambda run: run[0])[len(runs) // 2]
        print(f"{command} to {len(targets)}, {rows:,} rows of table {table}")
        for name, (seconds, cpu) in [("mysqldump | mysql", middle(dumps)), (command, middle(clones)[:2])]:
            print(f"  {name:18} {seconds:7.2f} s {rows / seconds:10,.0f} rows/s   CPU-µs a row: {shares(cpu, rows)}")
        print(f"  time of the clone against mysqldump | mysql: {ratio:.2f} (target 1.00; Vitess v5.0.1 in Go: 2)")
        memory = max((clone[2] for clone in clones), key=lambda samples: max(samples, default=0))
        quarters = [max(memory[len(memory) * i // 4:len(memory) * (i + 1) // 4] or [0]) for i in range(4)]
        print("  resident memory of vtworker, largest in each quarter of its time: "
              f"{', '.join(f'{quarter:.0f}' for quarter in quarters)} MB (target: flat, below 128)\n", flush=True)
        if options.verbose:
            print(clones[-1][3])


def vertical_bench(cluster, options):
    clone_bench(cluster, options, "VerticalSplitClone", [CUSTOMER],
                lambda table: ["-min_healthy_tablets=1", f"-tables={table}", *options.flags, "customer/0"])


def horizontal_bench(cluster, options):
    cluster.vtctl("ApplyVSchema", "-vschema", VSCHEMA, "commerce")
    cluster.start_tablets(LEFT, RIGHT)
    for uid in (LEFT, RIGHT):
        shard = f"commerce/{TABLETS[uid][1]}"
        cluster.vtctl("InitShardMaster", "-force", shard, f"zone1-{uid}")
        cluster.vtctl("CopySchemaShard", "commerce/0", shard)
    others = lambda table: ",".join(name for name in [*TABLES, "flow"] if name != table)
    clone_bench(cluster, options, "SplitClone", [LEFT, RIGHT],
                lambda table: ["-min_healthy_rdonly_tablets=1", f"-exclude_tables={others(table)}", *options.flags, "commerce/0"])


def write_flow(cluster, name, transactions, rows):
    """Runs a flow at the master with several writers."""
    statements, _ = FLOWS[name]
    writers = 8 if len(statements) > 1 else 1
    texts = []
    for writer in range(writers):
        text = ["use vt_commerce;"]
        for n in range(writer, transactions, writers):
            # Rows are touched in an order that is the same in every run; each writer has its own.
            place = (n * 7919) % rows + 1
            place += (writer - place) % writers
            values = {"n": n, "id": place, "other": (place * 31) // writers * writers % rows + writer, "gone": rows - n,
                      "from": (n * 1000) % rows + 1}
            text.append("begin;" + ";".join(s.format(**values) for s in statements) + ";commit;")
        texts.append("\n".join(text))
    running = []
    for text in texts:
        child = subprocess.Popen(cluster.client("mysql", MASTER), stdin=subprocess.PIPE, env=cluster.env, text=True)
        thread = threading.Thread(target=lambda child=child, text=text: child.communicate(text))
        thread.start()
        running.append((child, thread))
    for child, thread in running:
        thread.join()
        if child.returncode:
            sys.exit(f"{name}: a writer failed")


def apply_bench(cluster, options):
    print("The same binlog of the rdonly applied from the same position: by a stream of filtered replication to customer/0, and by a\n"
          "replica of MariaDB with the same configuration, as it is and with slave_parallel_threads=4.\n")
    wanted = lambda name: not options.flows or any(word in name for word in options.flows.split(","))
    for name, (_, rows_each) in FLOWS.items():
        if not wanted(name):
            continue
        transactions = max(1, options.changes // rows_each)
        seen = {"filtered replication": [], "replica": [], "replica, 4 threads": []}
        for _ in range(options.rounds):
            base = options.changes * 2
            cluster.sql(MASTER, "use vt_commerce; truncate flow; insert into flow (id, k, c, pad) select seq, seq % 1000, "
                                f"concat('row ', seq), 'pad' from seq_1_to_{base}")
            begin = cluster.caught_up()
            load(cluster)
            write_flow(cluster, name, transactions, base)
            end = cluster.caught_up()
            rows = transactions * rows_each
            seen["filtered replication"].append(timed_stream(cluster, begin, end, rows))
            same_rows(cluster, [CUSTOMER], "flow")
            for way, threads in [("replica", 0), ("replica, 4 threads", 4)]:
                seen[way].append(timed_replica(cluster, begin, end, threads))
        print(f"{name}, {transactions:,} transactions of {rows_each:,} row changes")
        ours = seen["filtered replication"]
        for way, runs in seen.items():
            run = sorted(runs, key=lambda run: run[0])[len(runs) // 2]
            line = f"  {way:22} {run[0]:7.2f} s {rows / run[0]:9,.0f} rows/s"
            if way != "filtered replication":
                line += f"   filtered replication's rate: {statistics.median(r[0] / o[0] for r, o in zip(runs, ours)):.2f} of it"
            print(f"{line}   CPU-µs a row: {shares(run[1], rows)}")
        print(flush=True)


def load(cluster):
    """The rows of the rdonly to the target of the stream and to the replica's own copy, from which it begins anew each time."""
    for uid, database in [(CUSTOMER, "vt_customer"), (REPLICA, "kept")]:
        pipe = " | ".join(" ".join(args) for args in [
            cluster.client("mysqldump", RDONLY, "--single-transaction", "vt_commerce", "flow"), cluster.client("mysql", uid, database)])
        cluster.run("bash", "-c", pipe)


def timed_stream(cluster, begin, end, rows):
    source = 'keyspace:"commerce" shard:"0" tables:"flow" '
    usage = Usage(**{"source mysqld": cluster.mysqld_pid(RDONLY), "source vttablet": cluster.tablet[RDONLY].pid,
                     "vttablet": cluster.tablet[CUSTOMER].pid, "mysqld": cluster.mysqld_pid(CUSTOMER)})
    start = time.time()
    cluster.vtctl("VReplicationExec", "zone1-200",
                  "insert into _vt.vreplication (workflow, source, pos, stop_pos, max_tps, max_replication_lag, time_updated, "
                  f"transaction_timestamp, state, db_name) values ('bench', '{source}', 'MariaDB/{begin}', 'MariaDB/{end}', "
                  "9223372036854775807, 9223372036854775807, 0, 0, 'Running', 'vt_customer')")
    state = ""
    while state != "Stopped":
        time.sleep(0.05)
        state, _, message = cluster.sql(CUSTOMER, "select state, message from _vt.vreplication where workflow = 'bench'").partition("\t")
        if state == "Error" or time.time() - start > 1200:
            sys.exit(f"the stream does not get to its end: {state}: {message}")
    seconds = time.time() - start
    used = usage.now()
    cluster.vtctl("VReplicationExec", "zone1-200", "delete from _vt.vreplication where workflow = 'bench'")
    return seconds, used


def timed_replica(cluster, begin, end, threads):
    cluster.sql(REPLICA, "set global read_only = 0; drop database if exists vt_commerce; create database vt_commerce; "
                         "create table vt_commerce.flow like kept.flow; insert into vt_commerce.flow select * from kept.flow; "
                         f"stop slave; reset slave; set global gtid_strict_mode = 0; reset master; set global gtid_slave_pos = '{begin}'; "
                         f"set global slave_parallel_threads = {threads}; "
                         f"change master to master_host = '127.0.0.1', master_port = {cluster.port[f'mysqld{RDONLY}']}, "
                         "master_user = 'vt_repl', master_use_gtid = slave_pos")
    usage = Usage(**{"source mysqld": cluster.mysqld_pid(RDONLY), "mysqld": cluster.mysqld_pid(REPLICA)})
    start = time.time()
    if cluster.sql(REPLICA, f"start slave; select master_gtid_wait('{end}', 1200)") != "0":
        sys.exit(f"the replica does not get to its end:\n{cluster.sql(REPLICA, 'show slave status')}")
    seconds = time.time() - start
    used = usage.now()
    same = "select count(*), bit_xor(crc32(concat_ws('/', id, k, c, pad))) from vt_commerce.flow"
    if cluster.sql(REPLICA, same) != cluster.sql(RDONLY, same):
        sys.exit("the replica differs from its source")
    return seconds, used


def main():
    parser = argparse.ArgumentParser(prog="bench.sh clone")
    parser.add_argument("--bin", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--narrow", type=int, default=2_000_000, help="rows of the narrow table")
    parser.add_argument("--wide", type=int, default=200_000, help="rows of 1 KB of the wide table")
    parser.add_argument("--changes", type=int, default=200_000, help="row changes of each flow that is applied")
    parser.add_argument("--only", help="VerticalSplitClone, SplitClone, apply; separated by commas")
    parser.add_argument("--flows", help="which flows are applied: " + ", ".join(FLOWS))
    parser.add_argument("--verbose", action="store_true", help="print the log of vtworker too")
    parser.add_argument("--keep", action="store_true", help="wait for Enter before the cluster is stopped")
    parser.add_argument("flags", nargs="*", help="flags for the clone commands, behind --")
    options = parser.parse_args()
    wants = lambda word: not options.only or word in options.only.split(",")
    cluster = Cluster(os.path.abspath(options.bin))
    try:
        cluster.start()
        cluster.sql(MASTER, "use vt_commerce; " + SCHEMA + "; "
                    + "".join(f"insert into narrow select seq, seq * 7919 % 1000000, concat('name ', seq) from seq_{a}_to_{min(a + 199_999, options.narrow)}; "
                              for a in range(1, options.narrow + 1, 200_000))
                    + "".join(f"insert into wide select seq, rpad(concat(seq, ' ', md5(seq), ' '), 1000, md5(seq + 1)), seq from seq_{a}_to_{min(a + 19_999, options.wide)}; "
                              for a in range(1, options.wide + 1, 20_000)))
        cluster.caught_up()
        for uid in (MASTER, RDONLY):
            cluster.vtctl("ReloadSchema", f"zone1-{uid}")
        print(f"{cluster.sql(MASTER, 'select version()')}, {os.cpu_count()} processors\n")
        print(f"{options.rounds} rounds in turns, medians. Clones: from the start of vtworker to its end, both passes and the checksums of "
              "every piece\nincluded.\n")
        # Before commerce has more than one shard, which a vertical split refuses.
        if wants("VerticalSplitClone") or wants("apply"):
            cluster.vtctl("CreateKeyspace", "-served_from=master:commerce,replica:commerce,rdonly:commerce", "customer")
            cluster.start_tablets(CUSTOMER)
            cluster.vtctl("InitShardMaster", "-force", "customer/0", "zone1-200")
            cluster.vtctl("CopySchemaShard", "-tables", ",".join([*TABLES, "flow"]), "commerce/0", "customer/0")
        if wants("VerticalSplitClone"):
            vertical_bench(cluster, options)
        if wants("apply"):
            cluster.start_mysqld(REPLICA)
            cluster.sql(REPLICA, "set global read_only = 0; create database kept")
            apply_bench(cluster, options)
        if wants("SplitClone"):
            horizontal_bench(cluster, options)
        if options.keep:
            input(f"{cluster.dir}: Enter stops it ")
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
