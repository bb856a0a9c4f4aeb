#!/usr/bin/env bash
# Installs what is missing, builds, runs the walkthrough and checks each output. Leaves no process behind.
#
#   scripts/demo.sh               everything
#   VTDATAROOT=DIR scripts/demo.sh    with its data in DIR (default: examples/local/vtdataroot)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/setup.sh"
export VTDATAROOT="${VTDATAROOT:-$root/examples/local/vtdataroot}"
started=no

step_number=0
step_started=$SECONDS
step() {
  [ "$step_number" -eq 0 ] || printf '   (%d s)\n' $((SECONDS - step_started))
  step_number=$((step_number + 1))
  step_started=$SECONDS
  say "Step $step_number: $*"
}

# Ends every process of this run: all of them carry its data directory in their command line.
stop_everything() {
  local signal pids
  for signal in TERM KILL; do
    pids=$(pgrep -f -- "$VTDATAROOT" | grep -vx "$$" || true)
    [ -z "$pids" ] && return
    # shellcheck disable=SC2086
    kill -$signal $pids 2>/dev/null || true
    for _ in $(seq 100); do
      pgrep -f -- "$VTDATAROOT" | grep -vxq "$$" || return 0
      sleep 0.1
    done
  done
}

finish() {
  local status=$?
  trap - EXIT
  if [ $status -ne 0 ]; then
    [ "$started" = yes ] && stop_everything
    printf '\nFAILED at step %d. Logs: %s/tmp, each mysqld'\''s own: %s/vt_*/error.log\n' "$step_number" "$VTDATAROOT" "$VTDATAROOT" >&2
  fi
  exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

# Compares what a command prints with what it should print (standard input) and shows the first difference.
check() {
  local what=$1
  shift
  local expected actual
  expected=$(cat)
  actual=$("$@" 2>&1) || { printf '%s\n' "$actual"; echo "$what: the command failed" >&2; return 1; }
  printf '%s\n' "$actual"
  if [ "$actual" != "$expected" ]; then
    echo "$what: differs from the walkthrough:" >&2
    diff <(printf '%s\n' "$expected") <(printf '%s\n' "$actual") >&2
    return 1
  fi
  echo "   ok: $what"
}

mysql_vtgate() { mysql --no-defaults -h 127.0.0.1 -P 15306 "$@"; }
# Unbuffered, so that what the file echoes stands where it belongs.
from_file() { mysql_vtgate --table --unbuffered <"$1"; }

step "installing what is missing"
setup

step "building (release)"
cd "$root"
cargo build --release --bins --quiet
export PATH="${CARGO_TARGET_DIR:-$root/target}/release:/usr/sbin:$PATH"

step "making sure that nothing is in the way"
if pgrep -f -- "$VTDATAROOT" | grep -vxq "$$"; then
  echo "A cluster is running in $VTDATAROOT; stop it first: examples/local/401_teardown.sh" >&2
  exit 1
fi
for port in 2379 15000 15001 15306 15991 15999 15100 15101 15102 16100 16101 16102 17100 17101 17102; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "Port $port is taken by another program; the walkthrough needs it." >&2
    exit 1
  fi
done
rm -rf "${VTDATAROOT:?}"

started=yes
cd "$root/examples/local"
step "101: etcd, vtctld, keyspace commerce with three tablets, vtgate"
./101_initial_cluster.sh

check "the tables of commerce" mysql_vtgate --table -e 'show tables' <<'END'
+-----------------------+
| Tables_in_vt_commerce |
+-----------------------+
| corder                |
| customer              |
| product               |
+-----------------------+
END

step "the processes"
pgrep -fl vtdataroot || pgrep -fl -- "$VTDATAROOT"

step "inserting customers, products and orders"
check "insert_commerce_data.sql" from_file ../common/insert_commerce_data.sql </dev/null

step "reading them back"
check "select_commerce_data.sql" from_file ../common/select_commerce_data.sql <<'END'
Using commerce/0
Customer
+-------------+--------------------+
| customer_id | email              |
+-------------+--------------------+
|           1 | alice@domain.com   |
|           2 | bob@domain.com     |
|           3 | charlie@domain.com |
|           4 | dan@domain.com     |
|           5 | eve@domain.com     |
+-------------+--------------------+
Product
+----------+-------------+-------+
| sku      | description | price |
+----------+-------------+-------+
| SKU-1001 | Monitor     |   100 |
| SKU-1002 | Keyboard    |    30 |
+----------+-------------+-------+
COrder
+----------+-------------+----------+-------+
| order_id | customer_id | sku      | price |
+----------+-------------+----------+-------+
|        1 |           1 | SKU-1001 |   100 |
|        2 |           2 | SKU-1002 |    30 |
|        3 |           3 | SKU-1002 |    30 |
|        4 |           4 | SKU-1002 |    30 |
|        5 |           5 | SKU-1002 |    30 |
+----------+-------------+----------+-------+
END

step "the tablets"
./lvtctl.sh ListAllTablets zone1

step "401: stopping everything"
./401_teardown.sh
started=no
if pgrep -fl -- "$VTDATAROOT" | grep -v "^$$ "; then
  echo "401 left these processes behind." >&2
  exit 1
fi

printf '   (%d s)\n\nPASSED: every output is as in the walkthrough, and no process is left. %d s in all.\n' $((SECONDS - step_started)) $SECONDS
