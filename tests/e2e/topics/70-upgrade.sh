# shellcheck shell=bash
# A rolling restart loses no request; `helm upgrade` upgrades the CustomResourceDefinition as well.
topic_upgrade() {
  topic "Rolling restart and upgrade"
  if [ "$CLUSTER" = local ]; then rolling_restart; else skip "rolling restart" "requests through a port-forward end with its pod"; fi
  crd_is_upgraded
}

# steady_requests: one new connection after another through the Service until $work/enough exists; a line for each failure
steady_requests() {
  local url n=0 body start took slowest=0
  url=$service_url$(fn steady)
  until [ -e "$work/enough" ] || [ $n -ge 20000 ]; do
    n=$((n + 1)) start=$(now_ms)
    body=$(get "$url" 2>&1)
    took=$(($(now_ms) - start))
    [ $took -le $slowest ] || slowest=$took
    [ "$body" = steady ] || echo "request $n: $body" >>"$work/lost"
  done
  echo "$n, the slowest took $slowest ms"
}

rolling_restart() {
  local before=${pods[*]} requests
  rm -f "$work/enough"; : >"$work/lost"
  steady_requests >"$work/requests" &
  requests=$!
  kubectl rollout restart daemonset/isolet-runtime -n "$system" >/dev/null
  check "kubectl rollout restart of the runtime" kubectl rollout status daemonset/isolet-runtime -n "$system" --timeout=180s
  eventually 90 "the old pods are gone" pods_are_new "$before"
  touch "$work/enough"
  wait $requests
  same "no request was lost" "" "$(head -n 5 "$work/lost")"
  note "requests: $(cat "$work/requests")"
  endpoints
  eventually 60 "the new pods serve all Functions" all_functions_ready
}

pods_are_new() {
  local pod
  for pod in $1; do
    if kubectl get pod "$pod" -n "$system" >/dev/null 2>&1; then echo "$pod"; return 1; fi
  done
  every_node_serves
}

crd_is_upgraded() {
  local arguments; mapfile -t arguments < <(chart_values)
  cp -R charts/isolet "$work/next"
  sed -i 's/name: Size$/name: Bytes/' "$work/next/templates/crds.yaml"
  check "helm upgrade to a chart with another CustomResourceDefinition" helm upgrade isolet "$work/next" "${arguments[@]}"
  has "the CustomResourceDefinition is the new one" Bytes \
    "$(kubectl get crd functions.isolet.dev -o jsonpath='{.spec.versions[0].additionalPrinterColumns[*].name}')"
  check "helm upgrade back" helm upgrade isolet charts/isolet "${arguments[@]}"
  eventually 60 "every node serves" every_node_serves
  endpoints
  check "the Functions are still there and serve" answers "hello world" "$service_url$(fn hello)"
}
