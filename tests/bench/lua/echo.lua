-- wrk … -- BODY-FILE: POST of that file as JSON.
dofile("tests/bench/lua/report.lua")
local text

function init(args)
  local file = assert(io.open(args[1]))
  local body = file:read("*a")
  file:close()
  text = wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, body)
end

function request()
  return text
end
