#!/usr/bin/env bash
# What it costs to know who calls:
#
#   tokens.sh GATEWAY_BINARY FAST_UPSTREAM_BINARY
#
# The same call without credentials, with a key, and with an access token (a JWT), each through a
# gateway of its own; ROUNDS (5) rounds of ROUND_SECONDS (4) seconds each. Told is the processor
# time of the gateway for one call, in microseconds: the median of the rounds. Within a round the
# three follow each other, so that what else the machine does meets them alike. Fails if a token
# costs 10 microseconds a call more than a key. Needs wrk, curl and openssl; what is missing is
# installed with apt-get.
set -euo pipefail

gateway=$(realpath "${1:?usage: tokens.sh GATEWAY_BINARY FAST_UPSTREAM_BINARY}")
upstream=$(realpath "${2:?usage: tokens.sh GATEWAY_BINARY FAST_UPSTREAM_BINARY}")
rounds=${ROUNDS:-5} seconds=${ROUND_SECONDS:-4}
here=$(cd "$(dirname "$0")" && pwd)

missing=()
for tool in curl openssl wrk; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} -gt 0 ]; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
fi
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

# shellcheck source=tests/bench/processes.sh
. "$here/processes.sh"

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start upstream "$upstream"
wait_until "the upstream listens" test -s "$work/upstream.out"
audience=https://mcp.example.org/mcp
start issuer python3 "$here/issuer.py" "$audience"
wait_until "the issuer listens" test -s "$work/issuer.out"
read -r issuer token <"$work/issuer.out"
key=0123456789abcdef-of-the-benchmark

servers="\"mcp_servers\": {\"fast\": {\"url\": \"http://$(cat "$work/upstream.out")/mcp\", \"transport\": \"http\", \"required\": true}}"
echo "{$servers}" >"$work/none.json"
echo "{\"api_keys\": [{\"name\": \"bench\", \"key\": \"$key\"}], $servers}" >"$work/key.json"
rules='"rules": [{"claim": "groups", "any": ["nobody"]}, {"claim": "groups", "any": ["staff"]}]'
echo "{\"oauth\": {\"issuers\": [{\"issuer\": \"$issuer\", \"audience\": \"$audience\"}], $rules}, $servers}" >"$work/token.json"

declare -A url process session credentials=([none]='' [key]="Bearer $key" [token]="Bearer $token")
post() { # post KIND MESSAGE, with the answer's head
  curl -sS -i -m 10 "${url[$1]}" -H 'Content-Type: application/json' \
    -H 'Accept: application/json, text/event-stream' \
    ${credentials[$1]:+-H "Authorization: ${credentials[$1]}"} -d "$2"
}
for kind in none key token; do
  port=$(free_port)
  start "$kind" "$gateway" serve --config "$work/$kind.json" --listen "127.0.0.1:$port"
  process[$kind]=${started[-1]}
  url[$kind]=http://127.0.0.1:$port/mcp
  wait_until "the gateway is ready" curl -fsS "http://127.0.0.1:$port/readyz"
  head=$(post "$kind" '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}')
  session[$kind]=$(tr -d '\r' <<<"$head" | sed -n 's/^mcp-session-id: *//Ip')
  [ -n "${session[$kind]}" ] || fail "$kind: no session: $head"
done

ticks() { # processor time so far, in clock ticks
  awk '{ print $14 + $15 }' "/proc/${process[$1]}/stat"
}
measure() { # measure KIND SECONDS: microseconds of processor time a call
  local before rate errors
  before=$(ticks "$1")
  MCP_SESSION=${session[$1]} AUTHORIZATION=${credentials[$1]} \
    wrk -t 1 -c 1 -d "$2s" --timeout 10s -s "$here/tools_call.lua" "${url[$1]}" \
    >"$work/wrk.out" 2>"$work/wrk.log" || fail "wrk failed"
  read -r rate _ _ errors <<<"$(sed -n 's/^RESULT //p' "$work/wrk.out")"
  [ "$errors" = 0 ] || fail "$1: $errors errors"
  awk -v ticks="$(($(ticks "$1") - before))" -v hertz="$(getconf CLK_TCK)" -v calls="$((rate * $2))" \
    'BEGIN { printf "%.1f\n", ticks / hertz * 1e6 / calls }'
}

echo "$(nproc) processors, $rounds rounds of $seconds s"
for kind in none key token; do measure "$kind" 1 >"$work/warm-up.txt"; done
for round in $(seq "$rounds"); do
  for kind in none key token; do
    cost=$(measure "$kind" "$seconds")
    echo "round $round, $kind: $cost us of processor time a call"
    echo "$cost" >>"$work/$kind.txt"
  done
done
median() {
  sort -n "$work/$1.txt" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}
none=$(median none) key=$(median key) token=$(median token)
echo "| | us of processor time a call |"
echo "|---|---|"
printf '| without credentials | %s |\n| with a key | %s |\n| with an access token | %s |\n' "$none" "$key" "$token"
awk -v token="$token" -v key="$key" 'BEGIN { exit token - key > 10 }' ||
  fail "an access token costs over 10 us a call more than a key"
