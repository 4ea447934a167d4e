#!/usr/bin/env bash
# Tries the proxy configurations of this folder, word for word but for names, ports and
# certificates, over TLS in front of a real server: bodies of 30 MiB, pulls, 304, HEAD, keep-alive
# after an idle pause, chunked uploads, limits, the page's requests and those of other web sites, and
# whose address is counted. Fails loudly.
#
#   scripts/proxy/test.sh [path/to/configsync-server]
#
# Needs curl, openssl, and nginx or caddy (both are tried where both are installed). Exit code 77:
# something is missing, and nothing was tried.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
scratch=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$scratch"
}
trap finish EXIT
fail() { echo "proxy test FAILED: $*" >&2; exit 1; }
say() { echo "== $*"; }

missing() { echo "skipped: $* is missing" >&2; exit 77; }
for program in curl openssl python3; do command -v "$program" >/dev/null || missing "$program"; done
command -v nginx >/dev/null || command -v caddy >/dev/null || missing "nginx or caddy"

binary=${1:-}
if [ -z "$binary" ]; then
  (cd "$root" && cargo build --release --quiet)
  binary="${CARGO_TARGET_DIR:-$root/target}/release/configsync-server"
fi
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_for() { for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; fail "never came: $*"; }

say "a server"
"$binary" serve --data "$scratch/data" --listen 127.0.0.1:0 --init-user you@example.com \
  --trusted-proxy 127.0.0.1 --idle-timeout 4 >"$scratch/out" 2>"$scratch/log" &
pids+=($!)
wait_for grep -q '^configsync-server listening' "$scratch/out"
server=$(sed -n 's/^configsync-server listening on http:\/\///p' "$scratch/out")
token=$(grep -m1 '^cs_' "$scratch/out")
head -c $((30 * 1024 * 1024)) /dev/urandom >"$scratch/state"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout "$scratch/key.pem" -out "$scratch/cert.pem" 2>/dev/null
export CURL_CA_BUNDLE="$scratch/cert.pem"
{ printf '{"machine_id": "m", "encrypted_state": "'; head -c $((20 * 1024 * 1024)) /dev/urandom | base64 -w0; printf '"}'; } >"$scratch/json"

status() { curl -sS -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $token" "$@"; }
expect() { local want=$1 got; shift; got=$(status "$@"); [ "$got" = "$want" ] || fail "$got instead of $want: $*"; }

try() { # name url
  local name=$1 url=$2
  say "$name: machine, push of 30 MiB raw and 20 MiB as JSON, pull"
  status -H 'Content-Type: application/json' -d '{"machine_id": "m", "name": "m"}' "$url/api/machines" | grep -q '20[01]' || fail register
  head -c 16 /dev/urandom >>"$scratch/state"
  expect 201 -H 'Content-Type: application/octet-stream' --data-binary @"$scratch/state" "$url/api/machines/snapshot?machine_id=m"
  curl -sS -H "Authorization: Bearer $token" -H 'Accept: application/octet-stream' "$url/api/machines/snapshot" -o "$scratch/pulled" -D "$scratch/head"
  cmp "$scratch/state" "$scratch/pulled" || fail "other bytes"
  etag=$(tr -d '\r' <"$scratch/head" | sed -n 's/^[Ee][Tt][Aa][Gg]: //p')
  [ -n "$etag" ] || fail "no ETag"
  status -H 'Content-Type: application/json' --data-binary @"$scratch/json" "$url/api/machines/snapshot" | grep -q '20[01]' || fail "JSON push"
  expect 200 -H 'Content-Type: application/octet-stream' "$url/api/machines/snapshot?id=1"

  say "$name: 304, HEAD, chunked upload, limit"
  newest=$(curl -sSI -H "Authorization: Bearer $token" "$url/api/machines/snapshot" | tr -d '\r' | sed -n 's/^[Ee][Tt][Aa][Gg]: //p')
  expect 304 -H "If-None-Match: $newest" "$url/api/machines/snapshot"
  expect 200 -I "$url/api/machines/history"
  # Caddy 2.6 buffers a chunked upload and still passes it on in chunks: refused with 411.
  chunked=$(printf 'chunked %s' "$name" | status -T - -X POST -H 'Content-Type: application/octet-stream' "$url/api/machines/snapshot?machine_id=m")
  case "$name $chunked" in
    "nginx 201" | "caddy 201" | "caddy 411") ;;
    *) fail "$chunked for a chunked upload" ;;
  esac
  head -c $((65 * 1024 * 1024)) /dev/zero >"$scratch/large"
  expect 413 -H 'Content-Type: application/octet-stream' -H 'Expect:' --data-binary @"$scratch/large" "$url/api/machines/snapshot?machine_id=m"

  say "$name: the page and its own requests pass, those of other web sites do not"
  curl -sS -D "$scratch/head" -o "$scratch/page" "$url/"
  grep -q '<title>ConfigSync server</title>' "$scratch/page" || fail "no page"
  grep -qi "^content-security-policy: default-src 'none'" "$scratch/head" || fail "no policy"
  trade() { expect "$1" -H 'Content-Type: application/json' -d "{\"token\": \"$token\"}" "${@:2}" "$url/api/auth/login"; }
  trade 200
  trade 200 -H "Origin: $url" -H 'Sec-Fetch-Site: same-origin'
  trade 403 -H 'Origin: https://elsewhere.example'
  trade 403 -H 'Origin: https://elsewhere.example' -H 'X-Forwarded-Host: elsewhere.example'
  trade 403 -H "Origin: $url" -H 'Sec-Fetch-Site: cross-site'

  say "$name: ten requests on one connection, and after a pause longer than the upstream's keep-alive"
  urls=(); for _ in $(seq 10); do urls+=(-o /dev/null "$url/api/machines"); done
  curl -sS -w '%{http_code} %{num_connects}\n' -H "Authorization: Bearer $token" "${urls[@]}" >"$scratch/ten"
  [ "$(grep -c '^200 ' "$scratch/ten")" = 10 ] && [ "$(grep -c ' 1$' "$scratch/ten")" = 1 ] || fail "keep-alive"
  for pause in 0.5 3 5; do sleep "$pause"; expect 200 "$url/api/machines"; done

  say "$name: the client's address is the one that counts"
  for _ in $(seq 10); do
    curl -sS -o /dev/null --interface 127.0.0.3 -H 'Content-Type: application/json' -d "{\"email\": \"$name@example.com\", \"password\": \"x\"}" "$url/api/auth/login"
  done
  login() { curl -sS -o /dev/null -w '%{http_code}' --interface "$1" -H "X-Forwarded-For: 127.0.0.9" -H 'Content-Type: application/json' -d "{\"email\": \"$name@example.com\", \"password\": \"x\"}" "$url/api/auth/login"; }
  [ "$(login 127.0.0.3)" = 429 ] || fail "not throttled"
  [ "$(login 127.0.0.4)" = 401 ] || fail "throttled for another"
  grep -q 'peer=127.0.0.3' "$scratch/log" || fail "the log has another address"
  sleep 1.2
  "$binary" audit --data "$scratch/data" --event login.failed | grep -q '"peer":"127.0.0.3"' || fail "the audit log has another address"
}

tried=0
if command -v nginx >/dev/null; then
  port=$(free_port)
  sed -e "s/127.0.0.1:8787/$server/" -e "s/listen 443 ssl/listen 127.0.0.1:$port ssl/" -e "s,/etc/ssl/sync.example.com.pem,$scratch/cert.pem," -e "s,/etc/ssl/sync.example.com.key,$scratch/key.pem," \
      -e 's/keepalive_timeout 20s/keepalive_timeout 2s/' "$here/nginx.conf" >"$scratch/site.conf"
  mkdir "$scratch/nginx"
  cat >"$scratch/nginx.conf" <<EOF
daemon off; user $(id -un); pid $scratch/nginx/pid; error_log $scratch/nginx/error.log; worker_processes 1;
events {}
http { access_log off; client_body_temp_path $scratch/nginx/body; proxy_temp_path $scratch/nginx/proxy;
fastcgi_temp_path $scratch/nginx/f; uwsgi_temp_path $scratch/nginx/u; scgi_temp_path $scratch/nginx/s;
include $scratch/site.conf; }
EOF
  nginx -p "$scratch/nginx" -c "$scratch/nginx.conf" -e "$scratch/nginx/error.log" & pids+=($!)
  wait_for curl -sf "https://localhost:$port/healthz"
  try nginx "https://localhost:$port"; tried=1
fi
if command -v caddy >/dev/null; then
  port=$(free_port)
  { printf '{\n\tadmin off\n\tauto_https off\n}\n'; sed -e "s/127.0.0.1:8787/$server/" -e "s,^sync.example.com {,https://localhost:$port {\n\tbind 127.0.0.1\n\ttls $scratch/cert.pem $scratch/key.pem," \
      -e 's/keepalive 20s/keepalive 2s/' "$here/Caddyfile"; } >"$scratch/Caddyfile"
  HOME="$scratch" XDG_DATA_HOME="$scratch" caddy run --config "$scratch/Caddyfile" --adapter caddyfile 2>"$scratch/caddy.log" & pids+=($!)
  wait_for curl -sf "https://localhost:$port/healthz"
  try caddy "https://localhost:$port"; tried=1
fi
[ "$tried" = 1 ] || fail "neither nginx nor caddy is installed"
say "proxy test passed"
