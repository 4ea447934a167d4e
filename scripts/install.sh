#!/usr/bin/env bash
# Installs configsync-server as a systemd service: a user, the data folder, the units. Running it
# again upgrades the binary and the units and changes nothing else.
#
#   sudo scripts/install.sh path/to/configsync-server
#   sudo scripts/install.sh --offsite              # copies on object storage: docs/offsite.md
#   sudo scripts/install.sh --uninstall            # keeps the data folder and the user
#
# DESTDIR=/some/root installs below that folder and calls neither useradd nor systemctl.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${DESTDIR:-}
bin="$root/usr/local/bin/configsync-server"
units="$root/etc/systemd/system"
data="$root/var/lib/configsync-server"
backups="$root/var/backups/configsync-server"
names=(configsync-server.service configsync-backup.service configsync-backup.timer
  configsync-check.service configsync-check.timer)
timers=(configsync-backup.timer configsync-check.timer)
offsite_names=(configsync-offsite@.service configsync-offsite-copy.timer configsync-offsite-drill.timer)

fail() { echo "install: $*" >&2; exit 1; }
system() { if [ -z "$root" ]; then "$@"; fi; }
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "run it as root (sudo)"

if [ "${1:-}" = --uninstall ]; then
  for name in "${offsite_names[@]:1}" "${timers[@]}" configsync-server.service; do
    system systemctl disable --now "$name" 2>/dev/null || true
  done
  for name in "${names[@]}" "${offsite_names[@]}"; do rm -f "$units/$name"; done
  rm -f "$bin" "$root/usr/local/bin/configsync-offsite"
  system systemctl daemon-reload
  echo "removed; the data stays in $data and the backups in $backups"
  exit 0
fi

owner=()
if [ -z "$root" ]; then owner=(-o configsync -g configsync); fi

if [ "${1:-}" = --offsite ]; then
  [ -x "$bin" ] || fail "install the server first: install.sh path/to/configsync-server"
  settings="$root/etc/configsync/offsite.env"
  install -d -m 0755 "$root/etc/configsync"
  # Beside the data, for hard links; the service's user may make nothing in /var/lib.
  install -d -m 0700 "${owner[@]}" "$data.stage"
  [ -e "$settings" ] || install -m 0600 "${owner[@]}" "$here/offsite/offsite.env" "$settings"
  install -m 0755 "$here/offsite/offsite" "$root/usr/local/bin/configsync-offsite"
  for name in "${offsite_names[@]}"; do install -m 0644 "$here/offsite/$name" "$units/$name"; done
  system systemctl daemon-reload
  command -v restic >/dev/null || echo "install restic too: apt install restic"
  cat <<EOF
installed. Fill in $settings, then make the repository and the first copy, and start the timers:
  sudo -u configsync configsync-offsite init
  sudo -u configsync configsync-offsite
  sudo systemctl enable --now ${offsite_names[*]:1}
EOF
  exit 0
fi

[ $# = 1 ] || fail "usage: install.sh path/to/configsync-server | --offsite | --uninstall"
[ -x "$1" ] || fail "$1 is no program: build it with cargo build --release"
"$1" --version >/dev/null || fail "$1 does not run on this machine"

if [ -z "$root" ] && ! id configsync >/dev/null 2>&1; then
  useradd --system --home-dir "$data" --no-create-home --shell /usr/sbin/nologin configsync
fi
install -d -m 0755 "$root/usr/local/bin" "$units"
install -d -m 0700 "${owner[@]}" "$data" "$backups"
# Beside and renamed: a running server keeps the file it was started from.
install -m 0755 "$1" "$bin.new"
mv -f "$bin.new" "$bin"
for name in "${names[@]}"; do install -m 0644 "$here/systemd/$name" "$units/$name"; done
system systemctl daemon-reload
system systemctl enable --now configsync-server.service "${timers[@]}"
system systemctl restart configsync-server.service
cat <<EOF
installed. Make the first user and a token:
  sudo -u configsync configsync-server user add you@example.com --data $data
  sudo -u configsync configsync-server token create you@example.com --name laptop --data $data
Settings: lines such as CONFIGSYNC_KEEP=50 in /etc/default/configsync-server
Log: journalctl -u configsync-server
EOF
