#!/usr/bin/env bash
# Builds the Debian package for this machine's architecture and prints its path.
#
#   scripts/package/build.sh [profile of cargo: release]
#
# Needs python3, dpkg-dev and cargo-deb (cargo install cargo-deb --locked). Everything lands in
# target/; the man page and the list of settings are made from the program's own help.
set -euo pipefail
cd "$(dirname "$0")/../.."
profile=${1:-release}
out=target/package
rm -rf "$out"
mkdir -p "$out/units" "$out/offsite"
cargo build --quiet --locked --profile "$profile"
binary="${CARGO_TARGET_DIR:-target}/${profile/#dev/debug}/configsync-server"
python3 scripts/package/from_help.py man "$binary" >"$out/configsync-server.8"
python3 scripts/package/from_help.py default "$binary" >"$out/default"
# Packages install below /usr, not below /usr/local.
for unit in scripts/systemd/*.service scripts/systemd/*.timer; do
  sed 's,/usr/local/bin/,/usr/bin/,g' "$unit" >"$out/units/${unit##*/}"
done
# Apart from the others: they are enabled by whoever has filled in their settings.
for unit in scripts/offsite/*.service scripts/offsite/*.timer; do
  sed 's,/usr/local/bin/,/usr/bin/,g' "$unit" >"$out/offsite/${unit##*/}"
done
cargo deb --quiet --no-build --locked --profile "$profile" --output "$out/configsync-server.deb" >/dev/null
echo "$out/configsync-server.deb"
