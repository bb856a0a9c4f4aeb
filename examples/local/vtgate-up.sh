#!/bin/bash
# Starts one vtgate.

set -e

cell=${CELL:-'test'}
web_port=15001
grpc_port=15991
mysql_server_port=15306
mysql_server_socket_path="/tmp/mysql.sock"

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# shellcheck disable=SC2086
vtgate \
  $TOPOLOGY_FLAGS \
  -log_dir "$VTDATAROOT/tmp" \
  -log_queries_to_file "$VTDATAROOT/tmp/vtgate_querylog.txt" \
  -port $web_port \
  -grpc_port $grpc_port \
  -mysql_server_port $mysql_server_port \
  -mysql_server_socket_path $mysql_server_socket_path \
  -cell "$cell" \
  -cells_to_watch "$cell" \
  -tablet_types_to_wait MASTER,REPLICA \
  -gateway_implementation discoverygateway \
  -service_map 'grpc-vtgateservice' \
  -pid_file "$VTDATAROOT/tmp/vtgate.pid" \
  -mysql_auth_server_impl none \
  >"$VTDATAROOT/tmp/vtgate.out" 2>&1 &
pid=$!

echo "Waiting for vtgate to be up..."
wait_until 60 answers "http://$hostname:$web_port/debug/status" ||
  fail "vtgate could not be started! $(tail -n 5 "$VTDATAROOT/tmp/vtgate.out")"
echo "vtgate is up!"
echo "Access vtgate at http://$hostname:$web_port/debug/status"
kill -0 $pid || fail "vtgate (pid $pid) ended: $(tail -n 5 "$VTDATAROOT/tmp/vtgate.out")"
