#!/usr/bin/env bash
# The first process of the Ceph container: runs the node, and hands the gateways what they need of it.
set -euo pipefail

readonly STATE=/var/lib/rockpool/ceph CONFIG=/etc/rockpool
# The user of the gateway's image.
readonly GATEWAY_UID=10001

cluster.sh up "$STATE"
install -m 444 "$STATE/ceph.conf" "$CONFIG/ceph.conf"
install -m 400 -o "$GATEWAY_UID" "$STATE/client.rockpool.keyring" "$CONFIG/client.rockpool.keyring"
exec cluster.sh hold "$STATE"
