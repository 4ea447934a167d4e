#!/usr/bin/env bash
# The whole idea in one run: two "machines" share an encrypted folder through a server that
# never sees a key. Starts a server on a scratch folder and a free port, pushes from one
# machine, pulls on the other, compares byte for byte, prints the history, cleans up.
#
#   scripts/demo.sh [path/to/configsync-server]
#
# Needs curl and tar, and openssl or age.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
server_pid=
finish() {
  if [ -n "$server_pid" ]; then kill "$server_pid" 2>/dev/null || true; wait "$server_pid" 2>/dev/null || true; fi
  rm -rf "$scratch"
}
trap finish EXIT
fail() { echo "demo FAILED: $*" >&2; exit 1; }
say() { echo "== $*"; }

binary=${1:-}
if [ -z "$binary" ]; then
  (cd "$root" && cargo build --release --quiet)
  binary="${CARGO_TARGET_DIR:-$root/target}/release/configsync-server"
fi
[ -x "$binary" ] || fail "no server binary at $binary"

# --- client-side encryption: the password stays in this shell and is never sent
password="demo-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"
export password
if command -v openssl >/dev/null; then
  encrypt() { openssl enc -aes-256-ctr -pbkdf2 -iter 200000 -salt -pass env:password; }
  decrypt() { openssl enc -d -aes-256-ctr -pbkdf2 -iter 200000 -pass env:password; }
  say "encrypting with openssl"
elif command -v age >/dev/null && command -v age-keygen >/dev/null; then
  age-keygen -o "$scratch/key.txt" 2>/dev/null
  encrypt() { age -r "$(age-keygen -y "$scratch/key.txt")"; }
  decrypt() { age -d -i "$scratch/key.txt"; }
  say "encrypting with age"
else
  fail "neither openssl nor age is installed"
fi

# --- a server
say "starting a server on a scratch folder"
"$binary" serve --data "$scratch/data" --listen 127.0.0.1:0 --init-user you@example.com \
  >"$scratch/out" 2>"$scratch/log" &
server_pid=$!
for _ in $(seq 100); do
  grep -q '^configsync-server listening on ' "$scratch/out" && break
  kill -0 "$server_pid" 2>/dev/null || { cat "$scratch/log" >&2; fail "the server ended"; }
  sleep 0.1
done
url=$(sed -n 's/^configsync-server listening on //p' "$scratch/out")
token=$(grep -m1 '^cs_' "$scratch/out")
[ -n "$url" ] && [ -n "$token" ] || fail "no ready line or no token"

call() { curl --silent --show-error --fail-with-body -H "Authorization: Bearer $token" "$@"; }
# One number or word out of flat JSON, without another tool.
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }

# --- two machines
say "registering two machines"
for machine in laptop desktop; do
  call -H 'Content-Type: application/json' "$url/api/machines" \
    -d "{\"machine_id\":\"$machine\",\"name\":\"$machine\",\"platform\":\"linux\"}" >/dev/null
done

# --- push from the laptop: a real folder, a few megabytes
mkdir -p "$scratch/laptop/home/.config"
cp -R "$root/src" "$root/README.md" "$scratch/laptop/home/" 2>/dev/null || true
head -c 4194304 /dev/urandom >"$scratch/laptop/home/.config/blob"
printf 'export EDITOR=vi\n' >"$scratch/laptop/home/.profile"
tar -C "$scratch/laptop" -cf - home | encrypt >"$scratch/laptop/state.enc"
size=$(wc -c <"$scratch/laptop/state.enc" | tr -d ' ')
say "pushing $size encrypted bytes from the laptop"
pushed=$(call -H 'Content-Type: application/octet-stream' \
  --data-binary @"$scratch/laptop/state.enc" \
  "$url/api/machines/snapshot?machine_id=laptop&message=first+push")
id=$(printf '%s' "$pushed" | field id)
[ "$(printf '%s' "$pushed" | field size_bytes)" = "$size" ] || fail "the server counted other bytes: $pushed"

say "kill -9, and a new start: what was acknowledged is there"
kill -9 "$server_pid"; wait "$server_pid" 2>/dev/null || true
: >"$scratch/out"
"$binary" serve --data "$scratch/data" --listen 127.0.0.1:0 >"$scratch/out" 2>>"$scratch/log" &
server_pid=$!
for _ in $(seq 100); do
  grep -q '^configsync-server listening on ' "$scratch/out" && break
  sleep 0.1
done
url=$(sed -n 's/^configsync-server listening on //p' "$scratch/out")
[ -n "$url" ] || fail "the server did not start again"

# --- pull on the desktop
say "pulling snapshot $id on the desktop"
mkdir -p "$scratch/desktop"
call -H 'Accept: application/octet-stream' "$url/api/machines/snapshot?id=$id" \
  -o "$scratch/desktop/state.enc"
cmp "$scratch/laptop/state.enc" "$scratch/desktop/state.enc" || fail "the pulled bytes differ"
decrypt <"$scratch/desktop/state.enc" | tar -C "$scratch/desktop" -xf - || fail "decryption failed"
diff -r "$scratch/laptop/home" "$scratch/desktop/home" || fail "the folders differ"
say "both homes are the same, byte for byte"

# --- what the server holds
if grep -rqa 'export EDITOR=vi' "$scratch/data"; then fail "the server holds plain text"; fi
if grep -rqa "$password" "$scratch/data" "$scratch/log"; then fail "the password reached the server"; fi
say "the server's folder holds neither the plain text nor the password"

say "history"
call "$url/api/machines/history?limit=5"; echo
"$binary" check --data "$scratch/data" || fail "check found damage"
say "demo passed"
