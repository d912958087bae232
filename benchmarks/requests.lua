-- A script for wrk: it sends the requests of one operation in turn, and prints the result as a line of JSON.
-- Arguments: the method, a file with a token and a path on each line, and the body (may be empty).
local requests, turn = {}, 0

function init(arguments)
  local method, file, body = arguments[1], arguments[2], arguments[3]
  for line in io.lines(file) do
    local token, path = line:match("(%S+) (%S+)")
    local headers = { ["Authorization"] = "Bearer " .. token }
    if body ~= "" then
      headers["Content-Type"] = "application/json"
    end
    requests[#requests + 1] = wrk.format(method, path, headers, body ~= "" and body or nil)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
