# shellcheck shell=bash
# 500 Functions at once: all become Ready, each answers with its own name on every node; then all of them change while the
# operator is killed; then their namespace goes while the operator is away.
crowd=isolet-e2e-crowd
count=500

topic_scale() {
  topic "$count Functions at once"
  local start
  kubectl create namespace "$crowd" >/dev/null
  many 1 >"$work/many.yaml"
  start=$(now_ms)
  kubectl create -n "$crowd" -f "$work/many.yaml" >"$work/create.log" 2>&1 || bad "kubectl create" "$(tail -n 5 "$work/create.log")"
  note "kubectl create took $(($(now_ms) - start)) ms"
  eventually 120 "all $count are Ready" all_ready
  note "create to all Ready: $(($(now_ms) - start)) ms"
  memory "before the first request to each"
  start=$(now_ms)
  each_answers 1
  note "first requests, $((count * ${#urls[@]})) of them, one isolate each: $(($(now_ms) - start)) ms"
  memory "with an isolate for each Function"

  topic "The operator is killed while $count Functions change"
  many 2 >"$work/many.yaml"
  kubectl apply --server-side --force-conflicts -n "$crowd" -f "$work/many.yaml" >"$work/apply.log" 2>&1 &
  local applying=$!
  eventually 60 "the operator is at work" some_ready_again
  check "the operator is killed" kubectl delete pod -n "$system" -l app.kubernetes.io/component=operator --grace-period=0 --force
  note "$(generations) of $count had their new revision Ready then"
  wait $applying || bad "kubectl apply" "$(tail -n 5 "$work/apply.log")"
  eventually 180 "all $count become Ready" all_ready
  each_answers 2

  topic "A namespace is deleted while the operator is away"
  kubectl scale deployment isolet-operator -n "$system" --replicas=0 >/dev/null
  check "the namespace ends" kubectl delete namespace "$crowd" --timeout=120s
  kubectl scale deployment isolet-operator -n "$system" --replicas=1 >/dev/null
  eventually 120 "the operator sweeps the bundles" no_bundles_of "$crowd"
  eventually 60 "runtime pods forget the Functions" forgotten
}

many() { # many ROUND: manifests
  local n
  for n in $(seq "$count"); do inline "f$n" "$(says "f$n round $1")"; echo ---; done
}

generations() { # how many of the crowd are Ready with their current generation, at least the one given
  kubectl get functions -n "$crowd" -o json | jq --argjson least "${1:-2}" '[.items[]
    | select(.metadata.generation >= $least and .status.observedGeneration == .metadata.generation)
    | select(any(.status.conditions[]?; .type == "Ready" and .status == "True"))] | length'
}
all_ready() {
  local n; n=$(kubectl get functions -n "$crowd" -o json | jq '[.items[]
    | select(.status.observedGeneration == .metadata.generation)
    | select(any(.status.conditions[]?; .type == "Ready" and .status == "True"))] | length')
  if [ "$n" != "$count" ]; then echo "$n of $count"; return 1; fi
}
some_ready_again() { [ "$(generations 2)" -ge 20 ]; }

each_answers() { # each_answers ROUND
  local i n wrong=0 first='' was
  rm -rf "$work/answers"; mkdir -p "$work/answers"
  for i in "${!urls[@]}"; do
    for n in $(seq "$count"); do
      printf 'url = "%s%s"\noutput = "%s"\n' "${urls[i]}" "$(fn "f$n" "$crowd")" "$work/answers/$i-$n"
    done
  done >"$work/urls"
  curl --silent --max-time 20 --parallel --parallel-max 16 --config "$work/urls" 2>"$work/curl.log"
  for i in "${!urls[@]}"; do
    for n in $(seq "$count"); do
      was=$(cat "$work/answers/$i-$n" 2>/dev/null)
      if [ "$was" != "f$n round $1" ]; then
        wrong=$((wrong + 1))
        [ -n "$first" ] || first="f$n at ${urls[i]}: $was"
      fi
    done
  done
  if [ $wrong = 0 ]; then ok "each answers with its own name on all ${#urls[@]} nodes, round $1"
  else bad "each answers with its own name on all ${#urls[@]} nodes, round $1" "$wrong wrong, such as $first"; fi
}

memory() {
  if [ "$CLUSTER" != local ]; then note "memory $1: only known on the local cluster"; return; fi
  local name node pid
  for name in bin/isolet-operator "bin/isolet agent" "$worker_process"; do
    for node in "${nodes[@]}"; do
      pid=$(process "$node" "$name" 2>/dev/null) || continue
      note "memory $1: ${name%% --*} on $node $(awk '/^VmRSS/ { printf "%d MiB", $2 / 1024 }' "/proc/$pid/status")"
    done
  done
}

bundles_of() { kubectl get configmaps,secrets -n "$system" -l "isolet.dev/bundle,isolet.dev/function-namespace=$1" -o name; }
no_bundles_of() { local left; left=$(bundles_of "$1"); if [ -n "$left" ]; then wc -l <<<"$left"; return 1; fi; }
forgotten() {
  local url
  for url in "${urls[@]}"; do answers NotFound "$url$(fn f1 "$crowd")" || return; done
}
