#!/usr/bin/env bash
# Tries install.sh and the units: installed below a scratch folder, verified by systemd-analyze, the
# sandbox rated, and the commands of the backup unit run as they stand, with their rotation. No
# service of this system is touched. Needs systemd-analyze.
#
#   scripts/systemd/test.sh [path/to/configsync-server]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
scratch=$(mktemp -d)
pid=
finish() { [ -z "$pid" ] || { kill "$pid" 2>/dev/null || true; wait "$pid" || true; }; rm -rf "$scratch"; }
trap finish EXIT
fail() { echo "systemd test FAILED: $*" >&2; exit 1; }
command -v systemd-analyze >/dev/null || { echo "skipped: no systemd-analyze here"; exit 77; }
binary=${1:-}
if [ -z "$binary" ]; then
  (cd "$root" && cargo build --release --quiet)
  binary="${CARGO_TARGET_DIR:-$root/target}/release/configsync-server"
fi

DESTDIR="$scratch" "$root/scripts/install.sh" "$binary" >/dev/null
DESTDIR="$scratch" "$root/scripts/install.sh" "$binary" >/dev/null || fail "a second run, which upgrades"
units=$scratch/etc/systemd/system
[ "$(stat -c %a "$scratch/var/lib/configsync-server")" = 700 ] || fail "the data folder is open"
for unit in "$units"/*; do
  # systemd-analyze looks for the program where the unit says.
  sed -i "s,/usr/local/bin/,$scratch/usr/local/bin/,g" "$unit"
  found=$(systemd-analyze verify --man=no "$unit" 2>&1 | grep -F "${unit##*/}" || true)
  [ -z "$found" ] || fail "$found"
done
grep -qx 'RestartPreventExitStatus=2' "$units/configsync-server.service" || fail "a wrong setting restarts for ever"
for unit in server backup check; do
  rated=$(systemd-analyze security --offline=true --no-pager "$units/configsync-$unit.service" 2>/dev/null | tail -1)
  echo "configsync-$unit: ${rated#*: }"
done

# The backup unit's own lines, as systemd reads them: $$ is $, %% is %.
line() { sed -n "s/^$1=//p" "$units/configsync-backup.service" | sed 's/\$\$/$/g; s/%%/%/g'; }
export CONFIGSYNC_DATA="$scratch/var/lib/configsync-server" BACKUPS="$scratch/var/backups/configsync-server" KEEP=2
"$binary" serve --listen 127.0.0.1:0 --init-user you@example.com >"$scratch/out" 2>"$scratch/log" & pid=$!
for _ in $(seq 100); do grep -q '^configsync-server listening' "$scratch/out" && break; sleep 0.1; done
mkdir "$BACKUPS/2000-01-01T000000Z"
touch "$BACKUPS/2000-01-01T000000Z/cut-off"
for _ in 1 2 3; do
  for step in ExecStartPre ExecStart ExecStopPost; do bash -c "$(line "$step")" >>"$scratch/backup.log" || fail "$step: $(cat "$scratch/backup.log")"; done
  sleep 1.1
done
[ "$(find "$BACKUPS" -mindepth 1 -maxdepth 1 | wc -l)" = 2 ] || fail "not two backups: $(ls "$BACKUPS")"
for copy in "$BACKUPS"/*Z; do "$binary" check --data "$copy" >/dev/null || fail "$copy is not whole"; done
"$binary" check >/dev/null || fail check
"$binary" status || fail "status, after a backup"
DESTDIR="$scratch" "$root/scripts/install.sh" --uninstall >/dev/null
[ -z "$(ls "$units")" ] && [ -d "$CONFIGSYNC_DATA" ] && [ -d "$BACKUPS" ] || fail "uninstall takes the units and leaves the data"
echo "systemd test passed"
