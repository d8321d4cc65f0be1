#!/usr/bin/env bash
# Rockpool on one machine: a private Ceph node, a private Postgres and the gateway, on a fresh Debian.
#
#   demo.sh [up]      install, start, build and serve; says what to type then. Safe to run again.
#   demo.sh env       print exports for a shell: eval "$(ceph/demo.sh env)"
#   demo.sh status    what runs
#   demo.sh down      stop everything; images and records stay
#   demo.sh wipe      stop everything and remove the state folder
#
# Environment:
#   ROCKPOOL_DEMO_DIR       state folder (/var/lib/rockpool-demo)
#   ROCKPOOL_DEMO_LISTEN    where the gateway listens (127.0.0.1:9292, or as last time)
#   ROCKPOOL_CLUSTER_PORT   first port of Ceph and Postgres; see ceph/cluster.sh
#
# Nothing outside of the state folder is touched, except that Debian packages are installed.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(dirname "$HERE")
DEMO=$(realpath -m -- "${ROCKPOOL_DEMO_DIR:-/var/lib/rockpool-demo}")
readonly HERE REPO DEMO
readonly CLUSTER=$DEMO/cluster CONFIG=$DEMO/rockpool.toml LOG=$DEMO/rockpool.log PID_FILE=$DEMO/rockpool.pid
readonly MARK=$DEMO/.rockpool-demo
# What was chosen at the last start holds until something else is asked for.
LISTEN=${ROCKPOOL_DEMO_LISTEN:-$(sed -n 's/^listen = "\(.*\)"/\1/p' "$CONFIG" 2>/dev/null || true)}
readonly LISTEN=${LISTEN:-127.0.0.1:9292}
# To link the gateway, and for the commands that are shown at the end.
readonly BUILD_PACKAGES=(gcc libc6-dev librbd-dev libssl-dev pkg-config curl jq)
readonly WAIT_READY_SECONDS=60
# Longer than the gateway waits for running transfers.
readonly WAIT_DRAIN_SECONDS=130

say() { printf '[demo] %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit "$1"
}

# ---------------------------------------------------------------- what the machine must offer

check_machine() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
        die "The demo installs Debian packages; this system has no apt-get. Debian 12 or newer is needed."
    fi
    ((EUID == 0)) || die "The demo installs packages and runs Ceph daemons: run it as root."
}

# Rust as packaged by Debian 12 is too old, so it comes from rustup; how is for the user to decide.
find_cargo() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")
    PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
    command -v cargo >/dev/null || die "Rust $wanted or newer is missing. Type:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
and then this command again."
    found=$(cd "$REPO" && cargo --version | awk '{ print $2 }')
    if [[ $(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1) != "$wanted" ]]; then
        command -v rustup >/dev/null || die "Rust $wanted or newer is needed, $(command -v cargo) is $found. Type:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
    export PATH=\"\$HOME/.cargo/bin:\$PATH\"
and then this command again."
        die "Rust $wanted or newer is needed, cargo is $found. Type:
    rustup update stable && rustup default stable
and then this command again."
    fi
}

# ---------------------------------------------------------------- state

create_state() {
    if [[ ! -e $MARK ]]; then
        [[ ! -e $DEMO || -z $(ls -A "$DEMO") ]] || die "$DEMO holds something else: choose another ROCKPOOL_DEMO_DIR."
        mkdir -p "$DEMO"
        touch "$MARK"
    fi
    # The user postgres has to get through to its own folder; every secret is in a 0600 file.
    chmod 755 "$DEMO"
}

require_state() {
    [[ -e $MARK ]] || die "There is no demo in $DEMO; '$0 up' makes one."
}

token() { # USER: made once
    local file=$DEMO/$1.token
    [[ -s $file ]] || (umask 077 && od -An -tx1 -N24 /dev/urandom | tr -d ' \n' >"$file")
    cat "$file"
}

token_hash() { token "$1" | sha256sum | cut -d' ' -f1; }

# The same id each time, or the images of yesterday would belong to nobody.
stable_id() { printf 'rockpool demo %s' "$*" | md5sum | cut -d' ' -f1; }

write_config() {
    (umask 077 && cat >"$CONFIG.new") <<TOML
# Written by ceph/demo.sh at every start: changes here are lost.
[server]
listen = "$LISTEN"

[log]
format = "text"
level = "info"

[catalog]
url = "$(sed -E 's,:[^:@/]*@,@,' <<<"$1")"
password_file = "$CLUSTER/pg-rockpool.password"

[stores.ceph]
ceph_conf = "$CLUSTER/ceph.conf"
user = "rockpool"
keyring = "$CLUSTER/client.rockpool.keyring"
pool = "images"

[identity]
mode = "local"

[[identity.projects]]
id = "$(stable_id project admin)"
name = "admin"

[[identity.projects]]
id = "$(stable_id project demo)"
name = "demo"

[[identity.users]]
id = "$(stable_id user admin)"
name = "admin"

[[identity.users]]
id = "$(stable_id user demo)"
name = "demo"

[[identity.tokens]]
sha256 = "$(token_hash admin)"
user = "admin"
project = "admin"
roles = ["admin", "member", "reader"]

[[identity.tokens]]
sha256 = "$(token_hash demo)"
user = "demo"
project = "demo"
roles = ["member", "reader"]
TOML
}

# ---------------------------------------------------------------- the gateway

build_gateway() {
    local target
    say "Building the release binary. The first time takes some minutes."
    (cd "$REPO" && cargo build --release --bin rockpool) >&2 || die "The build failed, see above."
    target=$(cd "$REPO" && cargo metadata --format-version 1 --no-deps | jq -r .target_directory)
    BINARY=$target/release/rockpool
}

# The pid file counts only while its process serves this very configuration.
gateway_pid() {
    local pid
    pid=$(cat "$PID_FILE" 2>/dev/null) && [[ -n $pid ]] || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -e "$CONFIG" || return 1
    echo "$pid"
}

is_ready() { curl --noproxy '*' -sf -o /dev/null -m 5 "http://$LISTEN/readyz"; }

# True when what runs is what was just built and configured. A rebuilt binary leaves the running
# one "(deleted)".
is_current() {
    local pid
    pid=$(gateway_pid) && [[ $(readlink "/proc/$pid/exe") == "$BINARY" ]] && cmp -s "$CONFIG" "$CONFIG.new"
}

start_gateway() {
    local host=${LISTEN%:*} port=${LISTEN##*:} pid
    if is_current && is_ready; then
        rm "$CONFIG.new"
        say "The gateway already serves on http://$LISTEN."
        return
    fi
    stop_gateway
    mv "$CONFIG.new" "$CONFIG"
    ! (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null ||
        die "Port $port on $host is taken: end what listens there or set ROCKPOOL_DEMO_LISTEN."
    say "Starting the gateway on http://$LISTEN."
    echo "--- started by demo.sh on $(date -Is)" >>"$LOG"
    setsid "$BINARY" serve --config "$CONFIG" </dev/null >>"$LOG" 2>&1 &
    pid=$!
    disown
    echo "$pid" >"$PID_FILE"
    await_ready "$pid"
}

await_ready() {
    local deadline=$((SECONDS + WAIT_READY_SECONDS))
    until is_ready; do
        if [[ ! -d /proc/$1 ]]; then
            gateway_failed "The gateway ended at start."
        elif ((SECONDS >= deadline)); then
            gateway_failed "The gateway was not ready within $WAIT_READY_SECONDS s."
        fi
        sleep 0.2
    done
}

gateway_failed() {
    say "$1 The end of $LOG:"
    tac "$LOG" | sed '/^--- started/q' | tac | tail -n 30 >&2
    stop_gateway
    exit 1
}

stop_gateway() {
    local pid tries
    if pid=$(gateway_pid); then
        say "Stopping the gateway."
        kill -TERM "$pid" 2>/dev/null || true
        for ((tries = WAIT_DRAIN_SECONDS * 10; tries > 0; tries--)); do
            gateway_pid >/dev/null || break
            sleep 0.1
        done
        ! gateway_pid >/dev/null || kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f "$PID_FILE"
}

# ---------------------------------------------------------------- commands

up() {
    local database_url
    check_machine
    "$HERE/cluster.sh" install "${BUILD_PACKAGES[@]}"
    find_cargo
    create_state
    "$HERE/cluster.sh" up "$CLUSTER"
    "$HERE/cluster.sh" pg-up "$CLUSTER"
    database_url=$("$HERE/cluster.sh" pg-database "$CLUSTER" rockpool)
    write_config "$database_url"
    build_gateway
    start_gateway
    show_walk
}

show_walk() {
    cat <<WALK

Rockpool serves on http://$LISTEN. Set up this shell:

    eval "\$($HERE/demo.sh env)"
    head -c 64M /dev/urandom >/tmp/disk.raw

Upload with curl:

    id=\$(curl -sS -H "X-Auth-Token: \$ROCKPOOL_TOKEN" -H 'Content-Type: application/json' \\
        -d '{"name": "first", "disk_format": "raw", "container_format": "bare"}' \\
        \$ROCKPOOL_URL/v2/images | jq -r .id)
    curl -sS -H "X-Auth-Token: \$ROCKPOOL_TOKEN" -H 'Content-Type: application/octet-stream' \\
        -T /tmp/disk.raw \$ROCKPOOL_URL/v2/images/\$id/file
    curl -sS -H "X-Auth-Token: \$ROCKPOOL_TOKEN" \$ROCKPOOL_URL/v2/images/\$id | jq

Upload with openstack (apt-get install python3-openstackclient):

    openstack image create --disk-format raw --file /tmp/disk.raw second
    openstack image list

See what is in Ceph:

    rbd ls images
    rbd info images/\$id
    rbd snap ls images/\$id
    rbd image-meta list images/\$id

Clone it as a compute node would, and see that the clone has no data of its own:

    rbd --id nova --keyring $CLUSTER/client.nova.keyring clone images/\$id@snap vms/machine
    rbd children images/\$id@snap
    rbd du vms/machine

Delete both:

    rbd rm vms/machine
    curl -sS -X DELETE -H "X-Auth-Token: \$ROCKPOOL_TOKEN" \$ROCKPOOL_URL/v2/images/\$id

The gateway's log is $LOG, its configuration $CONFIG.
'$HERE/demo.sh down' stops everything, '$HERE/demo.sh wipe' removes it too.
WALK
}

export_line() { printf 'export %s=%q\n' "$1" "$2"; }

# The OS_ variables make plain `openstack` commands work; that client takes the endpoint as it is.
env_exports() {
    local host=${LISTEN%:*} port=${LISTEN##*:}
    [[ $host != 0.0.0.0 ]] || host=127.0.0.1
    export_line ROCKPOOL_URL "http://$host:$port"
    export_line ROCKPOOL_TOKEN "$(token admin)"
    export_line ROCKPOOL_DEMO_TOKEN "$(token demo)"
    export_line ROCKPOOL_CONFIG "$CONFIG"
    export_line CEPH_CONF "$CLUSTER/ceph.conf"
    export_line CEPH_ARGS "--id admin --keyring $CLUSTER/client.admin.keyring"
    export_line DATABASE_URL "$("$HERE/cluster.sh" pg-url "$CLUSTER" rockpool)"
    export_line OS_AUTH_TYPE admin_token
    export_line OS_ENDPOINT "http://$host:$port/v2"
    export_line OS_TOKEN "$(token admin)"
}

status() {
    local pid result=0
    "$HERE/cluster.sh" status "$CLUSTER" || result=1
    if pid=$(gateway_pid) && is_ready; then
        echo "gateway serves on http://$LISTEN (pid $pid)"
    elif [[ -n ${pid:-} ]]; then
        echo "gateway runs (pid $pid) but is not ready; its log is $LOG"
        result=1
    else
        echo "gateway does not run"
        result=1
    fi
    return "$result"
}

down() {
    stop_gateway
    [[ ! -e $CLUSTER ]] || {
        "$HERE/cluster.sh" down "$CLUSTER"
        "$HERE/cluster.sh" pg-down "$CLUSTER"
    }
    say "Stopped; '$0 up' resumes."
}

wipe() {
    stop_gateway
    [[ ! -e $CLUSTER ]] || "$HERE/cluster.sh" wipe "$CLUSTER"
    rm -rf "$DEMO"
    say "Removed $DEMO."
}

case ${1:-up} in
up) up ;;
env) require_state && env_exports ;;
status) require_state && status ;;
down) require_state && down ;;
wipe) require_state && wipe ;;
-h | --help | help) usage 0 ;;
*) usage 1 >&2 ;;
esac
