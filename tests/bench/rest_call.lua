-- wrk: one call over REST after the other, of the tools in $TOOLS in turn, and $PAUSE_MS between
-- two of one connection. Ends with the line that hung.sh reads:
--   RESULT requests/s p50-ms p99-ms not-200 errors

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

local threads = {}
local bodies = {}
for tool in string.gmatch(os.getenv("TOOLS"), "%S+") do
  table.insert(bodies, string.format('{"name":"%s","arguments":{"message":"hello"}}', tool))
end
local pause = tonumber(os.getenv("PAUSE_MS") or "0")

function setup(thread)
  table.insert(threads, thread)
end

function init()
  -- Globals, since done() can read only those of a thread.
  turn, bad = 0, 0
end

function request()
  turn = turn % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[turn])
end

if pause > 0 then
  function delay()
    return pause
  end
end

function response(status)
  if status ~= 200 then
    bad = bad + 1
  end
end

function done(summary, latency)
  local e, bad = summary.errors, 0
  for _, thread in ipairs(threads) do
    bad = bad + thread:get("bad")
  end
  local rate = summary.requests / (summary.duration / 1e6)
  local p50, p99 = latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  io.write(string.format("RESULT %.0f %.3f %.3f %d %d\n", rate, p50, p99, bad, e.connect + e.read + e.write + e.timeout))
end
