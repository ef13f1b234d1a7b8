# shellcheck shell=bash
# The three clusters to test on. Each has: start, load (images), stop, and for the suite pod_url and service_address.
#
#   local     tests/cluster: two nodes of our own on this machine; the suite runs in the cluster's network
#   current   the one that kubectl talks to; images come from REPOSITORY (a registry that its nodes can pull from)
#   kind      made with kind and Docker, two nodes
export_images() { export REPOSITORY=${REPOSITORY:-isolet} TAG=${TAG:-dev}; }

local_start() {
  [ "$(id -u)" = 0 ] || { echo "the local cluster needs root; or CLUSTER=current, CLUSTER=kind" >&2; return 1; }
  local_tool up 2
}
local_tool() { tests/cluster/cluster "$@"; }
local_load() { local_tool load "$@"; }
local_stop() { local_tool down; }
local_enter() { mapfile -t enter < <(local_tool enter); }

current_start() {
  local tool
  for tool in kubectl helm; do command -v $tool >/dev/null || { echo "CLUSTER=$CLUSTER needs $tool" >&2; return 1; }; done
  kubectl cluster-info
}
current_load() { :; }
# What an interrupted run has left; nothing that was there before.
current_stop() {
  [ -e "$work/installed" ] || return 0
  helm uninstall isolet -n isolet-system --wait >/dev/null 2>&1
  kubectl delete namespace isolet-system isolet-e2e isolet-e2e-strangers isolet-e2e-crowd --ignore-not-found
  kubectl delete crd functions.isolet.dev --ignore-not-found
}
current_enter() { enter=(env); }

kind_start() {
  docker info >/dev/null 2>&1 || { echo "CLUSTER=kind needs Docker" >&2; return 1; }
  local tool
  for tool in kind kubectl helm; do command -v $tool >/dev/null || { echo "CLUSTER=kind needs $tool" >&2; return 1; }; done
  export KUBECONFIG=$work/kubeconfig
  printf 'kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{role: control-plane}, {role: worker}, {role: worker}]\n' |
    kind create cluster --name isolet-e2e --config - --wait 120s
}
kind_load() { local tar; for tar in "$@"; do kind load image-archive --name isolet-e2e "$tar"; done; }
kind_stop() { kind delete cluster --name isolet-e2e; }
kind_enter() { enter=(env); }

# In the local cluster pods and Services are reached at their own addresses, elsewhere through kubectl.
if [ "${CLUSTER:-}" = local ]; then
  pod_url() { echo "http://$2:8080"; }
  service_address() { echo "http://$(kubectl get service isolet -n "$system" -o jsonpath='{.spec.clusterIP}')"; }
else
  pod_url() { forward "pod/$1" 8080; }
  service_address() { forward service/isolet 80; }
fi

# forward OBJECT PORT: the address of a local port that leads there; the forwarder of an object is kept while it lives
forward() {
  local file=$work/forward-${1//\//-}
  if ! { [ -e "$file" ] && kill -0 "$(cat "$file.pid")" 2>/dev/null; }; then
    kubectl port-forward -n "$system" "$1" ":$2" >"$file" 2>&1 &
    echo $! >"$file.pid"
    until grep -q '^Forwarding' "$file"; do kill -0 $! 2>/dev/null || { cat "$file" >&2; return 1; }; sleep 0.05; done
  fi
  sed -n 's/^Forwarding from \(127.0.0.1:[0-9]*\) .*/http:\/\/\1/p' "$file"
}
stop_forwards() {
  local pid
  for pid in "$work"/forward-*.pid; do [ ! -e "$pid" ] || kill "$(cat "$pid")" 2>/dev/null; done
}
