#!/usr/bin/env bash
# tools/call direct, through nginx and through the gateway, in one run:
#
#   run.sh GATEWAY_BINARY FAST_UPSTREAM_BINARY
#
# ROUNDS (3) rounds of ROUND_SECONDS (5) seconds each, for 1 and for 64 connections. Within a round the
# three follow each other, so that what else the machine does meets them alike; the ratios are
# taken round by round. Needs nginx, wrk and curl; what is missing is installed with apt-get.
set -euo pipefail

gateway=$(realpath "${1:?usage: run.sh GATEWAY_BINARY FAST_UPSTREAM_BINARY}")
upstream=$(realpath "${2:?usage: run.sh GATEWAY_BINARY FAST_UPSTREAM_BINARY}")
rounds=${ROUNDS:-3} seconds=${ROUND_SECONDS:-5}
here=$(cd "$(dirname "$0")" && pwd)

missing=()
for tool in curl nginx wrk; do
  PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || missing+=("${tool/nginx/nginx-light}")
done
if [ ${#missing[@]} -gt 0 ]; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  $sudo apt-get update -qq
  # The package would start an nginx of its own on port 80: the benchmark starts the one it needs.
  $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -qq -y --no-install-recommends "${missing[@]}"
fi
PATH=$PATH:/usr/sbin
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

# shellcheck source=tests/bench/processes.sh
. "$here/processes.sh"

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start upstream "$upstream"
wait_until "the upstream listens" test -s "$work/upstream.out"
upstream_address=$(cat "$work/upstream.out")

nginx_port=$(free_port)
mkdir -p "$work/nginx/tmp"
sed -e "s/@PORT@/$nginx_port/" -e "s/@UPSTREAM@/$upstream_address/" "$here/nginx.conf" >"$work/nginx/nginx.conf"
start nginx nginx -p "$work/nginx" -e stderr -c nginx.conf

gateway_port=$(free_port)
# As many calls at once as there are connections at most.
cat >"$work/config.json" <<JSON
{"mcp_servers": {"fast": {"url": "http://$upstream_address/mcp", "transport": "http", "required": true, "max_in_flight": 64}}}
JSON
start gateway "$gateway" serve --config "$work/config.json" --listen "127.0.0.1:$gateway_port"
gateway_pid=${started[-1]}
wait_until "the gateway is ready" curl -fsS "http://127.0.0.1:$gateway_port/readyz"

declare -A url=(
  [direct]=http://$upstream_address/mcp
  [nginx]=http://127.0.0.1:$nginx_port/mcp
  [gateway]=http://127.0.0.1:$gateway_port/mcp
) session=()
post() { # post TARGET MESSAGE, with the answer's head
  curl -sS -i -m 10 "${url[$1]}" -H 'Content-Type: application/json' \
    -H 'Accept: application/json, text/event-stream' \
    ${session[$1]:+-H "Mcp-Session-Id: ${session[$1]}" -H 'MCP-Protocol-Version: 2025-06-18'} -d "$2"
}
for target in direct nginx gateway; do
  # A plain GET to the gateway opens an HTTP+SSE stream; it is known to be ready.
  [ "$target" = gateway ] || wait_until "$target answers" curl -sS -m 2 "${url[$target]}"
  head=$(post "$target" '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}')
  session[$target]=$(tr -d '\r' <<<"$head" | sed -n 's/^mcp-session-id: *//Ip')
  [ -n "${session[$target]}" ] || fail "$target opened no session: $head"
  post "$target" '{"jsonrpc":"2.0","method":"notifications/initialized"}' >"$work/initialized.txt"
  grep -q '^HTTP/1.1 202' "$work/initialized.txt" || fail "$target: $(cat "$work/initialized.txt")"
done

rss() { # in KiB
  awk '/^VmRSS:/ { print $2 }' "/proc/$gateway_pid/status"
}
measure() { # measure TARGET CONNECTIONS SECONDS: the words after RESULT
  local threads=1
  [ "$2" -eq 1 ] || threads=2
  MCP_SESSION=${session[$1]} wrk -t "$threads" -c "$2" -d "$3s" --timeout 10s -s "$here/tools_call.lua" "${url[$1]}" \
    >"$work/wrk.out" 2>"$work/wrk.log" || fail "wrk failed"
  sed -n 's/^RESULT //p' "$work/wrk.out"
}

sleep 1
rss_idle=$(rss)
echo "$(nproc) processors, $rounds rounds of $seconds s"
for connections in 1 64; do
  for target in direct nginx gateway; do measure "$target" "$connections" 1 >"$work/warm-up.txt"; done
  for round in $(seq "$rounds"); do
    for target in direct nginx gateway; do
      if [ "$target" = gateway ]; then
        # In the middle of the load, since memory may be given back after it.
        (sleep "$((seconds / 2))"; echo "$connections $(rss)" >>"$work/rss.txt") &
        sampler=$!
      fi
      read -r rate p50 p99 errors <<<"$(measure "$target" "$connections" "$seconds")"
      [ "$target" != gateway ] || wait "$sampler"
      echo "round $round, $connections connections, $target: $rate requests/s, p50 $p50 ms, p99 $p99 ms, $errors errors"
      echo "$connections $round $target $rate $p50 $p99 $errors" >>"$work/results.txt"
      if [ "$errors" != 0 ]; then
        cat "$work/wrk.log" >&2
      fi
    done
  done
done

kill -0 "$gateway_pid" || fail "the gateway has ended"
python3 "$here/summary.py" "$work/results.txt" "$work/rss.txt" "$rss_idle" \
  "$(awk '/^VmHWM:/ { print $2 }' "/proc/$gateway_pid/status")" "$(stat -c %s "$gateway")"
