# shellcheck shell=bash
# What a newcomer does: applies examples/, waits, reads `kubectl get`, and asks each Function through the Service and on
# every node.
topic_examples() {
  topic "Examples"
  check "kubectl apply -f examples/" kubectl apply -n "$tenant" -f examples/
  check "kubectl wait --for=condition=Ready function --all" \
    kubectl wait -n "$tenant" --for=condition=Ready function --all --timeout=60s
  local table; table=$(kubectl get functions -n "$tenant")
  printf '%s\n' "$table"
  table_is_right "$table"

  local url
  for url in "$service_url" "${urls[@]}"; do
    check "hello answers by path at $url" answers "hello Ada" "$url$(fn hello)?name=Ada"
    check "hello answers by Host at $url" answers "hello world" "$url/" -H "Host: hello.$tenant.$domain"
    check "routes answers at shop.example.com/v1 at $url" \
      answers "shop.example.com has no /v1/prices today" "$url/v1/prices" -H "Host: shop.example.com"
    check "wasm computes at $url" answers "fib(90) = 2880067194370816120" "$url$(fn wasm)?n=90"
    check "env-and-secret has both values at $url" \
      answers "prices are in EUR" "$url$(fn env-and-secret)" -H "Authorization: Bearer open-sesame"
    check "env-and-secret refuses another token at $url" \
      answers "who are you?" "$url$(fn env-and-secret)" -H "Authorization: Bearer guess"
  done
  url=$service_url
  if [ "$CLUSTER" = local ]; then
    check "hello answers by the Service's DNS name" tests/cluster/cluster exec curl -sSf --max-time 15 \
      "http://isolet.$system.svc.cluster.local$(fn hello)"
  fi
  same "a host that nobody has is 404" 404 "$(get "$url/" -H "Host: nobody.example.com" -o "$work/body" -w '%{http_code}')"
  has "and says so in JSON" NotFound "$(cat "$work/body")"

  local echoed
  echoed=$(get "$url$(fn echo)a/b?c=d" -X PUT -H "X-Colour: blue" -d "some text" |
    jq -c '[.method, .path, .headers["x-colour"], .body]')
  same "echo gives method, path, header and body back" '["PUT","/a/b?c=d","blue","some text"]' "$echoed"
  stream_arrives_in_pieces "$url$(fn stream)"
  outbound
}

table_is_right() {
  local wrong
  wrong=$(tail -n +2 <<<"$1" | awk -v nodes="${#urls[@]}/${#urls[@]}" \
    '$2 !~ /^http:/ || $3 != "True" || length($5) != 12 || $6 != nodes')
  if [ -z "$wrong" ] && [ "$(wc -l <<<"$1")" -ge 8 ]; then ok "kubectl get shows URL, Ready, Revision and Nodes"
  else bad "kubectl get shows URL, Ready, Revision and Nodes" "${wrong:-too few rows}"; fi
}

stream_arrives_in_pieces() {
  local line first='' last=0 count=0
  while read -r line; do
    last=$(now_ms) count=$((count + 1))
    [ -n "$first" ] || first=$last
  done < <(get -N "$1")
  if [ "$count" = 5 ] && [ $((last - first)) -ge 500 ]; then ok "stream arrives in pieces: $count in $((last - first)) ms"
  else bad "stream arrives in pieces" "$count lines in $((last - ${first:-0})) ms"; fi
}

# The example's own target is not to be had everywhere: the Function is given a server of ours.
outbound() {
  if [ "$CLUSTER" != local ]; then skip "outbound fetch" "only the local cluster has a server to ask"; return; fi
  mkdir -p "$work/www"
  echo "fetched from outside" >"$work/www/page"
  python3 -m http.server 8099 --bind 10.89.0.1 --directory "$work/www" >"$work/www.log" 2>&1 &
  local server=$! url; url=$service_url$(fn fetch)
  kubectl get function fetch -n "$tenant" -o json | jq '
    .spec.env[0].value = "http://10.89.0.1:8099/page" | .spec.egress.allow = ["10.89.0.1:8099"]
    | del(.metadata, .status) | .metadata.name = "fetch"' | kubectl apply -n "$tenant" -f - >/dev/null
  eventually 20 "fetch reaches a server that egress allows" answers "fetched from outside" "$url"
  kubectl patch function fetch -n "$tenant" --type merge -p '{"spec":{"egress":{"allow":["example.com"]}}}' >/dev/null
  eventually 20 "fetch is refused where egress does not allow it" answers "error" "$url"
  note "$(get "$url")"
  kill "$server"
}
