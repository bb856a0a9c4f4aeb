#!/usr/bin/env bash
# Runs one test program for cargo, within a limit of time, and ends what it leaves running.
#
#   scripts/test_runner.sh PROGRAM [ARGUMENT…]
#
# VT_TEST_LIMIT is the limit of one program in seconds, VT_TEST_END the moment (seconds since 1970) at which all have to
# be done. A program that is stopped counts as one failed test in the summary of scripts/test.sh. VT_TEST_TIMES is a file that gets
# a line with the seconds that the program took.
set -uo pipefail

limit=${VT_TEST_LIMIT:-600}
if [ -n "${VT_TEST_END:-}" ]; then
  left=$((VT_TEST_END - $(date +%s)))
  [ "$left" -gt 1 ] || left=1
  [ "$left" -gt "$limit" ] || limit=$left
fi

started=$SECONDS
# timeout makes a process group of its own: all that the program starts is in it, unless it leaves like a daemon.
timeout --kill-after=10 "$limit" "$@" &
group=$!
wait "$group"
status=$?
if [ -n "${VT_TEST_TIMES:-}" ]; then
  name=${1##*/}
  echo "$((SECONDS - started)) s ${name%-*}" >>"$VT_TEST_TIMES"
fi
left=$(ps -eo pgid=,stat=,args= | awk -v group="$group" '$1 == group && $2 !~ /^Z/')
if [ -n "$left" ]; then
  kill -KILL -- "-$group" 2>/dev/null
  printf '%s left processes running, which were killed:\n%s\n' "${1##*/}" "$left" >&2
fi
if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
  echo "${1##*/} was stopped after $((SECONDS - started)) s"
  echo "test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; stopped at its limit of $limit s"
fi
exit "$status"
