#!/usr/bin/env bash
# Verdicts on generated rules, callers and targets, compared with those of oslo.policy; see oslo.py.
set -euo pipefail

: "${ROCKPOOL_TEST_BINARY:?is missing: tests/run.sh runs this test}"
: "${ROCKPOOL_TEST_CLIENTS:?is missing: tests/run.sh runs this test}"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/rockpool-policy.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
"$ROCKPOOL_TEST_CLIENTS/python" "$(dirname "${BASH_SOURCE[0]}")/oslo.py" "$ROCKPOOL_TEST_BINARY" "$WORK"
