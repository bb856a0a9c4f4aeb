#!/bin/bash
# Starts vtctld.

set -e

cell=${CELL:-'test'}
grpc_port=15999

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

echo "Starting vtctld..."
# shellcheck disable=SC2086
vtctld \
  $TOPOLOGY_FLAGS \
  -cell "$cell" \
  -workflow_manager_init \
  -workflow_manager_use_election \
  -service_map 'grpc-vtctl' \
  -backup_storage_implementation file \
  -file_backup_storage_root "$VTDATAROOT/backups" \
  -log_dir "$VTDATAROOT/tmp" \
  -port $vtctld_web_port \
  -grpc_port $grpc_port \
  -pid_file "$VTDATAROOT/tmp/vtctld.pid" \
  >"$VTDATAROOT/tmp/vtctld.out" 2>&1 &

echo "Access vtctld web UI at http://$hostname:$vtctld_web_port"
echo "Send commands with: vtctlclient -server $hostname:$grpc_port ..."
