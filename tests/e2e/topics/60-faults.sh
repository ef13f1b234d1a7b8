# shellcheck shell=bash
# Parts die, the rest goes on. Needs the nodes' processes: the local cluster only.
topic_faults() {
  topic "Faults"
  if [ "$CLUSTER" != local ]; then skip "faults" "only on the local cluster, whose daemons and processes can be killed"; return; fi
  worker_killed
  runtime_restarted_without_api
  kubelet_stopped
}

# kill_process NODE PATTERN: kills one process by its id and waits for its end: until then it, or the children that end
# with a container's first process, may answer once more
kill_process() {
  local pid; pid=$(process "$1" "$2") && kill -KILL "$pid" && timeout 30 tail -s 0.01 --pid="$pid" -f /dev/null
}

# serves_again WHAT URL: and how long after now
serves_again() {
  local start; start=$(now_ms)
  until [ "$(get --max-time 1 "$2" 2>/dev/null)" = steady ]; do
    [ $(($(now_ms) - start)) -lt 60000 ] || { bad "$1" "not within a minute"; return 1; }
  done
  ok "$1"
  note "after $(($(now_ms) - start)) ms"
}

worker_killed() {
  local node=${nodes[0]} url=${urls[0]}; url+=$(fn steady)
  local other=${urls[1]}; other+=$(fn steady)
  check "a worker is killed" kill_process "$node" "$worker_process"
  serves_again "its pod serves again" "$url"
  check "another Function of that pod serves" answers "hello world" "${urls[0]}$(fn hello)"
  check "the other node serves" answers steady "$other"
  same "the container was not restarted" 0 "$(restarts "${pods[0]}")"
}

restarts() { kubectl get pod "$1" -n "$system" -o jsonpath='{.status.containerStatuses[0].restartCount}'; }

runtime_restarted_without_api() {
  local node=${nodes[0]} url=${urls[0]}; url+=$(fn steady)
  local before after; before=$(process "$node" "isolet agent")
  check "the API server is stopped" tests/cluster/cluster stop kube-apiserver
  check "a runtime pod's container is killed" kill_process "$node" "isolet agent"
  serves_again "it serves what it served, without the API server" "$url"
  after=$(process "$node" "isolet agent")
  if [ -n "$after" ] && [ "$before" != "$after" ]; then ok "it is another process"; else bad "it is another process" "$before, $after"; fi
  check "so do other Functions" answers "fib(10) = 55" "${urls[0]}$(fn wasm)"
  check "the other node serves meanwhile" answers steady "${urls[1]}$(fn steady)"
  check "the API server is back" tests/cluster/cluster start kube-apiserver
  eventually 60 "the API server answers" kubectl get --raw /readyz
  eventually 60 "every node serves" every_node_serves
  change_arrives "after the API server"
}

change_arrives() { # change_arrives TEXT: a change reaches the runtime pods there are
  local url
  inline restarted "$(says "$1")" | kubectl apply -n "$tenant" -f - >/dev/null
  for url in "${urls[@]}"; do eventually 30 "a change arrives at $url" answers "$1" "$url$(fn restarted)"; done
  eventually 30 "and is Ready" ready restarted
}

kubelet_stopped() {
  local node=${nodes[1]} all=("${urls[@]}")
  check "the kubelet of $node is stopped" tests/cluster/cluster stop "$node/kubelet"
  eventually 90 "$node is not ready" kubectl wait --for=condition=Ready=Unknown "node/$node" --timeout=1s
  eventually 30 "its pod leaves the Service" one_endpoint
  endpoints
  same "one runtime pod is left" 1 "${#urls[@]}"
  local n wrong=0
  for n in $(seq 50); do [ "$(get "$service_url$(fn steady)")" = steady ] || wrong=$((wrong + 1)); done
  same "50 requests through the Service are answered" 0 "$wrong"
  change_arrives "without $node"
  check "the kubelet is back" tests/cluster/cluster start "$node/kubelet"
  eventually 90 "$node is ready" kubectl wait --for=condition=Ready "node/$node" --timeout=1s
  eventually 60 "every node serves" every_node_serves
  endpoints
  same "all runtime pods are back" "${#all[@]}" "${#urls[@]}"
  eventually 30 "the change is on all nodes" nodes_summary restarted "${#urls[@]}/${#urls[@]}"
}

one_endpoint() {
  local n; n=$(kubectl get endpointslices -n "$system" -l kubernetes.io/service-name=isolet -o json |
    jq '[.items[].endpoints[]? | select(.conditions.ready)] | length')
  [ "$n" = 1 ] || { echo "$n endpoints"; return 1; }
}
nodes_summary() {
  local is; is=$(kubectl get function "$1" -n "$tenant" -o jsonpath='{.status.nodes.summary}')
  [ "$is" = "$2" ] || { echo "$is"; return 1; }
}
