#!/usr/bin/env bash
# Puts the gateways' configuration into the volume that all containers share.
set -euo pipefail

sed "s/@KEYSTONE_PORT@/${KEYSTONE_PORT:?is missing}/" "$(dirname "${BASH_SOURCE[0]}")/rockpool.toml" \
    >/etc/rockpool/rockpool.toml
