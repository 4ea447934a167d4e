#!/usr/bin/env bash
# Tries the alert rules: with promtool on made-up series, then for a minute with a fresh Prometheus on
# a fresh server, where none may fire and every series that a rule names must exist.
#
#   scripts/monitoring/test.sh [path/to/configsync-server]
#
# Needs curl, python3, prometheus and promtool (Debian: apt-get install prometheus). Exit code 77: one
# of them is missing, and nothing was tried.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
for program in curl python3 prometheus promtool; do
  command -v "$program" >/dev/null || { echo "skipped: $program is missing" >&2; exit 77; }
done
binary=${1:-}
if [ -z "$binary" ]; then
  (cd "$root" && cargo build --quiet)
  binary="${CARGO_TARGET_DIR:-$root/target}/debug/configsync-server"
fi
scratch=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$scratch"
}
trap finish EXIT
fail() { echo "monitoring test FAILED: $*" >&2; exit 1; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_for() { for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; fail "never came: $*"; }

echo "== rules on made-up series"
cp "$here"/*.yml "$scratch"
(cd "$scratch" && promtool check config prometheus.yml >/dev/null && promtool test rules alerts.test.yml >/dev/null) ||
  fail "promtool test rules scripts/monitoring/alerts.test.yml"

echo "== a minute with a fresh Prometheus on a fresh server"
metrics=127.0.0.1:$(free_port) web=127.0.0.1:$(free_port)
"$binary" serve --data "$scratch/data" --listen 127.0.0.1:0 --metrics "$metrics" >"$scratch/out" 2>"$scratch/log" &
pids+=($!)
wait_for grep -q '^configsync-server listening' "$scratch/out"
curl -fsS "http://$metrics/metrics" >"$scratch/metrics" || fail "no metrics"
promtool check metrics <"$scratch/metrics" || fail "promtool check metrics"
# A series with labels has no row yet, and its description all the same.
grep -oE "configsync_[a-z_]+" "$here/alerts.yml" | sort -u | while read -r series; do
  grep -q "^# TYPE $series " "$scratch/metrics" || fail "a rule names $series, which there is not"
done
sed -i -e "s/127.0.0.1:9787/$metrics/" -e 's/: 30s/: 1s/' "$scratch/prometheus.yml"
prometheus --config.file "$scratch/prometheus.yml" --storage.tsdb.path "$scratch/tsdb" --web.listen-address "$web" 2>"$scratch/prometheus.log" &
pids+=($!)
wait_for curl -fs "http://$web/-/ready"
ask() { curl -fsS "http://$web/api/v1/$1" | python3 -c "import json, sys; data = json.load(sys.stdin)['data']; print($2)"; }
scrapes() { ask 'query?query=count_over_time(up%5B2m%5D)' "next((int(row['value'][1]) for row in data['result']), 0)"; }
until [ "$(scrapes)" -ge 60 ]; do sleep 1; done
[ "$(ask targets "[t['health'] for t in data['activeTargets']]")" = "['up']" ] || fail "the target is not up"
[ "$(ask alerts "[a['labels']['alertname'] for a in data['alerts'] if a['state'] == 'firing']")" = "[]" ] || fail "an alert fires"
[ "$(ask rules "[r['name'] for g in data['groups'] for r in g['rules'] if r['health'] != 'ok']")" = "[]" ] || fail "a rule cannot be evaluated"
echo "== monitoring test passed"
