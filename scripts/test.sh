#!/usr/bin/env bash
# Sets the machine up and runs every check: format, clippy, all tests. Ends with the test runner's own summary.
#
#   scripts/test.sh                 everything
#   scripts/test.sh NAME…           only the tests whose names hold NAME (passed on to the test runner)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/setup.sh"
cd "$root"

say "Set-up"
setup --tests
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}

say "Format"
cargo fmt --all --check

say "Clippy"
cargo clippy --workspace --all-targets --quiet -- -D warnings

say "Shell scripts"
for script in scripts/*.sh examples/local/*.sh .ci/run; do bash -n "$script"; done

mkdir -p "$root/target"

say "Build"
cargo build --workspace --all-targets --quiet

# The second flavour. Tests that want it look for VT_TEST_MYSQL9_ROOT and say loudly when they are skipped.
mysql9=${VT_TEST_MYSQL9_ROOT:-$root/target/mysql9}
if "$root/scripts/mysql9.sh" "$mysql9" >"$root/target/mysql9.log" 2>&1; then
  export VT_TEST_MYSQL9_ROOT=$mysql9
else
  say "WARNING: no MySQL 9 here ($(tail -n 1 "$root/target/mysql9.log")); ITS TESTS ARE SKIPPED"
fi
# Client libraries for the tests that talk to vtgate as applications do.
pydeps=$root/target/pydeps
if [ ! -e "$pydeps/mysql/connector/__init__.py" ]; then
  python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$pydeps" pymysql mysql-connector-python ||
    say "WARNING: PyPI's MySQL clients could not be installed; THEIR TESTS ARE SKIPPED"
fi
export VT_TEST_PYTHONPATH=$pydeps

say "Tests, after $((SECONDS / 60)) minutes"
log=$root/target/test.log
status=0
# What hangs is ended and counted as failed, so that the others are run and the summary comes.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=$root/scripts/test_runner.sh
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$root/scripts/test_runner.sh
export VT_TEST_LIMIT=${VT_TEST_LIMIT:-600}
export VT_TEST_END=${VT_TEST_END:-$(($(date +%s) - SECONDS + 75 * 60))}
export VT_TEST_TIMES=$root/target/test-times.log
rm -f "$VT_TEST_TIMES"
cargo test --workspace --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

[ -e "$VT_TEST_TIMES" ] && say "The longest" && sort -rn "$VT_TEST_TIMES" | sed -n 1,12p
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
     END { printf "\n%d passed, %d failed, %d skipped", passed, failed, ignored }' "$log"
echo ", $((SECONDS / 60)) minutes"
exit $status
