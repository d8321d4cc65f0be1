#!/usr/bin/env bash
# The first process of the Keystone container: makes Keystone and its people, runs it, and hands the
# gateways their password. All of it may be done again.
set -euo pipefail
umask 077

readonly STATE=/var/lib/rockpool/keystone CONFIG=/etc/rockpool PORT=5000
readonly HERE=${BASH_SOURCE[0]%/*}
# The user of the gateway's image, and of Keystone's.
readonly GATEWAY_UID=10001 KEYSTONE_USER=keystone
# Where clients outside find Keystone and the balancer.
readonly PUBLIC_URL=http://127.0.0.1:${KEYSTONE_PORT:?is missing}/v3 IMAGE_URL=http://127.0.0.1:${IMAGE_PORT:?is missing}
readonly URL=http://keystone:$PORT/v3

random_password() { # FILE
    [[ -s $1 ]] || od -An -tx1 -N24 /dev/urandom | tr -d ' \n' >"$1"
}

write_config() {
    cat >"$STATE/keystone.conf" <<INI
[DEFAULT]
use_stderr = True
[database]
connection = postgresql+psycopg2://keystone:$(cat "$CONFIG/keystone-database.password")@postgres:15302/keystone
[cache]
enabled = False
[fernet_tokens]
key_repository = $STATE/fernet
[fernet_receipts]
key_repository = $STATE/fernet
[credential]
key_repository = $STATE/credential
[oslo_policy]
policy_file = $STATE/policy.yaml
INI
    # Keystone takes the command line for its own, so gunicorn gets a file.
    cat >"$STATE/gunicorn.conf.py" <<PY
wsgi_app = "keystone.wsgi.api:application"
bind = "0.0.0.0:$PORT"
workers = 2
threads = 4
user = group = "$KEYSTONE_USER"
raw_env = ["OS_KEYSTONE_CONFIG_FILES=$STATE/keystone.conf"]
PY
}

manage() { keystone-manage --config-file "$STATE/keystone.conf" "$@"; }

install -d -m 700 -o "$KEYSTONE_USER" "$STATE" "$STATE/fernet" "$STATE/credential"
rm -f "$STATE/ready"
random_password "$STATE/admin.password"
write_config
chown "$KEYSTONE_USER" "$STATE/keystone.conf" "$STATE/gunicorn.conf.py"
manage db_sync
manage fernet_setup --keystone-user "$KEYSTONE_USER" --keystone-group "$KEYSTONE_USER"
manage credential_setup --keystone-user "$KEYSTONE_USER" --keystone-group "$KEYSTONE_USER"
manage bootstrap --bootstrap-password "$(cat "$STATE/admin.password")" --bootstrap-region-id RegionOne \
    --bootstrap-admin-url "$URL" --bootstrap-internal-url "$URL" --bootstrap-public-url "$PUBLIC_URL"

cd "$STATE"
OS_KEYSTONE_CONFIG_FILES=$STATE/keystone.conf gunicorn &
server=$!
trap 'kill -TERM $server; wait $server; exit 0' TERM INT
until curl -sf -o /dev/null -m 5 "http://127.0.0.1:$PORT/v3"; do
    kill -0 "$server"
    sleep 0.5
done
random_password "$CONFIG/keystone.password"
random_password "$STATE/demo.password"
python "$HERE/keystone_people.py" "http://127.0.0.1:$PORT/v3" "$PUBLIC_URL" "$IMAGE_URL" \
    "$STATE" "$CONFIG/keystone.password" "$CONFIG/clouds.yaml"
# The gateways wait for this.
chown "$GATEWAY_UID" "$CONFIG/keystone.password"
touch "$STATE/ready"
wait "$server"
