#!/usr/bin/env bash
# Unpacks a MySQL 9 server from Debian sid into a folder, with its own C library, so that the tests have a second
# flavour beside the system's MariaDB. Nothing on the system changes.
#
#   scripts/mysql9.sh DIR       ready at once when DIR holds one already; afterwards: VT_MYSQL_ROOT=DIR
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
[ -f "$target/.ready" ] && { cat "$target/.ready"; exit 0; }

mirror=$(sed -nE 's#^(deb +(\[[^]]*\] +)?|URIs: *)(https?://[^ ]+/debian)/?( .*)?$#\3#p' \
  /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1 || true)
[ -n "$mirror" ] || { echo "no Debian mirror among apt's sources" >&2; exit 1; }

# An apt of our own: another suite, an empty package database (so that the C library comes along), own caches. The
# archive's signature is checked as ever.
apt=$target/apt
mkdir -p "$apt"/{state/lists/partial,cache/archives/partial,parts}
: >"$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$apt/sources.list"
cat >"$apt/apt.conf" <<CONF
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/parts";
Dir::Etc::preferences "$apt/none";
Dir::Etc::preferencesparts "$apt/parts";
CONF
export APT_CONFIG=$apt/apt.conf DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --download-only --no-install-recommends install mysql-server-core

root=$target/root
rm -rf "$root"
mkdir -p "$root" "$target/bin"
for package in "$apt"/cache/archives/*.deb; do
  case ${package##*/} in perl* | libperl* | libgdbm* | libdb5*) continue ;; esac # only helper scripts need them
  dpkg-deb -x "$package" "$root"
done
cat >"$target/bin/mysqld" <<WRAPPER
#!/bin/sh
# Starts the unpacked server with its own loader and libraries, never with the system's my.cnf.
root='$root'
lib=\$root/usr/lib/x86_64-linux-gnu
case "\${1:-}" in
--no-defaults | --defaults-file=*) first=\$1; shift ;;
*) first=--no-defaults ;;
esac
exec "\$lib/ld-linux-x86-64.so.2" --argv0 "\$root/usr/sbin/mysqld" \\
  --library-path "\$lib:\$lib/mysql/private:\$root/lib/x86_64-linux-gnu" "\$root/usr/sbin/mysqld" "\$first" \\
  --basedir="\$root/usr" --lc-messages-dir="\$root/usr/share/mysql" --character-sets-dir="\$root/usr/share/mysql/charsets" \\
  --plugin-dir="\$root/usr/lib/mysql/plugin" --secure-file-priv= "\$@"
WRAPPER
chmod +x "$target/bin/mysqld"
version=$("$target/bin/mysqld" --no-defaults --version)
rm -rf "$apt"
echo "Ver ${version##*Ver }" >"$target/.ready"
cat "$target/.ready"
