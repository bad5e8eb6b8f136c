-- wrk: one tools/call after the other in the session of $MCP_SESSION. An answer that is not 200
-- or has no result is an error. Ends with the line that run.sh reads:
--   RESULT requests/s p50-ms p99-ms errors

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json, text/event-stream"
wrk.headers["MCP-Protocol-Version"] = "2025-06-18"
wrk.headers["Mcp-Session-Id"] = os.getenv("MCP_SESSION")
local authorization = os.getenv("AUTHORIZATION")
if authorization and authorization ~= "" then
  wrk.headers["Authorization"] = authorization
end

local threads = {}

function setup(thread)
  table.insert(threads, thread)
  -- Ids of two threads must differ: they share the session.
  thread:set("next_id", #threads * 1000000000)
end

-- An id must be in use once at a time.
function request()
  next_id = next_id + 1
  return wrk.format(nil, nil, nil, string.format('{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"message":"hello"}}}', next_id))
end

function init()
  -- A global, since done() can read only those of a thread.
  bad = 0
end

function response(status, _, body)
  if status ~= 200 or not string.find(body, '"result"', 1, true) then
    bad = bad + 1
    if bad == 1 then
      io.stderr:write("wrong answer: ", status, " ", string.sub(body, 1, 300), "\n")
    end
  end
end

function done(summary, latency)
  local e = summary.errors
  -- Not e.status: those are among the bad ones.
  local errors = e.connect + e.read + e.write + e.timeout
  for _, thread in ipairs(threads) do
    errors = errors + thread:get("bad")
  end
  local rate = summary.requests / (summary.duration / 1e6)
  local p50, p99 = latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  io.write(string.format("RESULT %.0f %.3f %.3f %d\n", rate, p50, p99, errors))
end
