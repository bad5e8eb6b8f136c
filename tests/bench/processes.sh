# Sourced by the benchmarks: a work folder, processes that end with the script, and waiting for them.
# shellcheck shell=bash

work=$(mktemp -d)
started=()
cleanup() {
  [ ${#started[@]} -eq 0 ] || kill "${started[@]}" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

fail() {
  echo "$(basename "$0" .sh): $*" >&2
  tail -n 5 "$work"/*.log >&2
  exit 1
}
start() { # start NAME COMMAND...
  local name=$1
  shift
  "$@" >"$work/$name.out" 2>"$work/$name.log" </dev/null &
  started+=("$!")
}
wait_until() { # wait_until WHAT COMMAND...
  local what=$1
  shift
  for _ in $(seq 150); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "not within 15 s: $what"
}
