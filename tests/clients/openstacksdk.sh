#!/usr/bin/env bash
# openstacksdk, as programs use it, with local tokens and with Keystone; the checks are in openstacksdk.py.
# shellcheck source=daemon.sh source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/daemon.sh"

readonly CHECKS_SECONDS=50

checks() { # MODE ARGUMENT...
    timeout "$CHECKS_SECONDS" "$ROCKPOOL_TEST_CLIENTS/python" "$REPO/tests/clients/openstacksdk.py" "$@" || {
        echo "# openstacksdk.py $1 ended with exit code $?."
        FAILED_STEPS=$((FAILED_STEPS + 1))
    }
}

head -c 12345678 /dev/urandom >"$WORK/disk"
start_gateway local
checks local "$URL/v2" "$MEMBER_TOKEN" "$WORK/disk"
stop_gateway

start_gateway keystone
checks keystone "$URL" "$WORK/disk"
stop_gateway
