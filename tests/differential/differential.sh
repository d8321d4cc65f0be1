#!/usr/bin/env bash
# The same requests to Glance and to a gateway: ../shared/traffic.jsonl is what Glance answered. Every
# difference is in expected.txt, with its reason; and what is there does differ.
# shellcheck source=../clients/daemon.sh source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/../clients/daemon.sh"

readonly EXPECTED=$REPO/tests/differential/expected.txt
readonly SHARED=$REPO/../shared

if [[ ! -e $SHARED/traffic.jsonl ]]; then
    skip "a replay of what was recorded from Glance" "no ../shared"
    exit 0
fi

# Where it looks for the clouds, for Ceph, and for Python with the clients.
make_lab_state() {
    mkdir -p "$WORK/lab/ceph" "$WORK/lab/venv"
    ln -s "$ROCKPOOL_TEST_KEYSTONE_CLOUDS" "$WORK/lab/clouds.yaml"
    ln -s "$ROCKPOOL_TEST_CEPH_DIR/ceph.conf" "$WORK/lab/ceph/ceph.conf"
    ln -s "${ROCKPOOL_TEST_CLIENTS%/bin}" "$WORK/lab/venv/clients"
}
lab() { LAB_STATE=$WORK/lab bash "$SHARED/lab/lab" "$@"; }
differences() { lab diff "$SHARED/traffic.jsonl" "$WORK/mine.jsonl" "$@"; }

loads_the_stock_definitions() {
    local token file
    token=$(OS_CLOUD='admin' "$ROCKPOOL_TEST_CLIENTS/openstack" token issue -f value -c id)
    for file in "$SHARED"/metadefs/*.json; do
        curl -sSf -o /dev/null -X POST -H "X-Auth-Token: $token" -H "Content-Type: application/json" \
            "$URL/v2/metadefs/namespaces" -d "$(jq '.owner = "admin"' "$file")" || { echo "$file" && return 1; }
    done
}

plays_every_request() {
    lab traffic --endpoint "$URL" --out "$WORK/mine.jsonl"
    expect "the number of exchanges that were not played" "$(differences | sed -n 's/.* \([0-9]*\) not played$/\1/p')" 0
}

differs_only_where_expected() {
    differences --expect "$EXPECTED"
}

# An expectation that has come to agree is wrong by now.
differs_wherever_expected() {
    local line stale=''
    differences >"$WORK/differences" || true
    while read -r line; do
        grep -qF -- "$line: " "$WORK/differences" || stale+="$line"$'\n'
    done < <(sed -E 's/ *#.*//; /^ *$/d' "$EXPECTED")
    expect "what is in expected.txt and agrees" "$stale" ""
}

# The recorded names of stores; the differences that come from their number are expected.
export STORE=rbd1 IMAGES="show_multiple_locations = true"
start_gateway keystone
make_lab_state
step "the stock metadata definitions are loaded" loads_the_stock_definitions
step "every recorded request is played" plays_every_request
step "answers differ from Glance's only where expected" differs_only_where_expected
step "answers differ from Glance's wherever expected" differs_wherever_expected
stop_gateway
