#!/bin/bash
# Sourced by every script here: where data and binaries are, and the flags that name the topology server.

# A name that does not resolve leads nowhere; tablets register with the loopback address then too.
hostname=$(hostname -f 2>/dev/null) || hostname=127.0.0.1
vtctld_web_port=15000
export VTDATAROOT="${VTDATAROOT:-${PWD}/vtdataroot}"

function fail() {
  echo "ERROR: $1"
  exit 1
}

# mysqld is often in /usr/sbin, which an ordinary user's PATH lacks.
PATH="$PATH:/usr/sbin"
# A checkout that was built but not installed works as it is.
if ! command -v vtgate >/dev/null; then
  built=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/release
  [ -x "$built/vtgate" ] && PATH="$built:$PATH"
fi
for binary in mysqld etcd etcdctl curl vtctl vtctlclient vttablet vtgate vtctld vtworker mysqlctl; do
  command -v "$binary" >/dev/null || fail "${binary} is not installed in PATH. scripts/demo.sh installs and builds what is missing."
done

ETCD_SERVER="localhost:2379"
TOPOLOGY_FLAGS="-topo_implementation etcd2 -topo_global_server_address $ETCD_SERVER -topo_global_root /vitess/global"

mkdir -p "${VTDATAROOT}/tmp" "${VTDATAROOT}/etcd"

# Runs a command every tenth of a second until it succeeds: `wait_until SECONDS COMMAND…`.
function wait_until() {
  local tries=$(($1 * 10))
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 0.1
  done
}

# Whether the server at a URL answers a HEAD request.
function answers() {
  curl -fsSI "$1"
}

# Whether a process is gone, or is only waiting for its parent to collect it.
function is_gone() {
  ! kill -0 "$1" 2>/dev/null || [ "$(ps -o stat= -p "$1" 2>/dev/null | cut -c1)" = Z ]
}

alias mysql="command mysql -h 127.0.0.1 -P 15306"
alias vtctlclient="command vtctlclient -server localhost:15999 -log_dir ${VTDATAROOT}/tmp -alsologtostderr"
shopt -s expand_aliases
