#!/usr/bin/env bash
# The first process of the Postgres container: runs the server, and hands gateways and Keystone their passwords.
set -euo pipefail

readonly STATE=/var/lib/rockpool/postgres CONFIG=/etc/rockpool
# The user of the gateway's image.
readonly GATEWAY_UID=10001

cluster.sh pg-up "$STATE"
cluster.sh pg-database "$STATE" rockpool >/dev/null
cluster.sh pg-database "$STATE" keystone >/dev/null
install -m 400 "$STATE/pg-keystone.password" "$CONFIG/keystone-database.password"
install -m 400 -o "$GATEWAY_UID" "$STATE/pg-rockpool.password" "$CONFIG/database.password"
exec cluster.sh hold "$STATE"
