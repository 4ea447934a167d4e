#!/usr/bin/env bash
# What test.sh does in the throw-away root, where the package and nothing else is new.
set -euo pipefail
package=$1/configsync-server.deb
data=/var/lib/configsync-server backups=/var/backups/configsync-server
fail() { echo "package test FAILED: $*" >&2; exit 1; }
say() { echo "== $*"; }
install_it() { DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i "$package" >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; fail "$1"; }; }
as_service=(setpriv --reuid configsync --regid configsync --init-groups env CONFIGSYNC_DATA="$data")
# No service starts, whatever this system thinks of itself.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d

say "install"
install_it install
for folder in "$data" "$data.stage" "$backups"; do
  [ "$(stat -c '%a %U %G' "$folder")" = '700 configsync configsync' ] || fail "$(stat "$folder")"
done
[ "$(getent passwd configsync | cut -d : -f 7)" = /usr/sbin/nologin ] || fail "the user may log in"
if command -v systemd-analyze >/dev/null; then
  for unit in /usr/lib/systemd/system/configsync-*; do
    # Units of this system that miss something are none of ours.
    systemd-analyze verify "$unit" 2>&1 | grep -i configsync && fail "$unit"
  done
  for wanted in multi-user.target.wants/configsync-server.service timers.target.wants/configsync-backup.timer timers.target.wants/configsync-check.timer; do
    [ -e "/etc/systemd/system/$wanted" ] || fail "$wanted is not enabled"
  done
fi

say "serve, as the unit does"
serve() {
  "${as_service[@]}" configsync-server serve --listen 127.0.0.1:0 >/tmp/out 2>/tmp/log & server=$!
  for _ in $(seq 200); do grep -q '^configsync-server listening' /tmp/out && return; sleep 0.05; done
  cat /tmp/log
  fail "it does not start"
}
serve
"${as_service[@]}" configsync-server user add you@example.com >/dev/null
token=$("${as_service[@]}" configsync-server token create you@example.com --name laptop)
kill "$server"
wait "$server"

say "man page"
MANWIDTH=100 man --warnings configsync-server >/tmp/man 2>/tmp/man.warnings
[ ! -s /tmp/man.warnings ] || { cat /tmp/man.warnings; fail "warnings of man"; }
configsync-server help | sed -nE 's/^  ([a-z]+( [a-z]+)?)  +.*/\1/p' >/tmp/commands
[ "$(wc -l </tmp/commands)" -gt 15 ] || fail "the help is read wrongly"
while read -r name; do
  grep -q "^   $name\$" /tmp/man || fail "no $name in the man page"
  # shellcheck disable=SC2086  # two words
  configsync-server $name --help | grep -oE -- '--[a-z][a-z-]*' | sort -u >"/tmp/flags-$name"
  while read -r flag; do
    grep -q -- "$flag" /tmp/man || fail "no $flag in the man page"
  done <"/tmp/flags-$name"
done </tmp/commands

say "settings: every flag of serve but two"
while read -r flag; do
  variable=CONFIGSYNC$(tr a-z- A-Z_ <<<"${flag#-}")
  case $flag in
    --data | --init-user) if grep -q "$variable=" /etc/default/configsync-server; then fail "$flag is the unit's"; fi ;;
    *) grep -q "^#$variable=" /etc/default/configsync-server || fail "no $variable" ;;
  esac
done < <(configsync-server serve --help | grep -oE '^  --[a-z-]+' | tr -d ' ')

say "completion: every command and every flag"
# shellcheck source=/dev/null
. /usr/share/bash-completion/completions/configsync-server
complete_line() { # words before the cursor, the last one being typed
  COMP_WORDS=(configsync-server "$@") COMP_CWORD=$#
  _configsync_server
  printf '%s\n' "${COMPREPLY[@]-}"
}
while read -r first second; do
  complete_line "${first:0:3}" | grep -qx -- "$first" || fail "$first is not completed"
  [ -z "$second" ] || complete_line "$first" "${second:0:2}" | grep -qx -- "$second" || fail "$first $second is not completed"
  while read -r flag; do
    # shellcheck disable=SC2086  # two words or one
    complete_line $first $second "$flag" | grep -qx -- "$flag" || fail "$first $second $flag is not completed"
  done <"/tmp/flags-$first${second:+ $second}"
done </tmp/commands
[ -z "$(complete_line restore "")" ] || fail "folders are left to bash"

say "upgrade: settings and data stay"
echo 'CONFIGSYNC_KEEP=7' >>/etc/default/configsync-server
install_it upgrade
grep -qx 'CONFIGSYNC_KEEP=7' /etc/default/configsync-server || fail "the settings were replaced"
serve
[ "$("${as_service[@]}" configsync-server token list | wc -l)" = 1 ] || fail "the token is gone: $token"
kill "$server"
wait "$server"
"${as_service[@]}" configsync-server backup "$backups/one"

say "an off-site copy comes back, with the settings in place"
settings=/etc/configsync/offsite.env
[ "$(stat -c '%a %U' "$settings")" = '600 configsync' ] || fail "$(stat "$settings")"
if command -v restic >/dev/null; then
  install -d -m 0700 -o configsync -g configsync /var/copies
  sed -i 's,^RESTIC_REPOSITORY=.*,RESTIC_REPOSITORY=/var/copies/one,; s,^RESTIC_PASSWORD=.*,RESTIC_PASSWORD=secret,' "$settings"
  for command in init copy drill; do "${as_service[@]}" configsync-offsite "$command" || fail "off-site $command"; done
  [ -s "$data/offsite.last" ] || fail "no time of the copy"
fi

say "remove and purge: data, backups and their owner stay"
for how in --remove --purge; do
  dpkg "$how" configsync-server >/tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; fail "$how"; }
  [ ! -e /usr/bin/configsync-server ] || fail "the program is still there"
  for kept in "$data/configsync.db" "$backups/one/configsync.db"; do [ -e "$kept" ] || fail "$how deleted $kept"; done
  id configsync >/dev/null || fail "$how deleted the user"
done
grep -q "$data stays" /tmp/dpkg.log || fail "the purge says nothing of the data"
[ ! -e /etc/default/configsync-server ] || fail "the settings stay after a purge"
