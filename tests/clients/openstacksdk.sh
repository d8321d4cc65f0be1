#!/usr/bin/env bash
# openstacksdk, as programs use it; the checks are in openstacksdk.py.
# shellcheck source=daemon.sh source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/daemon.sh"

start_gateway local
head -c 12345678 /dev/urandom >"$WORK/disk"
"$ROCKPOOL_TEST_CLIENTS/python" "$(dirname "${BASH_SOURCE[0]}")/openstacksdk.py" "$URL/v2" "$MEMBER_TOKEN" "$WORK/disk" ||
    FAILED_STEPS=$((FAILED_STEPS + 1))
stop_gateway
