# shellcheck shell=bash
# What every part of the tests uses: checks that print a line each, waiting, requests, measurements.
passed=0 failed=0 not_run=0
system=isolet-system             # namespace of Isolet
tenant=isolet-e2e                # namespace that lets Functions read its Secrets and ConfigMaps
stranger=isolet-e2e-strangers    # namespace that does not
domain=isolet.test

indented() { printf '%s\n' "$2" | sed "s/^/$(printf '%*s' "$1" '')/"; } # indented COLUMNS TEXT
ok() { passed=$((passed + 1)); printf 'ok      %s\n' "$*"; }
bad() { # bad WHAT [DETAIL]
  failed=$((failed + 1)); printf 'FAILED  %s\n' "$1"
  [ -z "${2:-}" ] || indented 10 "$2"
}
skip() { not_run=$((not_run + 1)); printf 'not run %s: %s\n' "$1" "$2"; }
note() { printf '        %s\n' "$*"; }
topic() { printf '\n%s\n' "$*"; }

# check WHAT CMD...: passes if CMD does; its output is shown if not.
check() {
  local what=$1 out; shift
  if out=$("$@" 2>&1); then ok "$what"; else bad "$what" "$out"; return 1; fi
}

# eventually SECONDS WHAT CMD...: passes as soon as CMD does.
eventually() {
  local seconds=$1 what=$2 out; shift 2
  local deadline=$((SECONDS + seconds))
  until out=$("$@" 2>&1); do
    if [ $SECONDS -ge $deadline ]; then bad "$what (waited $seconds s)" "$out"; return 1; fi
    sleep 0.1
  done
  ok "$what"
}

# same WHAT EXPECTED ACTUAL
same() {
  if [ "$2" = "$3" ]; then ok "$1"; else bad "$1" "expected: $2"$'\n'"was:      $3"; return 1; fi
}

# has WHAT PART TEXT: TEXT contains PART
has() {
  if [[ $3 == *"$2"* ]]; then ok "$1"; else bad "$1" "expected: …$2…"$'\n'"was:      $3"; return 1; fi
}

now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo "${t%???}"; }

# get URL [CURL-ARGUMENT...]: the body, whatever the status
get() { curl --silent --show-error --max-time 15 "$@"; }
# answers PART URL [CURL-ARGUMENT...]: the body contains PART
answers() {
  local part=$1 body; shift
  body=$(get "$@") || return
  [[ $body == *"$part"* ]] || { echo "expected …$part…, was: $body"; return 1; }
}
# fn NAME [NAMESPACE]: path of a Function
fn() { echo "/fn/${2:-$tenant}/$1/"; }

# condition NAME TYPE FIELD [NAMESPACE]: of a Function
condition() {
  kubectl get function "$1" -n "${4:-$tenant}" -o jsonpath="{.status.conditions[?(@.type==\"$2\")].$3}"
}
# current NAME [NAMESPACE]: the status speaks of the spec as it is now
current() {
  local generations
  generations=$(kubectl get function "$1" -n "${2:-$tenant}" -o jsonpath='{.metadata.generation} {.status.observedGeneration}')
  [ "${generations% *}" = "${generations#* }" ] || { echo "generation and observedGeneration: $generations"; return 1; }
}
ready() { # ready NAME [NAMESPACE]
  current "$@" || return
  [ "$(condition "$1" Ready status "${2:-$tenant}")" = True ] || {
    kubectl get function "$1" -n "${2:-$tenant}" -o jsonpath='{.status.conditions}'; return 1; }
}

# inline NAME CODE [SPEC-LINE...]: a manifest of a Function of one module, each further argument a line of its spec
inline() {
  local name=$1 code=$2; shift 2
  printf 'apiVersion: isolet.dev/v1alpha1\nkind: Function\nmetadata: { name: %s }\nspec:\n' "$name"
  printf '  source:\n    inline: |\n'
  indented 6 "$code"
  if [ $# -gt 0 ]; then printf '  %s\n' "$@"; fi
}
# says TEXT: the code of a Function that answers TEXT
says() { printf 'export default { fetch(): Response { return new Response("%s\\n"); } };\n' "$1"; }

runtime_pods() { # NODE NAME IP of each runtime pod that is ready and stays, by node
  kubectl get pods -n "$system" -l app.kubernetes.io/component=runtime -o json | jq -r '
    [.items[] | select(.metadata.deletionTimestamp == null)
      | select(any(.status.conditions[]?; .type == "Ready" and .status == "True"))
      | [.spec.nodeName, .metadata.name, .status.podIP]] | sort[] | @tsv'
}

# endpoints: fills `pods`, `nodes` and `urls` with the runtime pods' and `service_url` with the Service's
endpoints() {
  local node pod ip
  pods=() nodes=() urls=()
  while IFS=$'\t' read -r node pod ip; do
    nodes+=("$node") pods+=("$pod") urls+=("$(pod_url "$pod" "$ip")")
  done < <(runtime_pods)
  service_url=$(service_address)
}

worker_process="worker --listener-fd" # on the command line of no other process
# process NODE PATTERN: id of the process on that node of the local cluster whose command line matches
process() {
  local pid
  for pid in $(pgrep -f "$2"); do
    if grep -q "/$1/" "/proc/$pid/cgroup" 2>/dev/null; then echo "$pid"; return; fi
  done
  echo "no process $2 on $1" >&2
  return 1
}
