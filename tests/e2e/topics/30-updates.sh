# shellcheck shell=bash
# How long a change takes: from the start of `kubectl apply` to the first correct answer, on every node.
topic_updates() {
  topic "20 changes of one Function"
  local n took=() applied=() start wrong=0
  inline changing "$(says "change 0")" | kubectl apply -n "$tenant" -f - >/dev/null
  eventually 20 "the Function to change is ready" ready changing
  for n in $(seq 20); do
    inline changing "$(says "change $n")" >"$work/change.yaml"
    start=$(now_ms)
    watchers=()
    local i
    for i in "${!urls[@]}"; do
      first_answer "change $n" "${urls[i]}$(fn changing)" >"$work/first-$i" &
      watchers+=($!)
    done
    kubectl apply -n "$tenant" -f "$work/change.yaml" >/dev/null
    applied+=($(($(now_ms) - start)))
    wait "${watchers[@]}"
    local last=0 at
    for i in "${!urls[@]}"; do
      at=$(cat "$work/first-$i")
      if [ -z "$at" ]; then wrong=$((wrong + 1)); else [ "$at" -le "$last" ] || last=$at; fi
    done
    took+=($((last - start)))
  done
  same "every change arrived on every node" 0 "$wrong"
  note "apply to first correct answer on ${#urls[@]} nodes: $(spread "${took[@]}")"
  note "of that, kubectl apply alone: $(spread "${applied[@]}")"
  eventually 20 "the last change is Ready" ready changing
}

# first_answer TEXT URL: prints when TEXT first came; nothing after 20 seconds
first_answer() {
  local deadline=$((SECONDS + 20))
  until [ "$(get "$2")" = "$1" ]; do [ $SECONDS -lt $deadline ] || return; done
  now_ms
}

spread() {
  local sorted; mapfile -t sorted < <(printf '%s\n' "$@" | sort -n)
  echo "median ${sorted[$# / 2]} ms, best ${sorted[0]} ms, worst ${sorted[-1]} ms"
}
