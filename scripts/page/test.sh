#!/usr/bin/env bash
# Drives the page at / in a real headless Chromium, on a scratch folder and loopback alone.
#
#   scripts/page/test.sh [path/to/configsync-server] [folder for screenshots]
#
# Needs python3, chromium and chromedriver (Debian: apt-get install chromium chromium-driver).
# Exit code 77: one of them is missing, and nothing was tried.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
for program in python3 chromium chromedriver; do
  command -v "$program" >/dev/null && continue
  echo "skipped: $program is missing; apt-get install python3 chromium chromium-driver" >&2
  exit 77
done
binary=${1:-}
if [ -z "$binary" ]; then
  (cd "$root" && cargo build --quiet)
  binary="${CARGO_TARGET_DIR:-$root/target}/debug/configsync-server"
fi
PYTHONDONTWRITEBYTECODE=1 exec python3 "$here/test.py" "$binary" ${2:+"$2"}
