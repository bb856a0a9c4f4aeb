#!/usr/bin/env bash
# Measures what vtgate and vttablet cost: sysbench straight to a mysqld and through a vtgate over gRPC and over the framed
# transport to the same mysqld, in turns in one run.
#
#   scripts/bench.sh clone …       clones against mysqldump | mysql, filtered replication against MariaDB's (--help)
#   scripts/bench.sh [--rounds N] [--seconds S] [--threads T] [--rows R] [--only WORKLOADS] [--ways direct,grpc,framed]
#
# Prints queries/s, median and p99 latency, CPU-µs per query of vtgate and vttablet, and resident memory, as numbers and
# as ratios to direct. Machines are shared and noisy: read the ratios and the CPU per query.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/setup.sh"
setup
command -v python3 >/dev/null || install_packages python3
measure=$root/scripts/bench.py
if [ "${1:-}" = clone ]; then
  measure=$root/scripts/bench/clone.py
  shift
fi
command -v sysbench >/dev/null || { say "Installing sysbench"; install_packages sysbench; }
cd "$root"
cargo build --release --bins --quiet
exec python3 "$measure" --bin "${CARGO_TARGET_DIR:-$root/target}/release" "$@"
