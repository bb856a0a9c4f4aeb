"""What every measured cluster needs, on free ports of this machine: a directory, processes, etcd and vtctld."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

TICK = os.sysconf("SC_CLK_TCK")


# Below the ports that the kernel gives to outgoing connections (32768 and up by default), one of which could otherwise take a
# port between its choice and its use.
PORTS = iter(random.sample(range(20_000, 32_000), 12_000))


def free_port():
    for port in PORTS:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass
    sys.exit("no free port between 20000 and 32000")


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


def variables(port):
    return json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/debug/vars", timeout=10))


class Processes:
    """`port[name]` are ports, `topo` and `local` flags for every program; `children` are ended by `stop`."""

    def __init__(self, binaries):
        self.dir = os.path.join(tempfile.mkdtemp(prefix="bench-"), "vtdataroot")
        os.makedirs(self.dir + "/tmp")
        os.environ["PATH"] = f"{binaries}:/usr/sbin:{os.environ['PATH']}"  # where programs are looked up
        self.env = dict(os.environ, VTDATAROOT=self.dir)
        self.children, self.mysqlds = [], []
        self.port = {name: free_port() for name in ["etcd", "peer", "vtctld_http", "vtctld_grpc"]}
        self.topo = ["-topo_implementation", "etcd2", "-topo_global_server_address", f"127.0.0.1:{self.port['etcd']}",
                     "-topo_global_root", "/vitess/global"]
        self.local = ["-log_dir", self.dir + "/tmp", "-bind_address", "127.0.0.1"]

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

    def vtctl(self, *args):
        return self.run("vtctlclient", "-server", f"127.0.0.1:{self.port['vtctld_grpc']}", *args)

    def start_control(self):
        p, url = self.port, lambda name: f"http://127.0.0.1:{self.port[name]}"
        self.spawn("etcd", "--data-dir", self.dir + "/etcd", "--listen-client-urls", url("etcd"), "--advertise-client-urls",
                   url("etcd"), "--listen-peer-urls", url("peer"), "--initial-advertise-peer-urls", url("peer"),
                   f"--initial-cluster=default={url('peer')}")
        wait_for("etcd", lambda: answers(p["etcd"], "/health"))
        self.run("vtctl", *self.topo, "AddCellInfo", "-root", "/vitess/zone1", "-server_address", f"127.0.0.1:{p['etcd']}",
                 "zone1")
        self.spawn("vtctld", *self.topo, *self.local, "-cell", "zone1", "-service_map", "grpc-vtctl", "-port",
                   str(p["vtctld_http"]), "-grpc_port", str(p["vtctld_grpc"]))
        wait_for("vtctld", lambda: answers(p["vtctld_http"], "/debug/health"))

    def start_mysqld(self, uid):
        port = self.port[f"mysqld{uid}"] = free_port()
        self.run("mysqlctl", "-log_dir", self.dir + "/tmp", "-tablet_uid", str(uid), "-mysql_port", str(port), "init")
        self.mysqlds.append(uid)

    def socket_of(self, uid):
        return f"{self.dir}/vt_{uid:010d}/mysql.sock"

    def stop(self):
        for child in reversed(self.children[1:]):
            child.send_signal(signal.SIGTERM)
        for uid in self.mysqlds:
            subprocess.run(["mysqlctl", "-log_dir", self.dir + "/tmp", "-tablet_uid", str(uid), "shutdown"], env=self.env,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for child in reversed(self.children):
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
        if not os.environ.get("KEEP"):
            shutil.rmtree(os.path.dirname(self.dir), ignore_errors=True)
