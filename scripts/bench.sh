#!/usr/bin/env bash
# Measures what vtgate and vttablet cost: sysbench straight to a mysqld and through a vtgate over gRPC and over the framed
# transport to the same mysqld, in turns in one run.
#
#   scripts/bench.sh [--rounds N] [--seconds S] [--threads T] [--rows R] [--only 'WORKLOAD; …'] [--ways direct,grpc,framed]
#   scripts/bench.sh soak [--minutes M] [--clients C]
#   scripts/bench.sh overload [--seconds S] [--clients N,N,…]   goodput with ever more clients
#   scripts/bench.sh clone …       clones against mysqldump | mysql, filtered replication against MariaDB's (--help)
#
# Prints the tables of docs/performance.md: queries/s, latency and CPU-µs per query of vtgate and vttablet, and resident
# memory, with ratios to direct. Machines are shared and noisy: read the ratios and the CPU per query. `soak` runs mixed
# load, kills clients at random, and fails unless connections, transactions, pool slots and memory are back where they began.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/setup.sh"
setup
command -v python3 >/dev/null || install_packages python3
measure=$root/scripts/bench.py
case "${1:-}" in
  soak | clone | overload) measure=$root/scripts/bench/$1.py; shift ;;
esac
command -v sysbench >/dev/null || { say "Installing sysbench"; install_packages sysbench; }
cd "$root"
cargo build --release --bins --quiet
exec python3 "$measure" --bin "${CARGO_TARGET_DIR:-$root/target}/release" "$@"
