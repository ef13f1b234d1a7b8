-- wrk … -- PATHS-FILE: GETs the paths of that file, a line each, one after the other and again.
dofile("tests/bench/lua/report.lua")
local texts, next_text = {}, 0

function init(args)
  for path in io.lines(args[1]) do
    texts[#texts + 1] = wrk.format("GET", path)
  end
end

function request()
  next_text = next_text % #texts + 1
  return texts[next_text]
end
