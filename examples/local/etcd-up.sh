#!/bin/bash
# Starts one etcd and registers the cell in it.

set -e

cell=${CELL:-'test'}

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

curl -s "http://${ETCD_SERVER}" >/dev/null && fail "etcd is already running. Exiting."

# Directories of etcd's old API, which it has before 3.6: only for eyes that look there, all records are in the new one.
old_api=
if etcd --help 2>&1 | grep -e --enable-v2 >/dev/null; then old_api=--enable-v2=true; fi

# shellcheck disable=SC2086
etcd $old_api --data-dir "${VTDATAROOT}/etcd/" --listen-client-urls "http://${ETCD_SERVER}" \
  --advertise-client-urls "http://${ETCD_SERVER}" >"${VTDATAROOT}/tmp/etcd.out" 2>&1 &
echo $! >"${VTDATAROOT}/tmp/etcd.pid"
wait_until 30 curl -fs "http://${ETCD_SERVER}/health" ||
  fail "etcd did not start: $(tail -n 3 "${VTDATAROOT}/tmp/etcd.out")"

make_directory() {
  echo "add $1"
  [ -z "$old_api" ] || ETCDCTL_API=2 etcdctl --endpoints "http://${ETCD_SERVER}" mkdir "$1" || true
}
make_directory /vitess/global
make_directory "/vitess/$cell"

# A cell that is there already means that the data of an earlier run is used again.
echo "add $cell CellInfo"
# shellcheck disable=SC2086
vtctl $TOPOLOGY_FLAGS AddCellInfo -root "/vitess/$cell" -server_address "${ETCD_SERVER}" "$cell" || true

echo "etcd start done..."
