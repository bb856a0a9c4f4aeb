#!/bin/bash
# Starts the mysqlds and vttablets of one shard: two replicas and one rdonly.

set -e

cell=${CELL:-'test'}
keyspace=${KEYSPACE:-'test_keyspace'}
shard=${SHARD:-'0'}
uid_base=${UID_BASE:-'100'}
port_base=$((15000 + uid_base))
grpc_port_base=$((16000 + uid_base))
mysql_port_base=$((17000 + uid_base))

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

mkdir -p "$VTDATAROOT/backups"

# A list of indexes on the command line overrides the three tablets.
uids=${*:-'0 1 2'}
mysqlctl_pids=()

for uid_index in $uids; do
  uid=$((uid_base + uid_index))
  mysql_port=$((mysql_port_base + uid_index))
  printf -v alias '%s-%010d' "$cell" "$uid"
  printf -v tablet_dir 'vt_%010d' "$uid"
  tablet_type=replica
  [ "$uid_index" -gt 1 ] && tablet_type=rdonly

  # For the hooks and configuration files that look at them.
  export KEYSPACE=$keyspace SHARD=$shard TABLET_ID=$alias TABLET_DIR=$tablet_dir MYSQL_PORT=$mysql_port TABLET_TYPE=$tablet_type

  echo "Starting MySQL for tablet $alias..."
  action="init"
  if [ -d "$VTDATAROOT/$tablet_dir" ]; then
    echo "Resuming from existing vttablet dir:"
    echo "    $VTDATAROOT/$tablet_dir"
    action="start"
  fi
  mysqlctl -log_dir "$VTDATAROOT/tmp" -tablet_uid "$uid" -mysql_port "$mysql_port" "$action" &
  mysqlctl_pids+=($!)
done
for pid in "${mysqlctl_pids[@]}"; do
  wait "$pid" || fail "MySQL could not be started, see above and $VTDATAROOT/tmp/mysqlctl.INFO"
done

for uid_index in $uids; do
  uid=$((uid_base + uid_index))
  port=$((port_base + uid_index))
  printf -v alias '%s-%010d' "$cell" "$uid"
  printf -v tablet_dir 'vt_%010d' "$uid"
  printf -v tablet_logfile 'vttablet_%010d_querylog.txt' "$uid"
  tablet_type=replica
  [ "$uid_index" -gt 1 ] && tablet_type=rdonly

  echo "Starting vttablet for $alias..."
  # shellcheck disable=SC2086
  vttablet \
    $TOPOLOGY_FLAGS \
    -log_dir "$VTDATAROOT/tmp" \
    -log_queries_to_file "$VTDATAROOT/tmp/$tablet_logfile" \
    -tablet-path "$alias" \
    -tablet_hostname "" \
    -init_keyspace "$keyspace" \
    -init_shard "$shard" \
    -init_tablet_type "$tablet_type" \
    -health_check_interval 5s \
    -enable_semi_sync \
    -enable_replication_reporter \
    -backup_storage_implementation file \
    -file_backup_storage_root "$VTDATAROOT/backups" \
    -restore_from_backup \
    -port "$port" \
    -grpc_port $((grpc_port_base + uid_index)) \
    -service_map 'grpc-queryservice,grpc-tabletmanager,grpc-updatestream' \
    -pid_file "$VTDATAROOT/$tablet_dir/vttablet.pid" \
    -vtctld_addr "http://$hostname:$vtctld_web_port/" \
    >"$VTDATAROOT/$tablet_dir/vttablet.out" 2>&1 &

  echo "Access tablet $alias at http://$hostname:$port/debug/status"
done

for uid_index in $uids; do
  port=$((port_base + uid_index))
  printf -v tablet_dir 'vt_%010d' $((uid_base + uid_index))
  wait_until 30 answers "http://$hostname:$port/debug/status" ||
    fail "tablet could not be started! $(tail -n 5 "$VTDATAROOT/$tablet_dir/vttablet.out")"
done
