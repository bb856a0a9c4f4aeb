#!/usr/bin/env bash
# Installs what is missing, builds, runs the walkthrough and checks each output. Leaves no process behind.
#
#   scripts/demo.sh                       everything
#   VTDATAROOT=DIR scripts/demo.sh        with its data in DIR (default: examples/local/vtdataroot)
#   VT_MYSQL_ROOT=DIR scripts/demo.sh     on the mysqld in DIR/bin (scripts/mysql9.sh DIR makes one) instead of the system's
#
# The tests run it with these:
#   --bin DIR         use the programs in DIR, install and build nothing
#   --until STAGE     go to 401 after this stage
#   --after COMMAND   after each stage and its checks, run COMMAND with the stage's number
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/setup.sh"
export VTDATAROOT="${VTDATAROOT:-$root/examples/local/vtdataroot}"
started=no
# As tablets register: examples/local/env.sh.
host=$(hostname -f 2>/dev/null) || host=127.0.0.1

bin='' until=307 after=''
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=$(cd "$2" && pwd) ;;
    --until) until=$2 ;;
    --after) after=$2 ;;
    *) echo "usage: $0 [--bin DIR] [--until STAGE] [--after COMMAND]" >&2; exit 2 ;;
  esac
  shift 2
done

step_number=0
step_started=$SECONDS
step() {
  [ "$step_number" -eq 0 ] || printf '   (%d s)\n' $((SECONDS - step_started))
  step_number=$((step_number + 1))
  step_started=$SECONDS
  say "Step $step_number: $*"
}

# Runs one script of the walkthrough and the checks that follow it, which is a function named `after_STAGE`, if it is
# there: `stage SCRIPT WHAT`.
stage() {
  local number=${1%%_*}
  [ "$number" -le "$until" ] || return 0
  step "$number: $2"
  "./$1"
  if declare -F "after_$number" >/dev/null; then "after_$number"; fi
  if [ -n "$after" ]; then "$after" "$number"; fi
}

# Ends every process of this run: all of them carry its data directory in their command line.
stop_everything() {
  local signal pids
  for signal in TERM KILL; do
    pids=$(pgrep -f -- "$VTDATAROOT" | grep -vx "$$" || true)
    # In a trap, `return` alone would return what went wrong before it.
    [ -z "$pids" ] && return 0
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

# Compares what a command prints with what it should print (standard input, where <host> is this machine) and shows the
# first difference. A command whose expected output ends with an error has to fail, any other to succeed.
check() {
  local what=$1 status=0 wanted=0
  shift
  local expected actual
  expected=$(sed "s#<host>#$host#g")
  [[ "$expected" == *$'\n'ERROR* ]] && wanted=1
  # MariaDB's client repeats a statement that failed between two rules, MySQL's does not.
  actual=$("$@" 2>&1 | sed -e '/^--------------$/,/^--------------$/d' -e '/^$/d'; exit "${PIPESTATUS[0]}") || status=1
  printf '%s\n' "$actual"
  if [ "$status" -ne "$wanted" ]; then
    echo "$what: the command $([ "$status" -eq 0 ] && echo succeeded || echo failed), it should not" >&2
    return 1
  fi
  if [ "$actual" != "$expected" ]; then
    echo "$what: differs from the walkthrough:" >&2
    diff <(printf '%s\n' "$expected") <(printf '%s\n' "$actual") >&2
    return 1
  fi
  echo "   ok: $what"
}

mysql_vtgate() { mysql --no-defaults -h 127.0.0.1 -P 15306 "$@"; }

# Whether tables hold the same rows on two mysqlds: `same_tables UID DATABASE UID DATABASE TABLE…`.
same_tables() {
  local from=$1 from_db=$2 to=$3 to_db=$4 table a b
  shift 4
  for table in "$@"; do
    a=$(checksum "$from" "$from_db" "$table")
    b=$(checksum "$to" "$to_db" "$table")
    if [ -z "$a" ] || [ "$a" != "$b" ]; then
      echo "CHECKSUM TABLE $table: $from has '$a', $to has '$b'" >&2
      return 1
    fi
    echo "   ok: CHECKSUM TABLE $table is $a on zone1-$from and zone1-$to"
  done
}
checksum() {
  mysql --no-defaults -u vt_dba -S "$(printf '%s/vt_%010d/mysql.sock' "$VTDATAROOT" "$1")" -N -B -e "checksum table $2.$3" | cut -f2
}
# Unbuffered, so that what the file echoes stands where it belongs.
from_file() { mysql_vtgate --table --unbuffered <"$1"; }

# What the walkthrough shows after its stages. Bodies with here-documents are not indented.
after_101() {
check "the tables of commerce" mysql_vtgate --table -e 'show tables' <<'END'
+-----------------------+
| Tables_in_vt_commerce |
+-----------------------+
| corder                |
| customer              |
| product               |
+-----------------------+
END
echo "   the processes:"
pgrep -fl vtdataroot || pgrep -fl -- "$VTDATAROOT"
check "insert_commerce_data.sql" from_file ../common/insert_commerce_data.sql </dev/null
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
./lvtctl.sh ListAllTablets zone1
}

after_203() {
check "select_customer0_data.sql" from_file ../common/select_customer0_data.sql <<'END'
Using customer/0
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
same_tables 100 vt_commerce 200 vt_customer customer corder
}

after_205() {
check "commerce no longer serves customers" from_file ../common/select_commerce_data.sql <<'END'
Using commerce/0
Customer
ERROR 1105 (HY000) at line 4: vtgate: http://<host>:15001/: target: commerce.0.master, used tablet: zone1-100 (<host>): vttablet: rpc error: code = FailedPrecondition desc = disallowed due to rule: enforce blacklisted tables (CallerID: userData1)
END
}

after_206() {
check "commerce no longer has customers" from_file ../common/select_commerce_data.sql <<'END'
Using commerce/0
Customer
ERROR 1105 (HY000) at line 4: vtgate: http://<host>:15001/: target: commerce.0.master, used tablet: zone1-100 (<host>): vttablet: rpc error: code = InvalidArgument desc = table customer not found in schema (CallerID: userData1)
END
}

after_302() {
check "select_customer-80_data.sql" from_file ../common/select_customer-80_data.sql <<'END'
Using customer/-80
Customer
COrder
END
check "select_customer80-_data.sql" from_file ../common/select_customer80-_data.sql <<'END'
Using customer/80-
Customer
COrder
END
}

after_305() {
check "select_customer-80_data.sql" from_file ../common/select_customer-80_data.sql <<'END'
Using customer/-80
Customer
+-------------+--------------------+
| customer_id | email              |
+-------------+--------------------+
|           1 | alice@domain.com   |
|           2 | bob@domain.com     |
|           3 | charlie@domain.com |
|           5 | eve@domain.com     |
+-------------+--------------------+
COrder
+----------+-------------+----------+-------+
| order_id | customer_id | sku      | price |
+----------+-------------+----------+-------+
|        1 |           1 | SKU-1001 |   100 |
|        2 |           2 | SKU-1002 |    30 |
|        3 |           3 | SKU-1002 |    30 |
|        5 |           5 | SKU-1002 |    30 |
+----------+-------------+----------+-------+
END
check "select_customer80-_data.sql" from_file ../common/select_customer80-_data.sql <<'END'
Using customer/80-
Customer
+-------------+----------------+
| customer_id | email          |
+-------------+----------------+
|           4 | dan@domain.com |
+-------------+----------------+
COrder
+----------+-------------+----------+-------+
| order_id | customer_id | sku      | price |
+----------+-------------+----------+-------+
|        4 |           4 | SKU-1002 |    30 |
+----------+-------------+----------+-------+
END
}

after_307() {
  if ./lvtctl.sh GetShard customer/0 2>/dev/null; then
    echo "customer/0 is still in the topology." >&2
    return 1
  fi
}

if [ -z "$bin" ]; then
  step "installing what is missing"
  setup

  step "building (release)"
  cd "$root"
  cargo build --release --bins --quiet
  bin="${CARGO_TARGET_DIR:-$root/target}/release"
fi
export PATH="${VT_MYSQL_ROOT:+$VT_MYSQL_ROOT/bin:}$bin:/usr/sbin:$PATH"

step "making sure that nothing is in the way"
if pgrep -f -- "$VTDATAROOT" | grep -vxq "$$"; then
  echo "A cluster is running in $VTDATAROOT; stop it first: examples/local/401_teardown.sh" >&2
  exit 1
fi
for port in 2379 15000 15001 15306 15991 15999 1{5,6,7}{1,2,3,4}0{0,1,2}; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "Port $port is taken by another program; the walkthrough needs it." >&2
    exit 1
  fi
done
rm -rf "${VTDATAROOT:?}"

started=yes
cd "$root/examples/local"
stage 101_initial_cluster.sh "etcd, vtctld, keyspace commerce with three tablets, vtgate"
stage 201_customer_keyspace.sh "a keyspace for customers, served from commerce until they have moved"
stage 202_customer_tablets.sh "its three tablets and its schema"
stage 203_vertical_split.sh "copying customer and corder there"
stage 204_vertical_migrate_replicas.sh "the rdonly and replica tablets of customer serve"
stage 205_vertical_migrate_master.sh "the master of customer serves"
stage 206_clean_commerce.sh "dropping the tables that moved from commerce"
stage 301_customer_sharded.sh "sequences and vindexes for customer"
stage 302_new_shards.sh "the tablets of customer/-80 and customer/80-"
stage 303_horizontal_split.sh "copying customers and orders to the shards that will hold them"
stage 304_migrate_replicas.sh "the rdonly and replica tablets of the new shards serve"
stage 305_migrate_master.sh "the masters of the new shards serve"
stage 306_down_shard_0.sh "stopping the tablets of customer/0"
stage 307_delete_shard_0.sh "removing customer/0 from the topology"

step "401: stopping everything"
./401_teardown.sh
started=no
if pgrep -fl -- "$VTDATAROOT" | grep -v "^$$ "; then
  echo "401 left these processes behind." >&2
  exit 1
fi

printf '   (%d s)\n\nPASSED: every output is as in the walkthrough, and no process is left. %d s in all.\n' $((SECONDS - step_started)) $SECONDS
