#!/usr/bin/env bash
# Installs the packages in a folder as their users would, and runs each: packages.sh FOLDER [BINARY]
# With BINARY they are made of it first. A line `ok KIND` each. Nothing is fetched, and nothing is installed outside of a
# temporary folder.
set -euo pipefail
folder=$(realpath "${1:?usage: packages.sh FOLDER [BINARY]}")
if [ -n "${2:-}" ]; then
  contrib=$(realpath "$(dirname "$0")/../../contrib")
  "$contrib/packages.sh" "$2" "$folder"
  "$contrib/deb/build.sh" "$2" "$folder"
fi
work=$(mktemp -d)
pid=
# shellcheck disable=SC2317 # the trap calls it
finish() {
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

try() { # try KIND NAME COMMAND…: says its version, serves the demo, and answers a call
  local kind=$1 name=$2 port
  shift 2
  "$@" --version >"$work/version"
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  echo '{"mcp_servers": {"demo": {"command": "trunkline", "args": ["demo"], "required": true}}}' >"$work/config.json"
  "$@" serve --config "$work/config.json" --listen "127.0.0.1:$port" 2>"$work/log" &
  pid=$!
  for _ in $(seq 300); do
    curl -fsS "http://127.0.0.1:$port/readyz" >/dev/null 2>&1 && break
    sleep 0.1
  done
  curl -fsS "http://127.0.0.1:$port/mcp/tools/call" -H 'Content-Type: application/json' \
    -d '{"name": "echo", "arguments": {"message": "from the package"}}' | grep -q 'from the package' || {
    cat "$work/log" >&2
    return 1
  }
  kill "$pid"
  wait "$pid" || true
  pid=
  echo "ok $kind $name: $(cat "$work/version") is installed and serves"
}

for package in "$folder"/*.tgz; do
  npm install --silent --offline --no-audit --no-fund --prefix "$work/npm" "$package" >/dev/null
  try npm "$(basename "$package")" "$work/npm/node_modules/.bin/trunkline"
done
for package in "$folder"/*.whl; do
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet --no-index --disable-pip-version-check "$package"
  try pypi "$(basename "$package")" "$work/venv/bin/trunkline"
done
for package in "$folder"/*.deb; do
  [ -e "$package" ] || continue
  dpkg-deb --extract "$package" "$work/deb"
  try deb "$(basename "$package")" "$work/deb/usr/bin/trunkline"
done
