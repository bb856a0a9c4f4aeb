#!/usr/bin/env bash
# Installs what a build, a test or the walkthrough needs and this machine lacks. Touches nothing that is there already.
#
#   scripts/setup.sh            what the walkthrough needs
#   scripts/setup.sh --tests    also what only the tests need
#
# Works as root and as a user with sudo. Sourced by the other scripts for `say` and `run_as_root`.
set -euo pipefail

say() { printf '\n== %s\n' "$*"; }

run_as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "ERROR: '$*' needs root, and there is no sudo. Install the packages as root and run this again." >&2
    return 1
  fi
}

# The command `$1`, also where only root's PATH finds it.
have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null; }

# protoc with the files that every other protobuf file imports: Debian has these in a package of their own.
have_protoc() {
  have protoc && [ -e "$(dirname "$(command -v protoc)")/../include/google/protobuf/struct.proto" ]
}

missing_packages() {
  have mariadbd || have mysqld || echo mariadb-server
  have mariadb || have mysql || echo mariadb-client
  have etcd || echo etcd-server
  have etcdctl || echo etcd-client
  have curl || echo curl
  have jq || echo jq
  have pgrep || echo procps
  have hostname || echo hostname
  have cc || echo gcc
  have_protoc || printf '%s\n' protobuf-compiler libprotobuf-dev # etcd-client compiles etcd's protobuf files with it
  if [ "${1:-}" = --tests ]; then
    have python3 || echo python3
    python3 -c 'import pymysql' 2>/dev/null || echo python3-pymysql
    have pip3 || have pip || echo python3-pip
    have chromium || echo chromium
  fi
}

# Packages that start a server of their own when they are installed would take the walkthrough's ports.
install_packages() {
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | run_as_root tee $policy >/dev/null
    run_as_root chmod 755 $policy
    made=yes
  fi
  run_as_root apt-get update -qq || echo "apt-get update failed, going on with the lists that are there" >&2
  local status=0
  run_as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null || status=$?
  [ -z "$made" ] || run_as_root rm -f $policy
  return $status
}

setup() {
  local packages
  mapfile -t packages < <(missing_packages "$@")
  if [ "${#packages[@]}" -gt 0 ]; then
    say "Installing ${packages[*]}"
    install_packages "${packages[@]}"
  fi
  # rustup puts cargo there; a shell that was open before does not know it yet.
  [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
  if ! command -v cargo >/dev/null; then
    echo "ERROR: cargo is not installed. This project needs Rust 1.88 or newer: https://rustup.rs" >&2
    return 1
  fi
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  setup "$@"
fi
