#!/bin/bash
# 101 and 401 with the commands, flags and order of v5.0.1's local example: what a script written for it does. Our programs
# come first in PATH. Called as `walkthrough.sh up` and `walkthrough.sh down`, in a directory with the SQL and JSON files.

set -e

if [ "$USER" = "root" ] || [ "$(id -u)" = 0 ]; then
  echo "ERROR: This script refuses to be run as root. Please switch to a regular user."
  exit 1
fi
for binary in mysqld etcd etcdctl curl vtctlclient vttablet vtgate vtctld mysqlctl; do
  command -v "$binary" >/dev/null || { echo "${binary} is not installed in PATH"; exit 1; }
done

hostname=$(hostname -f)
export VTDATAROOT="${VTDATAROOT:-${PWD}/vtdataroot}"
ETCD_SERVER="localhost:2379"
TOPOLOGY_FLAGS="-topo_implementation etcd2 -topo_global_server_address $ETCD_SERVER -topo_global_root /vitess/global"
cell=zone1

up() {
  mkdir -p "$VTDATAROOT/tmp" "$VTDATAROOT/etcd" "$VTDATAROOT/backups"
  # etcd-up.sh
  etcd --enable-v2=true --data-dir "$VTDATAROOT/etcd/" --listen-client-urls "http://$ETCD_SERVER" \
    --advertise-client-urls "http://$ETCD_SERVER" >"$VTDATAROOT/tmp/etcd.out" 2>&1 &
  echo $! >"$VTDATAROOT/tmp/etcd.pid"
  sleep 5
  ETCDCTL_API=2 etcdctl --endpoints "http://$ETCD_SERVER" mkdir /vitess/global &
  ETCDCTL_API=2 etcdctl --endpoints "http://$ETCD_SERVER" mkdir /vitess/$cell &
  set +e
  vtctl $TOPOLOGY_FLAGS AddCellInfo -root /vitess/$cell -server_address "$ETCD_SERVER" $cell
  set -e

  # vtctld-up.sh
  vtctld $TOPOLOGY_FLAGS -cell $cell -workflow_manager_init -workflow_manager_use_election \
    -service_map 'grpc-vtctl' -backup_storage_implementation file -file_backup_storage_root "$VTDATAROOT/backups" \
    -log_dir "$VTDATAROOT/tmp" -port 15000 -grpc_port 15999 -pid_file "$VTDATAROOT/tmp/vtctld.pid" \
    >"$VTDATAROOT/tmp/vtctld.out" 2>&1 &

  # vttablet-up.sh: one mysqld after the other, then the tablets.
  for index in 0 1 2; do
    uid=$((100 + index))
    printf -v alias '%s-%010d' $cell $uid
    printf -v tablet_dir 'vt_%010d' $uid
    tablet_type=replica
    [ $index -gt 1 ] && tablet_type=rdonly
    export KEYSPACE=commerce SHARD=0 TABLET_ID=$alias TABLET_DIR=$tablet_dir MYSQL_PORT=$((17000 + uid)) TABLET_TYPE=$tablet_type
    mysqlctl -log_dir "$VTDATAROOT/tmp" -tablet_uid $uid -mysql_port $((17000 + uid)) init
    vttablet $TOPOLOGY_FLAGS -log_dir "$VTDATAROOT/tmp" -log_queries_to_file "$VTDATAROOT/tmp/vttablet_${uid}_querylog.txt" \
      -tablet-path $alias -tablet_hostname "" -init_keyspace commerce -init_shard 0 -init_tablet_type $tablet_type \
      -health_check_interval 5s -enable_semi_sync -enable_replication_reporter -backup_storage_implementation file \
      -file_backup_storage_root "$VTDATAROOT/backups" -restore_from_backup -port $((15000 + uid)) \
      -grpc_port $((16000 + uid)) -service_map 'grpc-queryservice,grpc-tabletmanager,grpc-updatestream' \
      -pid_file "$VTDATAROOT/$tablet_dir/vttablet.pid" -vtctld_addr "http://$hostname:15000/" \
      >"$VTDATAROOT/$tablet_dir/vttablet.out" 2>&1 &
    for _ in $(seq 0 30); do
      curl -I "http://$hostname:$((15000 + uid))/debug/status" >/dev/null 2>&1 && break
      sleep 1
    done
    curl -I "http://$hostname:$((15000 + uid))/debug/status" >/dev/null 2>&1
  done

  vtctlclient -server localhost:15999 InitShardMaster -force commerce/0 zone1-100
  # vtctld finds these in the directory that it was started in.
  vtctlclient -server localhost:15999 ApplySchema -sql-file create_commerce_schema.sql commerce
  vtctlclient -server localhost:15999 ApplyVSchema -vschema_file vschema_commerce_initial.json commerce

  # vtgate-up.sh
  vtgate $TOPOLOGY_FLAGS -log_dir "$VTDATAROOT/tmp" -log_queries_to_file "$VTDATAROOT/tmp/vtgate_querylog.txt" \
    -port 15001 -grpc_port 15991 -mysql_server_port 15306 -mysql_server_socket_path "$VTDATAROOT/mysql.sock" \
    -cell $cell -cells_to_watch $cell -tablet_types_to_wait MASTER,REPLICA -gateway_implementation discoverygateway \
    -service_map 'grpc-vtgateservice' -pid_file "$VTDATAROOT/tmp/vtgate.pid" -mysql_auth_server_impl none \
    >"$VTDATAROOT/tmp/vtgate.out" 2>&1 &
  while ! curl -I "http://$hostname:15001/debug/status" >/dev/null 2>&1; do sleep 0.1; done
}

down() {
  kill -TERM "$(cat "$VTDATAROOT/tmp/vtgate.pid")"
  vtctlclient -server localhost:15999 GetTablet zone1-100 >/dev/null
  for uid in 100 101 102; do
    printf -v tablet_dir 'vt_%010d' $uid
    pid=$(cat "$VTDATAROOT/$tablet_dir/vttablet.pid")
    kill "$pid"
    while ps -p "$pid" >/dev/null; do sleep 0.1; done
    mysqlctl -tablet_uid $uid shutdown &
    waits="$waits $!"
  done
  wait $waits
  kill -9 "$(cat "$VTDATAROOT/tmp/vtctld.pid")"
  kill -9 "$(cat "$VTDATAROOT/tmp/etcd.pid")"
  for _ in $(seq 50); do
    pgrep -f "$VTDATAROOT" >/dev/null || break
    sleep 0.1
  done
  if pgrep -fl "$VTDATAROOT"; then
    echo "ERROR: Stale processes detected!"
    exit 1
  fi
  rm -r "${VTDATAROOT:?}"/*
}

"$1"
