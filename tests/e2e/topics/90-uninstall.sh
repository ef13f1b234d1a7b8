# shellcheck shell=bash
# Nothing hangs after an uninstall: Functions can be deleted, namespaces end, bundles are gone.
topic_uninstall() {
  topic "Uninstall"
  check "a Function is deleted" kubectl delete function steady -n "$tenant" --timeout=10s
  eventually 30 "its bundles go" no_bundles_named steady
  eventually 10 "it answers no more" answers NotFound "$service_url$(fn steady)"
  check "helm uninstall" helm uninstall isolet -n "$system" --wait --timeout 120s
  check "the Functions stay" kubectl get function hello -n "$tenant"
  eventually 60 "the bundles go with the DaemonSet" no_bundles
  check "a Function is deleted without the operator" kubectl delete function hello -n "$tenant" --timeout=10s
  check "namespaces end" kubectl delete namespace "$tenant" "$stranger" "$system" --timeout=90s
  check "the CustomResourceDefinition is deleted" kubectl delete crd functions.isolet.dev --timeout=30s
  rm -f "$work/installed"
  local left
  left=$(kubectl get clusterroles,clusterrolebindings -o name | grep isolet)
  same "nothing of Isolet is left in the cluster" "" "$left"
}

no_bundles() {
  local left; left=$(kubectl get configmaps,secrets -n "$system" -l isolet.dev/bundle -o name)
  if [ -n "$left" ]; then wc -l <<<"$left"; return 1; fi
}
no_bundles_named() {
  local left; left=$(kubectl get configmaps,secrets -n "$system" -l "isolet.dev/bundle,isolet.dev/function-name=$1" -o name)
  if [ -n "$left" ]; then echo "$left"; return 1; fi
}
