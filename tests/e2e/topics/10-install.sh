# shellcheck shell=bash
# Helm installs into a namespace that enforces Pod Security `restricted`, and everything becomes ready.
chart_values() { # the arguments of helm install and upgrade
  printf '%s\n' --namespace "$system" --values tests/e2e/values.yaml --wait --timeout 180s \
    --set "operator.image.repository=$REPOSITORY/operator,operator.image.tag=$TAG" \
    --set "runtime.image.repository=$REPOSITORY/runtime,runtime.image.tag=$TAG"
}

topic_install() {
  topic "Install"
  if kubectl get crd functions.isolet.dev >/dev/null 2>&1; then
    bad "the cluster has no Isolet yet" "there is a CustomResourceDefinition functions.isolet.dev; these tests install and remove it"
    exit 1
  fi
  touch "$work/installed"
  kubectl create namespace "$system" >/dev/null
  kubectl label namespace "$system" pod-security.kubernetes.io/enforce=restricted >/dev/null
  local arguments start out
  mapfile -t arguments < <(chart_values)
  start=$(now_ms)
  if out=$(helm install isolet charts/isolet "${arguments[@]}" 2>&1); then
    ok "helm install --wait"
    note "it took $(($(now_ms) - start)) ms"
  else
    bad "helm install --wait" "$out"
    kubectl get pods,events -n "$system"
    kubectl logs -n "$system" -l app.kubernetes.io/part-of=isolet --tail=50 --prefix
    exit 1
  fi
  has "the notes tell the first command" "kubectl apply -f -" "$out"
  eventually 30 "a runtime pod on every node is ready" every_node_serves
  endpoints
  note "runtime pods: ${pods[*]} on ${nodes[*]}"
  for namespace in "$tenant" "$stranger"; do kubectl create namespace "$namespace" >/dev/null; done
  kubectl apply -n "$tenant" -f examples/allow-references.yaml >/dev/null
  inline steady "$(says steady)" | kubectl apply -n "$tenant" -f - -f examples/hello.yaml -f examples/wasm.yaml >/dev/null
  eventually 30 "the first Functions are Ready" all_functions_ready
  eventually 60 "the Service answers" answers steady "$service_url$(fn steady)"
}

every_node_serves() {
  local want have
  want=$(kubectl get daemonset isolet-runtime -n "$system" -o jsonpath='{.status.desiredNumberScheduled}')
  have=$(runtime_pods | wc -l)
  if [ "$want" = 0 ] || [ "$want" != "$have" ]; then echo "$have of $want"; return 1; fi
}

all_functions_ready() { kubectl wait -n "$tenant" --for=condition=Ready function/steady function/hello function/wasm --timeout=1s; }
