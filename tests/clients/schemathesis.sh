#!/usr/bin/env bash
# Schemathesis makes requests of its own from /openapi.json, good ones and malformed ones, and judges the
# answers. The seed is fixed, so a run can be repeated.
# shellcheck source=daemon.sh source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/daemon.sh"

readonly SEED=20261121
# An answer that takes longer counts as none.
readonly ANSWER_SECONDS=20
readonly EXAMPLES_PER_OPERATION=25
readonly WHOLE_RUN=8m

# What it is not asked to judge, because it cannot know:
#   positive_data_acceptance    an id of the right form need not be the id of anything
#   negative_data_rejection     an unknown query parameter is a filter by property
#   unsupported_method          some paths answer 404, as in Glance; tests/gateway/routes.rs asks this of all
#   ignored_auth                some paths need no token; tests/gateway/routes.rs asks this of all others
readonly CHECKS=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance

fuzz() { # TOKEN ARGUMENT...
    local token=$1
    shift
    (cd "$WORK" && timeout -k 10 "$WHOLE_RUN" "$ROCKPOOL_TEST_CLIENTS/schemathesis" run "$URL/openapi.json" --no-color \
        --header "X-Auth-Token: $token" --header "Accept: application/json" --checks "$CHECKS" --seed "$SEED" \
        --request-timeout "$ANSWER_SECONDS" --max-examples "$EXAMPLES_PER_OPERATION" --continue-on-failure --warnings off \
        --suppress-health-check all --generation-database none "$@")
}

logged_no_failure() {
    ! grep -E 'rockpool::request: .* status=500 |panicked' "$LOG"
}

as_member() { # METHOD PATH BODY
    curl -sf -m 20 -X "$1" -H "X-Auth-Token: $MEMBER_TOKEN" -H 'Content-Type: application/json' -d "$3" "$URL$2"
}

makes_something_to_ask_about() {
    local n
    for ((n = 0; n < 40; n++)); do
        as_member POST /v2/images '{"name": "fuzzed", "disk_format": "raw", "container_format": "bare"}' | jq -r .id
    done >"$WORK/images"
    curl -sf -m 20 -X POST -H "X-Auth-Token: $ADMIN_TOKEN" -d '{"namespace": "Fuzzed", "visibility": "public"}' \
        -o /dev/null "$URL/v2/metadefs/namespaces"
}

start_gateway local

step "there are images and a namespace" makes_something_to_ask_about
ROCKPOOL_TEST_IMAGES=$(cat "$WORK/images")
export ROCKPOOL_TEST_IMAGES ROCKPOOL_TEST_NAMESPACE=Fuzzed
SCHEMATHESIS_HOOKS=$(realpath "$(dirname "${BASH_SOURCE[0]}")/schemathesis_hooks.py")
export SCHEMATHESIS_HOOKS
step "an administrator's requests are answered as described" fuzz "$ADMIN_TOKEN"
step "a member's requests are answered as described" fuzz "$MEMBER_TOKEN" --phases coverage,stateful
step "no request failed or panicked" logged_no_failure
stop_gateway
