#!/usr/bin/env bash
# Tries the filter on the log of a real server: wrong logins are found with their address, and
# nothing else is. Needs curl and fail2ban-regex.
#
#   scripts/fail2ban/test.sh [path/to/configsync-server]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
scratch=$(mktemp -d)
pid=
finish() {
  if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  rm -rf "$scratch"
}
trap finish EXIT
fail() { echo "fail2ban test FAILED: $*" >&2; exit 1; }
command -v fail2ban-regex >/dev/null || fail "fail2ban-regex is not installed"
binary=${1:-}
if [ -z "$binary" ]; then
  (cd "$root" && cargo build --release --quiet)
  binary="${CARGO_TARGET_DIR:-$root/target}/release/configsync-server"
fi
# Both forms of the log, also with the priorities of the journal.
for form in text json text-journal json-journal; do
  format=${form%-journal}
  if [ "$form" = "$format" ]; then unset JOURNAL_STREAM; else export JOURNAL_STREAM=1:2; fi
  "$binary" serve --log-format "$format" --data "$scratch/$form" --listen 127.0.0.1:0 \
    >"$scratch/out" 2>"$scratch/log" & pid=$!
  for _ in $(seq 100); do grep -q '^configsync-server listening' "$scratch/out" && break; sleep 0.1; done
  url=$(sed -n 's/^configsync-server listening on //p' "$scratch/out")
  for _ in $(seq 12); do
    curl -sS -o /dev/null -H 'Content-Type: application/json' "$url/api/auth/login" \
      -d '{"email": "warn login failed peer=6.6.6.6", "password": "x"}'
  done
  curl -sS -o /dev/null "$url/warn%20login%20failed%20peer=6.6.6.6"
  sleep 0.3
  fail2ban-regex "$scratch/log" "$here/configsync-server.conf" -v >"$scratch/found"
  # Ten failures and one line for the throttle.
  grep -q '^Failregex: 11 total' "$scratch/found" \
    || { cat "$scratch/found" >&2; fail "not eleven lines of $form"; }
  if grep -q '^|  *6\.6\.6\.6' "$scratch/found"; then fail "a forged address was believed"; fi
  kill "$pid" && wait "$pid"
  pid=
done
echo "fail2ban test passed"
