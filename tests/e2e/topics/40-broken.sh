# shellcheck shell=bash
# Broken input, each with the text that the user sees; the neighbours go on. Each file of broken/ says on top what is to
# come of it:
#   refused: TEXT                   kubectl apply fails with it
#   condition: TYPE REASON          the condition is False for it; message: TEXT is a part of its message
#   answer: STATUS REASON           to a request; body-bytes: N of a body; hidden: TEXT is not in it; log: TEXT is logged
#   namespace: NAME                 where, if not with the others
topic_broken() {
  topic "Broken input"
  inline neighbour "$(says "good morning")" 'routes: [{ host: neighbour.e2e.example.com }]' |
    kubectl apply -n "$tenant" -f - >/dev/null
  eventually 20 "the neighbour is ready" ready neighbour
  local file
  for file in tests/e2e/broken/*.yaml; do broken "$file"; done
  bundle_too_large
  update_that_fails
}

header() { sed -n "s/^# $1: //p" "$2"; }

broken() {
  local file=$1 name namespace out part
  name=$(basename "$file" .yaml)
  namespace=$(header namespace "$file"); namespace=${namespace:-$tenant}
  out=$(kubectl apply -n "$namespace" -f "$file" 2>&1)
  local applied=$?
  if part=$(header refused "$file") && [ -n "$part" ]; then
    note "$out"
    if [ $applied != 0 ]; then has "$name: kubectl apply is refused" "$part" "$out"; else bad "$name: kubectl apply is refused" "$out"; fi
  elif [ $applied != 0 ]; then
    bad "$name: kubectl apply" "$out"
  elif [ -n "$(header condition "$file")" ]; then
    refused_by_operator "$file" "$name" "$namespace"
  else
    refused_by_worker "$file" "$name" "$namespace"
  fi
  local url wrong=''
  for url in "${urls[@]}"; do
    out=$(get --max-time 2 "$url$(fn neighbour)" 2>&1)
    [ "$out" = "good morning" ] || wrong+="$url: $out"$'\n'
  done
  same "$name: the neighbour goes on" "" "$wrong"
}

refused_by_operator() {
  local file=$1 name=$2 namespace=$3 type reason part message
  read -r type reason <<<"$(header condition "$file")"
  eventually 20 "$name: $type is False, $reason" false_for "$name" "$type" "$reason" "$namespace"
  message=$(condition "$name" "$type" message "$namespace")
  note "$message"
  while read -r part; do [ -z "$part" ] || has "$name: the message says $part" "$part" "$message"; done <<<"$(header message "$file")"
  same "$name: Ready is False for the same reason" "False $reason" \
    "$(condition "$name" Ready status "$namespace") $(condition "$name" Ready reason "$namespace")"
}

false_for() { # NAME TYPE REASON NAMESPACE
  local is; is="$(condition "$1" "$2" status "$4") $(condition "$1" "$2" reason "$4")"
  [ "$is" = "False $3" ] || { echo "$is"; return 1; }
}

refused_by_worker() {
  local file=$1 name=$2 namespace=$3 status reason url out body
  read -r status reason <<<"$(header answer "$file")"
  eventually 20 "$name: is ready, its code is sound" ready "$name" "$namespace" || return
  local arguments=(-o "$work/body" -w '%{http_code}') bytes hidden logged
  bytes=$(header body-bytes "$file")
  if [ -n "$bytes" ]; then
    head -c "$bytes" /dev/zero | tr '\0' x >"$work/request-body"
    arguments+=(--data-binary "@$work/request-body")
  fi
  for url in "${urls[@]}"; do
    out=$(get "$url$(fn "$name" "$namespace")" "${arguments[@]}")
    body=$(cat "$work/body")
    same "$name: $status $reason at $url" "$status $reason" "$out $(jq -r .error.reason <<<"$body" 2>&1)"
  done
  note "$body"
  hidden=$(header hidden "$file")
  if [ -n "$hidden" ]; then
    if [[ $body == *"$hidden"* ]]; then bad "$name: internals are kept from the caller" "$body"; else ok "$name: internals are kept from the caller"; fi
  fi
  logged=$(header log "$file")
  if [ -n "$logged" ]; then
    eventually 10 "$name: the log has $logged" logs_have "$name" "$logged"
    note "$(runtime_logs | grep -F "\"$name\"" | grep -F "$logged" | tail -n 1)"
  fi
}

runtime_logs() { kubectl logs -n "$system" -l app.kubernetes.io/component=runtime --tail=-1 --since=2m; }
logs_have() { runtime_logs | grep -F "$1" | grep -qF "$2" || { echo "no such line"; return 1; }; }

# 210 values of 64 KiB that do not compress: larger than a runtime pod takes, in pieces that the API server takes.
bundle_too_large() {
  local part key file=$work/large.yaml
  : >"$file"
  for part in $(seq 15); do
    printf -- '---\napiVersion: v1\nkind: ConfigMap\nmetadata: { name: large-%d }\ndata:\n' "$part"
    for key in $(seq 14); do printf '  v%d: %s\n' "$key" "$(openssl rand -base64 48000 | tr -d '\n')"; done
  done >"$file"
  kubectl create -n "$tenant" -f "$file" >/dev/null
  {
    inline bundle-too-large "$(says large)"
    echo "  env:"
    for part in $(seq 15); do
      for key in $(seq 14); do
        echo "    - { name: V${part}_$key, valueFrom: { configMapKeyRef: { name: large-$part, key: v$key } } }"
      done
    done
  } >"$file"
  check "bundle-too-large: kubectl apply" kubectl apply -n "$tenant" -f "$file"
  eventually 30 "bundle-too-large: Accepted is False, BundleTooLarge" false_for bundle-too-large Accepted BundleTooLarge "$tenant"
  note "$(condition bundle-too-large Accepted message)"
  kubectl delete -n "$tenant" -f "$file" --wait=false >/dev/null
  for part in $(seq 15); do echo "large-$part"; done | xargs kubectl delete configmap -n "$tenant" --wait=false >/dev/null
}

# A broken change leaves what was there, and says so.
update_that_fails() {
  inline neighbour "export default { fetch() { return" 'routes: [{ host: neighbour.e2e.example.com }]' |
    kubectl apply -n "$tenant" -f - >/dev/null
  eventually 20 "a broken change: Accepted is False, SyntaxError" false_for neighbour Accepted SyntaxError "$tenant"
  local url
  for url in "${urls[@]}"; do
    check "a broken change: the old revision serves at $url" answers "good morning" "$url$(fn neighbour)"
  done
  note "$(condition neighbour Ready message)"
  inline neighbour "$(says "good evening")" 'routes: [{ host: neighbour.e2e.example.com }]' |
    kubectl apply -n "$tenant" -f - >/dev/null
  eventually 20 "a repaired change is ready" ready neighbour
}
