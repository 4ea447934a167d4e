#!/usr/bin/env bash
# Off-site copies against an S3 server on loopback, while a client pushes all the time.
#
#   scripts/offsite/test.sh path/to/configsync-server
#
# Needs restic (Debian), curl, python3 and moto_server (`pip install 'moto[s3,server]'`; MOTO=path names
# another). GARAGE=path to a garage binary (`cargo install garage`) runs the copies against that too.
# Exits 77 where something is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
skip() { echo "skipped: $*"; exit 77; }
moto=${MOTO:-moto_server}
for tool in restic curl python3 flock bc pgrep "$moto"; do
  command -v "$tool" >/dev/null || skip "$tool is not installed"
done
[ -x "${1:-}" ] || { echo "usage: test.sh path/to/configsync-server" >&2; exit 2; }

top=$(mktemp -d) pids=() data=$top/data acks=$top/acks
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait; rm -rf "$top"
}
trap finish EXIT
say() { echo "== $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
wait_for() { # a condition, 30 s at most
  local what=$1; shift
  for _ in $(seq 300); do if "$@"; then return; fi; sleep 0.1; done
  fail "waited 30 s for $what"
}
mkdir "$top/bin"; ln -s "$(realpath "$1")" "$top/bin/configsync-server"; PATH=$top/bin:$PATH

# --- the object store, and a relay in front of it
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$moto" -H 127.0.0.1 -p "$port" >"$top/moto.log" 2>&1 & pids+=($!)
store=http://127.0.0.1:$port
wait_for "moto" curl -sf -o /dev/null "$store/moto-api/"
mode() { echo "$1" >"$top/mode.new"; mv "$top/mode.new" "$top/mode"; }
mode ok
python3 "$here/testing.py" relay "$port" "$top/mode" >"$top/relay" & pids+=($!)
wait_for "the relay" test -s "$top/relay"

export OFFSITE_ENV=$top/offsite.env
settings() { # further lines
  (umask 077; cat >"$OFFSITE_ENV.new") <<END
CONFIGSYNC_DATA=$data
RESTIC_REPOSITORY=s3:http://127.0.0.1:$(cat "$top/relay")/copies
RESTIC_PASSWORD=secret
AWS_ACCESS_KEY_ID=key
AWS_SECRET_ACCESS_KEY=secret
AWS_EC2_METADATA_DISABLED=true
TIME_LIMIT=120
$(printf '%s\n' "$@")
END
  mv "$OFFSITE_ENV.new" "$OFFSITE_ENV"
}
offsite() { "$here/offsite" "$@"; }
stage_is_empty() {
  local left; left=$(find "$data.stage" -mindepth 1 -maxdepth 1 ! -name cache)
  [ -z "$left" ] || fail "left in the stage: $left"
}
must_fail() { # words that the reason holds, then arguments of offsite
  local words=$1 said code=0; shift
  said=$(offsite "$@" 2>&1 >/dev/null) || code=$?
  [ "$code" = 1 ] || fail "offsite $* exited $code: $said"
  [ "$(wc -l <<<"$said")" = 1 ] || fail "more than one line: $said"
  grep -qi -- "$words" <<<"$said" || fail "'$said' lacks '$words'"
  stage_is_empty
  echo "   $said"
}

# --- the server, and a client that never stops pushing
server=''
serve() {
  : >"$top/ready"
  configsync-server serve --data "$1" --listen 127.0.0.1:0 "${@:2}" >"$top/ready" 2>>"$top/log" &
  server=$!; pids+=("$server")
  wait_for "the server" grep -q '^configsync-server listening on ' "$top/ready"
  url=$(sed -n 's/^configsync-server listening on //p' "$top/ready")
}
push() { # arguments of the writer
  rm -f "$acks.stop"
  python3 "$here/testing.py" write "$url" "$token" "$acks" "$@" & writer=$!; pids+=("$writer")
}
push_large() { # bytes
  head -c "$1" /dev/urandom | curl -sf -o /dev/null -H "Authorization: Bearer $token" \
    -H 'Content-Type: application/octet-stream' --data-binary @- "$url/api/machines/snapshot?machine_id=machine-0"
}
end_push() { touch "$acks.stop"; wait "$writer" || true; }
acknowledged() { wc -l <"$acks"; }
more() { [ "$(acknowledged)" -ge "$1" ]; }
pushes_go_on() { wait_for "the client's pushes" more $(($(acknowledged) + 5)); }
verify() { python3 "$here/testing.py" verify "$url" "$token" "$acks" "$@"; }
# Users, tokens and machines, without what each push and sign-in changes.
accounts() {
  configsync-server user list --data "$1" | cut -f1-4
  configsync-server token list --data "$1" | cut -f1-3
  curl -sf -H "Authorization: Bearer $token" "$url/api/machines" | grep -o '"machine_id":"[^"]*"' | sort
}
serve "$top/nobody"; kill "$server"; wait "$server" || true
serve "$data" --init-user you@example.com
token=$(grep -m1 '^cs_' "$top/ready")
echo "a long password" | configsync-server user add second@example.com --password-stdin --data "$data" >/dev/null
configsync-server token create second@example.com --name phone --data "$data" >/dev/null
: >"$acks"; push
wait_for "100 pushes" more 100
last() { cat "$data/offsite.last"; }

say "0. refusals: settings that others may read, a folder without users, an unknown word"
settings; chmod 640 "$OFFSITE_ENV"; mkdir -p "$data.stage"
must_fail "chmod 600"
settings "CONFIGSYNC_DATA=$top/unmounted"; mkdir "$top/unmounted"
must_fail "data folder"
settings "CONFIGSYNC_DATA=$top/nobody"
must_fail "no users"
settings
must_fail "takes no --fast" copy --fast
must_fail "config" # no repository yet
offsite init | grep -q '^RESTIC_PASSWORD=secret$' || fail "init does not print the password"

say "1. kill -9, the folder gone: restored"
offsite & run=$!
links() { [ "$(stat -c %h "$data.stage"/copy/snapshots/*/* 2>/dev/null | sort -u)" = 2 ]; }
wait_for "a stage of hard links" links
offsite >"$top/second"
wait "$run" || fail "a copy failed while another waited"
grep -q '^snapshot' "$top/second" || fail "the second run did not wait for the first"
stage_is_empty
grep -Eqx '[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z' "$data/offsite.last" || fail "offsite.last: $(last)"
pushes_go_on
before=$(last) was=$(accounts "$data")
kill -9 "$server"; wait "$server" 2>/dev/null || true; end_push
rm -rf "$data"
offsite restore
configsync-server check --data "$data" >/dev/null || fail "check found damage"
serve "$data"
verify "$before"
[ "$(accounts "$data")" = "$was" ] || fail "users, tokens or machines differ: $(accounts "$data")"
must_fail "has a database" restore
acks=$top/acks.2; : >"$acks"; push; wait_for "pushes" more 10

say "2. S3 refuses, hangs, denies the key; a wrong password: non-zero in time, the next run right"
offsite >/dev/null
settings "TIME_LIMIT=12"
for bad in refuse hang deny; do
  mode $bad; began=$(cut -d. -f1 /proc/uptime) saw=$(last)
  case $bad in
    refuse) must_fail "";;
    hang) must_fail "not done after 12 s";;
    deny) must_fail "Access Key";;
  esac
  took=$(($(cut -d. -f1 /proc/uptime) - began))
  [ $took -le 30 ] || fail "$bad took $took s"
  [ "$(last)" = "$saw" ] || fail "offsite.last moved in a run that failed"
  pushes_go_on
done
mode ok
settings "RESTIC_PASSWORD=other"; must_fail "wrong password"
settings; offsite >/dev/null
[ "$(last)" != "$saw" ] || fail "offsite.last stayed in a run that succeeded"

say "3. the uploader killed in the middle: the older copy restores, the next run succeeds"
before=$(last); pushes_go_on
settings "KEEP='--keep-last 2'"
push_large 4000000
mode slow
setsid "$here/offsite" >/dev/null 2>&1 & run=$!
locked() { curl -s "$store/copies?list-type=2&prefix=locks/" | grep -q '<Key>'; }
wait_for "the upload, which holds a lock" locked
tree_of() { local at; for at in "$@"; do echo "$at"; tree_of $(pgrep -P "$at" || true); done; }
kill -9 $(tree_of "$run"); wait "$run" 2>/dev/null || true
mode ok
[ -d "$data.stage/copy" ] || fail "killed too late: the stage is gone"
locked || fail "the killed run left no lock"
[ "$(last)" = "$before" ] || fail "a killed run wrote offsite.last"
offsite restore --data "$top/older" >/dev/null
[ -z "$(diff <(configsync-server user list --data "$data" | cut -f1-4) <(configsync-server user list --data "$top/older" | cut -f1-4))" ] || fail "the older copy lacks users"
rm -rf "$top/older" "$top/older.stage"
offsite >/dev/null; offsite >/dev/null; offsite >/dev/null
copies() { curl -s "$store/copies?list-type=2&prefix=snapshots/" | grep -o '<Key>' | wc -l; }
[ "$(copies)" = 2 ] || fail "retention left $(copies) copies"
settings

say "4. prune, copy, prune, copy, restore; prunes go on while a copy is slow"
prune() { configsync-server prune --keep "$1" --data "$data" >/dev/null; }
prune 20; offsite >/dev/null; pushes_go_on; prune 10; pushes_go_on
mode slow
offsite >"$top/slow" & run=$!
while kill -0 "$run" 2>/dev/null; do prune 5; sleep 0.2; done
wait "$run" || fail "a copy beside prunes failed"
mode ok
before=$(last)
end_push; kill -9 "$server"; wait "$server" 2>/dev/null || true
rm -rf "$data"
offsite restore
serve "$data"
verify "$before" pruned

say "5. a damaged repository is detected by the drill"
offsite drill
rm -rf "$data.stage/cache" # No copy of the machine's own may stand in for what the store lost.
signed() { curl -sf -H 'Content-Type: application/octet-stream' --aws-sigv4 aws:amz:us-east-1:s3 --user key:secret "$@"; }
packs() { # the data's objects, the biggest first
  curl -s "$store/copies?list-type=2&prefix=data/" | python3 -c '
import re, sys
found = re.findall(r"<Key>([^<]*)</Key>.*?<Size>(\d+)</Size>", sys.stdin.read(), re.S)
print(*(key for key, size in sorted(found, key=lambda row: -int(row[1]))), sep="\n")'
}
bend() { # an object: flips a bit here and there
  mkdir -p "$top/good/$(dirname "$1")"
  signed -o "$top/good/$1" "$store/copies/$1"
  python3 -c '
import sys
data = bytearray(open(sys.argv[1], "rb").read())
for at in range(0, len(data) // 2, 4096):
    data[at] ^= 1
open(sys.argv[2], "wb").write(data)' "$top/good/$1" "$top/bent"
  signed -o /dev/null -X PUT --data-binary "@$top/bent" "$store/copies/$1"
}
mend() { signed -o /dev/null -X PUT --data-binary "@$top/good/$1" "$store/copies/$1"; }
biggest=$(packs | head -n 1)
bend "$biggest"
settings "READ=100%"
must_fail "damaged" drill
signed -o /dev/null -X DELETE "$store/copies/$biggest"
settings
must_fail "damaged" drill
mend "$biggest"
# What the newest copy needs is read whole, whatever is read of the rest.
packs >"$top/packs"
push_large 2000000
offsite >/dev/null
newest=$(packs | grep -vxFf "$top/packs" | head -n 1)
bend "$newest"
# Of 255 shares by the first byte of a name, one that this object is not in.
settings "READ=$(((0x$(basename "$newest" | cut -c1-2) + 1) % 255 + 1))/255"
must_fail "no copy came back" drill
mend "$newest"
settings
offsite drill

say "6. a damaged file on the disk: copied without it, and no older copy is removed"
settings "KEEP='--keep-last 1'"
victim=$(find "$data/snapshots" -type f | head -n 1) saw=$(last) had=$(copies)
printf x >>"$victim"
must_fail "damaged"
[ "$(copies)" = $((had + 1)) ] || fail "$(copies) copies after $had and one more"
[ "$(last)" != "$saw" ] || fail "offsite.last stayed, though there is a copy"
if offsite restore --data "$top/partly" >"$top/partly.out" 2>&1; then fail "a restore without a file succeeded"; fi
grep -q "try an older copy" "$top/partly.out" || fail "$(cat "$top/partly.out")"
[ -n "$(configsync-server user list --data "$top/partly")" ] || fail "the rest did not come back"
kill "$server"; wait "$server" || true

say "7. one run with 1,000 snapshots of 64 KiB"
data=$top/thousand acks=$top/acks.3
serve "$data" --init-user you@example.com
token=$(grep -m1 '^cs_' "$top/ready")
: >"$acks"; push 1000 65536 0; wait "$writer"
thousand="RESTIC_REPOSITORY=s3:http://127.0.0.1:$(cat "$top/relay")/thousand"
settings "$thousand" "KEEP="
measure() {
  local from began; from=$(wc -l <"$top/moto.log") began=$(date +%s%N)
  local what=$1; shift; "$@" >/dev/null
  local ms=$((($(date +%s%N) - began) / 1000000)) requests
  requests=$(tail -n +$((from + 1)) "$top/moto.log" | sed 's/GET [^ ]*[?].*list-type/LIST /' |
    grep -oE '(LIST|GET|PUT|HEAD|DELETE) ' | sort | uniq -c | awk '{ printf " %s %d", $2, $1 }')
  printf '   %-34s %6d ms  %9d bytes in the bucket, requests:%s\n' "$what" "$ms" \
    "$(curl -s "$store/thousand?list-type=2" | grep -o '<Size>[0-9]*' | tr -dc '0-9\n' | paste -sd+ | bc)" "$requests"
}
measure "init" offsite init
measure "the first copy" offsite
push 5 65536 0; wait "$writer"
measure "five more snapshots" offsite
measure "nothing new" offsite
settings "$thousand" "KEEP='--keep-last 2'"
measure "nothing new, retention removes two" offsite
measure "drill" offsite drill
before=$(last); kill -9 "$server"; wait "$server" 2>/dev/null || true; mv "$data" "$data.lost"
measure "restore" offsite restore
serve "$data"; verify "$before"

if [ -n "${GARAGE:-}" ]; then
  say "8. Garage: keys and what they may do"
  mkdir "$top/garage"
  read -r rpc s3 admin < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(one.getsockname()[1] for one in held))')
  cat >"$top/garage/garage.toml" <<END
metadata_dir = "$top/garage/meta"
data_dir = "$top/garage/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$rpc"
rpc_public_addr = "127.0.0.1:$rpc"
rpc_secret = "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$s3"
[admin]
api_bind_addr = "127.0.0.1:$admin"
END
  garage() { "$GARAGE" -c "$top/garage/garage.toml" "$@" 2>>"$top/garage/log"; }
  "$GARAGE" -c "$top/garage/garage.toml" server >"$top/garage/out" 2>&1 & pids+=($!)
  garage_answers() { garage status >/dev/null; }
  wait_for "Garage" garage_answers
  garage layout assign -z here -c 1G "$(garage node id -q | cut -d@ -f1)" >/dev/null
  garage layout apply --version 1 >/dev/null
  garage bucket create copies >/dev/null; garage bucket create other >/dev/null
  garage key create server >"$top/garage/key"
  key=$(sed -n 's/^Key ID: *//p' "$top/garage/key") secret=$(sed -n 's/^Secret key: *//p' "$top/garage/key")
  garage bucket allow --read --write copies --key "$key" >/dev/null
  at_garage() { # bucket, secret
    settings "RESTIC_REPOSITORY=s3:http://127.0.0.1:$s3/$1/configsync" AWS_DEFAULT_REGION=garage \
      "AWS_ACCESS_KEY_ID=$key" "AWS_SECRET_ACCESS_KEY=$2" TIME_LIMIT=30
  }
  at_garage copies "$secret"
  offsite init >/dev/null; offsite; offsite drill
  at_garage copies 0000000000000000000000000000000000000000000000000000000000000000
  must_fail ""
  at_garage other "$secret"
  must_fail ""
  before=$(last); kill -9 "$server"; wait "$server" 2>/dev/null || true; rm -rf "$data"
  at_garage copies "$secret"
  offsite restore >/dev/null
  serve "$data"; verify "$before"
fi
say "off-site copies passed"
