#!/usr/bin/env bash
# A real Keystone of one's own, in a folder of its own, with the people that the tests know.
#
#   keystone.sh up DIR              make or resume it; some 40 s the first time
#   keystone.sh down DIR            stop it, drop its database (if told where), remove DIR
#   keystone.sh env DIR             print the shell lines that export ROCKPOOL_TEST_KEYSTONE_*
#   keystone.sh endpoint DIR URL    let the catalogue's image endpoint be URL
#
# What callers and tests may rely on in DIR:
#   site.json       every user, project and application credential with id and secret (people.py)
#   clouds.yaml     a cloud per user, for OpenStack's clients; OS_CLIENT_CONFIG_FILE names it
#   keystone.pid    log/
#
# Environment:
#   ROCKPOOL_TEST_DATABASE_URL  the superuser of a Postgres; Keystone gets a database there
#   ROCKPOOL_TEST_VENVS         a folder that outlives DIR: Keystone is installed there once
set -euo pipefail

readonly KEYSTONE_PACKAGES=(keystone==30.0.0 gunicorn==27.0.1 psycopg2-binary==2.9.13)
readonly START_SECONDS=60
readonly STOP_SECONDS=10
readonly HERE=${BASH_SOURCE[0]%/*}

unset "${!OS_@}" "${!PG@}"
export no_proxy=127.0.0.1,localhost NO_PROXY=127.0.0.1,localhost LC_ALL=C.UTF-8

say() { printf '[keystone] %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}
usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 1
}

url() { echo "http://127.0.0.1:$(cat "$DIR/port")/v3"; }
admin_sql() { psql -X -q -d "${ROCKPOOL_TEST_DATABASE_URL:?is missing}" -c "$1"; }
venv_bin() { echo "${ROCKPOOL_TEST_VENVS:?is missing}/test-keystone/bin"; }

install() {
    local venv=${ROCKPOOL_TEST_VENVS:?is missing}/test-keystone wanted="${KEYSTONE_PACKAGES[*]}"
    [[ $(cat "$venv/installed" 2>/dev/null) != "$wanted" ]] || return 0
    rm -rf "$venv"
    # Debian's Python, not another that the PATH may hold: a venv is tied to it.
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "${KEYSTONE_PACKAGES[@]}"
    echo "$wanted" >"$venv/installed"
}

# Below the ports that the kernel gives to outgoing connections.
free_port() {
    local port
    while port=$((12000 + RANDOM % 18000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

write_config() {
    local database
    database=$(sed -E 's,^[a-z]+://,postgresql+psycopg2://,; s,/[^/]*$,/'"$(cat "$DIR/database")"',' \
        <<<"$ROCKPOOL_TEST_DATABASE_URL")
    # No cache: what a test changes or revokes counts at once in both workers. One bcrypt round is
    # secure enough for passwords that stand in a file next to it.
    cat >"$DIR/keystone.conf" <<INI
[DEFAULT]
log_file = $DIR/log/keystone.log
[database]
connection = ${database//%/%%}
[cache]
enabled = false
[identity]
password_hash_rounds = 4
[fernet_tokens]
key_repository = $DIR/fernet
[fernet_receipts]
key_repository = $DIR/fernet
[credential]
key_repository = $DIR/credential
[oslo_policy]
policy_file = $DIR/policy.yaml
INI
    # Keystone takes the command line for its own, so gunicorn gets a file.
    cat >"$DIR/gunicorn.conf.py" <<PY
wsgi_app = "keystone.wsgi.api:application"
bind = "127.0.0.1:$(cat "$DIR/port")"
workers = 2
threads = 4
control_socket_disable = True
PY
}

manage() { "$(venv_bin)/keystone-manage" --config-file "$DIR/keystone.conf" "$@" >>"$DIR/log/manage.log" 2>&1; }

make() {
    local owner
    owner=(--keystone-user "$(id -un)" --keystone-group "$(id -gn)")
    mkdir -p "$DIR/log" "$DIR/fernet" "$DIR/credential"
    free_port >"$DIR/port"
    # Made anew after a start that failed half-way.
    [[ -e $DIR/database ]] || echo "keystone_${RANDOM}_$$" >"$DIR/database"
    admin_sql "DROP DATABASE IF EXISTS $(cat "$DIR/database")" 2>/dev/null
    admin_sql "CREATE DATABASE $(cat "$DIR/database")"
    write_config
    od -An -tx1 -N16 /dev/urandom | tr -d ' \n' >"$DIR/password"
    manage db_sync
    manage fernet_setup "${owner[@]}"
    manage credential_setup "${owner[@]}"
    manage bootstrap --bootstrap-password "$(cat "$DIR/password")" --bootstrap-region-id RegionOne \
        --bootstrap-admin-url "$(url)" --bootstrap-internal-url "$(url)" --bootstrap-public-url "$(url)"
}

# A pid file counts only while its process is one that was started for this very folder.
pid() {
    local pid
    pid=$(cat "$DIR/keystone.pid" 2>/dev/null) || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qxF "OS_KEYSTONE_CONFIG_FILES=$DIR/keystone.conf" || return 1
    echo "$pid"
}

start() {
    local deadline=$((SECONDS + START_SECONDS))
    (
        cd "$DIR"
        OS_KEYSTONE_CONFIG_FILES=$DIR/keystone.conf exec setsid "$(venv_bin)/gunicorn"
    ) </dev/null >>"$DIR/log/gunicorn.log" 2>&1 &
    echo $! >"$DIR/keystone.pid"
    until curl -sf -o /dev/null -m 5 "$(url)"; do
        pid >/dev/null || die "Keystone ended: $(tail -n 20 "$DIR/log/gunicorn.log")"
        ((SECONDS < deadline)) || die "Keystone did not answer within $START_SECONDS s."
        sleep 0.2
    done
}

stop() {
    local pid tries
    pid=$(pid) || return 0
    kill -TERM "$pid"
    for ((tries = STOP_SECONDS * 10; tries > 0; tries--)); do
        [[ -d /proc/$pid ]] || return 0
        sleep 0.1
    done
    # It leads a process group of its own, with its workers.
    kill -KILL -- "-$pid" 2>/dev/null || true
}

up() {
    install
    if [[ ! -e $DIR/site.json ]]; then
        say "Making Keystone in $DIR."
        make || die "Keystone could not be made: $(tail -n 20 "$DIR/log/manage.log")"
    fi
    pid >/dev/null || start
    [[ -e $DIR/site.json ]] || "$(venv_bin)/python" "$HERE/people.py" make "$(url)" "$DIR" ||
        die "The people could not be made, see above."
    say "Keystone is at $(url)."
}

down() {
    stop
    # Where the database server is to go as well, nobody says where it is.
    [[ ! -e $DIR/database || -z ${ROCKPOOL_TEST_DATABASE_URL:-} ]] ||
        admin_sql "DROP DATABASE IF EXISTS $(cat "$DIR/database") WITH (FORCE)" || true
    rm -rf "$DIR"
}

main() {
    local command=${1:-}
    [[ -n ${2:-} ]] || usage
    DIR=$(realpath -m -- "$2")
    readonly DIR
    case $command in
    up | down) "$command" ;;
    env) "$(venv_bin)/python" "$HERE/people.py" env "$(url)" "$DIR" ;;
    endpoint) "$(venv_bin)/python" "$HERE/people.py" endpoint "$(url)" "$DIR" "${3:?is missing}" ;;
    *) usage ;;
    esac
}

main "$@"
