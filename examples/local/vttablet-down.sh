#!/bin/bash
# Stops the vttablets of one shard and their mysqlds.

cell=${CELL:-'test'}
uid_base=${UID_BASE:-'100'}

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

uids=${*:-'0 1 2'}
pids=()

for uid_index in $uids; do
  uid=$((uid_base + uid_index))
  printf -v alias '%s-%010d' "$cell" "$uid"
  printf -v tablet_dir 'vt_%010d' "$uid"

  echo "Stopping vttablet for $alias..."
  pid=$(cat "$VTDATAROOT/$tablet_dir/vttablet.pid" 2>/dev/null) && kill "$pid" && pids+=("$pid")
done
for pid in "${pids[@]}"; do
  wait_until 60 is_gone "$pid" || kill -9 "$pid"
done

for uid_index in $uids; do
  uid=$((uid_base + uid_index))
  printf -v alias '%s-%010d' "$cell" "$uid"
  echo "Stopping MySQL for tablet $alias..."
  mysqlctl -log_dir "$VTDATAROOT/tmp" -tablet_uid "$uid" shutdown &
done
wait
