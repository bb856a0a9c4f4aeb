#!/bin/bash
# Stops vtgate.

set -e

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

echo "Stopping vtgate..."
pid=$(cat "$VTDATAROOT/tmp/vtgate.pid")
kill "$pid"
wait_until 60 is_gone "$pid" || kill -9 "$pid"
