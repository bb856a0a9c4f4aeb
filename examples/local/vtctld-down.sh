#!/bin/bash
# Stops vtctld.

set -e

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

echo "Stopping vtctld..."
pid=$(cat "$VTDATAROOT/tmp/vtctld.pid")
kill "$pid"
wait_until 30 is_gone "$pid" || kill -9 "$pid"
