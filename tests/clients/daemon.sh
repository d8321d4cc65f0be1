# shellcheck shell=bash
# Sourced by every script test: a report, and a gateway of the script's own on the servers that
# tests/run.sh has started.
#
# start_gateway local: URL, and the tokens ADMIN_TOKEN and MEMBER_TOKEN.
# start_gateway keystone: URL, which the catalogue of the test Keystone now has for the image service. A
# client finds the clouds of tests/keystone/people.py in OS_CLIENT_CONFIG_FILE.
#
# A script may set before that: STORE, the name of the store, IMAGES and INSPECTION, lines for the sections [images]
# and [inspection], and SECTIONS, whole sections.
# serve_files FOLDER: FILES_URL, where a web server has the files of the folder. A gateway fetches from it with what
# fetch_from_here prints among its SECTIONS.
# WORK is a folder that goes with the script.
set -euo pipefail

: "${ROCKPOOL_TEST_CEPH_DIR:?is missing: tests/run.sh runs this test}"
: "${ROCKPOOL_TEST_DATABASE_URL:?is missing: tests/run.sh runs this test}"
: "${ROCKPOOL_TEST_BINARY:?is missing: tests/run.sh runs this test}"
: "${ROCKPOOL_TEST_CLIENTS:?is missing: tests/run.sh runs this test}"
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
readonly REPO
readonly GATEWAY_READY_SECONDS=30
readonly GATEWAY_STOP_SECONDS=30

# Nothing of the caller's cloud or cluster may get in.
unset CEPH_CONF CEPH_ARGS CEPH_KEYRING "${!OS_@}"
export LC_ALL=C.UTF-8

FAILED_STEPS=0 GATEWAY_PID='' FILES_PID=''
WORK=$(mktemp -d "${TMPDIR:-/tmp}/rockpool-script.XXXXXX")
LOG=$WORK/gateway.log
trap finish EXIT
trap 'exit 143' INT TERM

finish() {
    local status=$?
    trap - EXIT
    [[ -z $GATEWAY_PID ]] || kill -KILL "$GATEWAY_PID" 2>/dev/null || true
    [[ -z $FILES_PID ]] || kill "$FILES_PID" 2>/dev/null || true
    ((FAILED_STEPS == 0)) || show_gateway_log
    rm -rf "$WORK"
    ((FAILED_STEPS == 0)) || exit 1
    exit "$status"
}

# Without the requests that were answered as they should be.
show_gateway_log() {
    [[ -s $LOG ]] || return 0
    echo "# The end of the gateway's log:"
    { grep -vE 'rockpool::request: .* status=[1-4][0-9][0-9] ' "$LOG" || true; } | tail -n 60 | sed 's/^/#   /'
}

# step NAME COMMAND...: runs it in a shell of its own that ends at the first error.
# Not to be called in a condition: bash would go on after errors then.
step() {
    local name=$1 output status
    shift
    set +e
    output=$(set -e && "$@" 2>&1)
    status=$?
    set -e
    if ((status == 0)); then
        echo "ok $name"
        return
    fi
    FAILED_STEPS=$((FAILED_STEPS + 1))
    printf '%s\n' "$output" | sed 's/^/#   /'
    echo "not ok $name"
}

skip() { echo "skip $1: $2"; }

expect() { # WHAT ACTUAL WANTED
    [[ $2 == "$3" ]] || {
        echo "$1 is '$2' and should be '$3'."
        return 1
    }
}

expect_failure() { # COMMAND...
    ! "$@" || {
        echo "This should have failed: $*"
        return 1
    }
}

rbd_admin() { rbd -c "$ROCKPOOL_TEST_CEPH_DIR/ceph.conf" --id admin "$@"; }

# Some clients take data from a standard input that is not a terminal, so they get a terminal.
on_terminal() {
    local line
    printf -v line '%q ' "$@"
    script -qec "$line" /dev/null </dev/null | tr -d '\r'
}

random_token() { od -An -tx1 -N16 /dev/urandom | tr -d ' \n'; }

free_port() {
    local port
    while port=$((10000 + RANDOM % 10000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

write_gateway_config() { # DATABASE local|keystone
    local password url
    # postgres://user:password@host:port/postgres
    password=$(sed -E 's,^[a-z]+://[^:]*:([^@]*)@.*,\1,' <<<"$ROCKPOOL_TEST_DATABASE_URL")
    url=$(sed -E 's,:[^:@/]*@,@,; s,/[^/]*$,/'"$1"',' <<<"$ROCKPOOL_TEST_DATABASE_URL")
    echo "$password" >"$WORK/database.password"
    cat <<TOML
[server]
listen = "${URL#http://}"

[catalog]
url = "$url"
password_file = "$WORK/database.password"

[stores.${STORE:-ceph}]
ceph_conf = "$ROCKPOOL_TEST_CEPH_DIR/ceph.conf"
user = "rockpool"
keyring = "$ROCKPOOL_TEST_CEPH_DIR/client.rockpool.keyring"
pool = "images"

[images]
${IMAGES:-}

[inspection]
${INSPECTION:-}

${SECTIONS:-}

TOML
    "identity_$2"
}

identity_local() {
    cat <<TOML
[identity]
mode = "local"
projects = [
    { id = "0000000000000000000000000000ad01", name = "admin" },
    { id = "0000000000000000000000000000de01", name = "demo" },
]
users = [
    { id = "0000000000000000000000000000ad02", name = "admin" },
    { id = "0000000000000000000000000000de02", name = "demo" },
]

[[identity.tokens]]
sha256 = "$(printf %s "$ADMIN_TOKEN" | sha256sum | cut -d' ' -f1)"
user = "admin"
project = "admin"
roles = ["admin", "member", "reader"]

[[identity.tokens]]
sha256 = "$(printf %s "$MEMBER_TOKEN" | sha256sum | cut -d' ' -f1)"
user = "demo"
project = "demo"
roles = ["member", "reader"]
TOML
}

identity_keystone() {
    printf %s "$ROCKPOOL_TEST_KEYSTONE_SERVICE_PASSWORD" >"$WORK/keystone.password"
    cat <<TOML
[identity]
mode = "keystone"

[identity.keystone]
auth_url = "$ROCKPOOL_TEST_KEYSTONE_URL"
username = "$ROCKPOOL_TEST_KEYSTONE_SERVICE_USER"
project_name = "$ROCKPOOL_TEST_KEYSTONE_SERVICE_PROJECT"
password_file = "$WORK/keystone.password"
TOML
}

# A gateway with a database of its own. Without one there is nothing to test.
start_gateway() { # local|keystone
    local database="script_$$_$RANDOM" before=$FAILED_STEPS
    URL=http://127.0.0.1:$(free_port)
    if [[ $1 == local ]]; then
        ADMIN_TOKEN=$(random_token)
        MEMBER_TOKEN=$(random_token)
    else
        "$REPO/tests/keystone/keystone.sh" endpoint "${ROCKPOOL_TEST_KEYSTONE_SITE%/*}" "$URL"
        export OS_CLIENT_CONFIG_FILE=$ROCKPOOL_TEST_KEYSTONE_CLOUDS
    fi
    psql -X -q -d "$ROCKPOOL_TEST_DATABASE_URL" -c "CREATE DATABASE $database"
    write_gateway_config "$database" "$1" >"$WORK/rockpool.toml"
    "$ROCKPOOL_TEST_BINARY" serve --config "$WORK/rockpool.toml" </dev/null >"$LOG" 2>&1 &
    GATEWAY_PID=$!
    step "the gateway gets ready" await_gateway
    ((FAILED_STEPS == before)) || exit 1
}

# The web server's port is not known before it has one.
fetch_from_here() {
    cat <<TOML
[fetch]
allowed_hosts = ["127.0.0.1"]
allowed_ports = []
TOML
}

serve_files() { # FOLDER
    local port
    port=$(free_port)
    FILES_URL=http://127.0.0.1:$port
    "$ROCKPOOL_TEST_CLIENTS/python" -m http.server -b 127.0.0.1 -d "$1" "$port" </dev/null >/dev/null 2>&1 &
    FILES_PID=$!
    step "there are files to fetch" curl -sf -o /dev/null --retry 50 --retry-connrefused --retry-delay 1 -m 5 "$FILES_URL/"
}

rockpool() { "$ROCKPOOL_TEST_BINARY" "$@" --config "$WORK/rockpool.toml"; }

await_gateway() {
    local deadline=$((SECONDS + GATEWAY_READY_SECONDS))
    until curl -sf -o /dev/null -m 5 "$URL/readyz"; do
        kill -0 "$GATEWAY_PID" 2>/dev/null || { echo "It ended." && return 1; }
        ((SECONDS < deadline)) || { echo "It was not ready within $GATEWAY_READY_SECONDS s." && return 1; }
        sleep 0.1
    done
}

# The last step of each script: SIGTERM ends the gateway with exit code 0.
stop_gateway() {
    local tries status=0
    kill -TERM "$GATEWAY_PID" 2>/dev/null || true
    for ((tries = GATEWAY_STOP_SECONDS * 10; tries > 0; tries--)); do
        kill -0 "$GATEWAY_PID" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$GATEWAY_PID" 2>/dev/null || true
    wait "$GATEWAY_PID" || status=$?
    GATEWAY_PID=''
    step "the gateway stops at SIGTERM with exit code 0" expect "the exit code" "$status" 0
}
