#!/usr/bin/env bash
# Builds the Debian package and tries it in a throw-away root: an overlay over this system that is
# gone afterwards. Installs, serves, upgrades, removes and purges, and looks at the man page, the
# completion and compose.yaml.
#
#   scripts/package/test.sh [profile of cargo: dev]
#
# Needs root for the overlay, and python3, cargo-deb, dpkg-dev, man-db. Exit code 77: something is
# missing, and nothing was tried.
set -euo pipefail
cd "$(dirname "$0")/../.."
fail() { echo "package test FAILED: $*" >&2; exit 1; }
say() { echo "== $*"; }
missing() { echo "skipped: $*" >&2; exit 77; }
[ "$(id -u)" = 0 ] || missing "root is needed for a throw-away root"
for program in python3 cargo-deb dpkg-deb dpkg-shlibdeps unshare man; do
  command -v "$program" >/dev/null || missing "$program is missing"
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The upper side of an overlay must not itself be on one.
mkdir "$scratch/over"
# shellcheck disable=SC2016  # for another shell
overlay='mount -t tmpfs none "$1" && mkdir "$1/up" "$1/work" "$1/root" &&
  mount -t overlay none -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root"'
unshare --mount sh -c "$overlay" sh "$scratch/over" 2>/dev/null || missing "no overlay can be mounted here"

say "build"
deb=$(scripts/package/build.sh "${1:-dev}")

say "contents"
dpkg-deb -c "$deb" >"$scratch/list"
has() { grep -qE -- "$1" "$scratch/list" || fail "not in the package: $1"; }
for path in usr/bin/configsync-server usr/bin/configsync-offsite etc/default/configsync-server usr/share/man/man8/configsync-server.8.gz \
  usr/share/bash-completion/completions/configsync-server usr/share/doc/configsync-server/copyright; do
  has " \./$path\$"
done
for unit in scripts/systemd/*.service scripts/systemd/*.timer scripts/offsite/*.service scripts/offsite/*.timer; do has " \./usr/lib/systemd/system/${unit##*/}\$"; done
awk '$1 ~ /^.(.......w|....w)/ || $2 !~ /^(0\/0|root\/root)$/' "$scratch/list" | grep . && fail "written by others, or owned by others"
grep -q /usr/local target/package/units/* target/package/offsite/* && fail "a unit names /usr/local"

say "in a throw-away root"
cp "$deb" scripts/package/test-inside.sh "$scratch/"
# shellcheck disable=SC2016
unshare --mount --pid --fork --kill-child sh -ec "$overlay"'
  mkdir "$1/root$1/in"; cp "$2"/*.deb "$2"/test-inside.sh "$1/root$1/in/"
  mount -t proc proc "$1/root/proc"; mount --bind /dev "$1/root/dev"
  exec chroot "$1/root" /bin/bash "$1/in/test-inside.sh" "$1/in"' sh "$scratch/over" "$scratch"
[ ! -e /usr/bin/configsync-server ] || fail "it was installed on this system"

say "compose.yaml"
python3 scripts/package/check_compose.py
say "package test passed"
