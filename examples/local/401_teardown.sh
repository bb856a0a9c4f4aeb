#!/bin/bash
# Stops everything that the walkthrough started and removes its data.

source ./env.sh

./vtgate-down.sh
for uid_base in 100 200 300 400; do
  # A shard that was deleted has no tablet record, but its processes may still run.
  printf -v tablet_dir 'vt_%010d' $uid_base
  [ -d "$VTDATAROOT/$tablet_dir" ] && CELL=zone1 UID_BASE=$uid_base ./vttablet-down.sh
done
./vtctld-down.sh
./etcd-down.sh

if pgrep -f "$VTDATAROOT" >/dev/null; then
  echo "ERROR: Stale processes detected! It is recommended to manually kill them:"
  pgrep -fl "$VTDATAROOT"
  exit 1
fi
echo "All good! It looks like every process has shut down"

rm -r "${VTDATAROOT:?}"/*
