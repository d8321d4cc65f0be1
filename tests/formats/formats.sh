#!/usr/bin/env bash
# What `rockpool inspect` says of good and hostile files, compared with qemu-img and oslo.utils; see agreement.py.
set -euo pipefail

: "${ROCKPOOL_TEST_BINARY:?is missing: tests/run.sh runs this test}"
: "${ROCKPOOL_TEST_CLIENTS:?is missing: tests/run.sh runs this test}"

if ! command -v qemu-img >/dev/null; then
    echo "skip agreement about formats: qemu-img is not installed"
    exit 0
fi
WORK=$(mktemp -d "${TMPDIR:-/tmp}/rockpool-formats.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
"$ROCKPOOL_TEST_CLIENTS/python" "$(dirname "${BASH_SOURCE[0]}")/agreement.py" "$ROCKPOOL_TEST_BINARY" "$WORK"
