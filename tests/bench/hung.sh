#!/usr/bin/env bash
# What one bad server of ten costs calls to the other nine:
#
#   hung.sh GATEWAY_BINARY FAST_UPSTREAM_BINARY
#
# ROUNDS (5) rounds of ROUND_SECONDS (4) seconds each. Clients call nine servers in turn, over REST,
# first alone, then beside 64 clients of
#   hung     a server that takes calls and never answers;
#   busy     the same, with room for one call and one waiting: the others get 503 at once, and come
#            again after 100 ms;
#   dead     a server that has gone: 502, and again after 100 ms.
# Within a round each follows a run without, so that what else the machine does meets both
# alike; the ratios are taken pair by pair. Fails if `hung` costs the nine a tenth of their rate or
# more. Needs wrk and curl; what is missing is installed with apt-get.
set -euo pipefail

gateway=$(realpath "${1:?usage: hung.sh GATEWAY_BINARY FAST_UPSTREAM_BINARY}")
upstream=$(realpath "${2:?usage: hung.sh GATEWAY_BINARY FAST_UPSTREAM_BINARY}")
rounds=${ROUNDS:-5} seconds=${ROUND_SECONDS:-4}
here=$(cd "$(dirname "$0")" && pwd)

missing=()
for tool in curl wrk; do
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

servers=''
serve() { # serve SERVER UPSTREAM SETTINGS
  local address
  address=$(cat "$work/$2.out")
  servers="$servers${servers:+,}\"$1\":{\"url\":\"http://$address/mcp\",\"transport\":\"http\",\"required\":true$3}"
}
nine=''
for n in 1 2 3 4 5 6 7 8 9; do
  start "well-$n" "$upstream" 127.0.0.1:0
  wait_until "server $n listens" test -s "$work/well-$n.out"
  serve "well$n" "well-$n" ''
  nine="$nine well$n-echo"
done
start hangs "$upstream" 127.0.0.1:0 hang
start goes "$upstream" 127.0.0.1:0
goes_pid=${started[-1]}
wait_until "the bad servers listen" test -s "$work/hangs.out" -a -s "$work/goes.out"
serve hung hangs ''
serve busy hangs ',"max_in_flight":1,"max_waiting":1'
serve dead goes ''

gateway_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
echo "{\"mcp_servers\":{$servers}}" >"$work/config.json"
start gateway "$gateway" serve --config "$work/config.json" --listen "127.0.0.1:$gateway_port"
gateway_pid=${started[-1]}
wait_until "the gateway is ready" curl -fsS "http://127.0.0.1:$gateway_port/readyz"
kill "$goes_pid"

url=http://127.0.0.1:$gateway_port/mcp/tools/call
measure() { # the words after RESULT, of the nine
  TOOLS=$nine wrk -t 1 -c 18 -d "${seconds}s" --timeout 10s -s "$here/rest_call.lua" "$url" \
    >"$work/wrk.out" 2>"$work/wrk.log" || fail "wrk failed"
  sed -n 's/^RESULT //p' "$work/wrk.out"
}
holds_all() { # whether all 64 calls are with the hung server, or wait for it
  curl -fsS "http://127.0.0.1:$gateway_port/status" | python3 -c '
import json, sys
for entry in json.load(sys.stdin)["upstreams"]:
    if entry["server"] == "hung":
        sys.exit(entry["in_flight"] + entry["waiting"] != 64)
sys.exit(1)'
}

measure >"$work/warm-up.txt"
echo "$(nproc) processors, $rounds rounds of $seconds s"
for round in $(seq "$rounds"); do
  for bad in hung busy dead; do
    read -r alone p50 p99 not_200 errors <<<"$(measure)"
    echo "round $round, nine alone: $alone requests/s, p50 $p50 ms, p99 $p99 ms, $((not_200 + errors)) errors"
    lost=$((not_200 + errors))
    pause=100
    [ "$bad" != hung ] || pause=0
    TOOLS=$bad-echo PAUSE_MS=$pause wrk -t 1 -c 64 -d "$((seconds + 3))s" --timeout 60s \
      -s "$here/rest_call.lua" "$url" >"$work/$bad.txt" 2>&1 &
    bad_pid=$!
    [ "$bad" != hung ] || wait_until "64 calls hang" holds_all
    sleep 1
    read -r beside p50 p99 not_200 errors <<<"$(measure)"
    echo "round $round, beside 64 clients of the $bad one: $beside requests/s, p50 $p50 ms, p99 $p99 ms, $((not_200 + errors)) errors"
    wait "$bad_pid" || fail "wrk failed at the $bad one"
    lost=$((lost + not_200 + errors))
    echo "$bad $alone $beside $lost" >>"$work/results.txt"
  done
done
kill -0 "$gateway_pid" || fail "the gateway has ended"

python3 - "$work/results.txt" <<'PYTHON'
import statistics
import sys

pairs = {}
errors = 0
for line in open(sys.argv[1]):
    bad, alone, beside, lost = line.split()
    pairs.setdefault(bad, []).append(float(beside) / float(alone))
    errors += int(lost)
for bad, ratios in pairs.items():
    print(f"{bad}: the nine keep {statistics.median(ratios):.3f} of their rate"
          f" (median of {len(ratios)}, {min(ratios):.3f} to {max(ratios):.3f})")
print(f"{errors} calls to the nine failed")
sys.exit(errors > 0 or statistics.median(pairs["hung"]) <= 0.9)
PYTHON
