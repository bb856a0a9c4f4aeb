#!/bin/bash
# Stops the etcd that etcd-up.sh started.

set -e

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

echo "Stopping etcd..."
pid=$(cat "${VTDATAROOT}/tmp/etcd.pid")
kill "$pid"
wait_until 30 is_gone "$pid" || kill -9 "$pid"
