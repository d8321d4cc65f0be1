#!/usr/bin/env bash
# Makes the tokens and the gateways' configuration in the volume that all containers share.
# Tokens are kept, so that a client's token outlives an update of this file.
set -euo pipefail

readonly CONFIG=/etc/rockpool
# The user of the gateway's image.
readonly GATEWAY_UID=10001

token_hash() { # NAME
    local file=$CONFIG/$1.token
    [[ -s $file ]] || (umask 077 && od -An -tx1 -N24 /dev/urandom | tr -d ' \n' >"$file")
    chown "$GATEWAY_UID" "$file"
    sha256sum <"$file" | cut -d' ' -f1
}

sed -e "s/@ADMIN_TOKEN_SHA256@/$(token_hash admin)/" -e "s/@DEMO_TOKEN_SHA256@/$(token_hash demo)/" \
    "$(dirname "${BASH_SOURCE[0]}")/rockpool.toml" >"$CONFIG/rockpool.toml"
echo "The tokens are in $CONFIG/admin.token and $CONFIG/demo.token."
