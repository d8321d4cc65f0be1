#!/usr/bin/env bash
# Everything that can be tested, against servers of its own that are gone afterwards.
#
#   tests/run.sh [PART...]      all of them without one
#
#   unit           formatting, lints, shellcheck, and every Rust test of the workspace
#   clients        python-openstackclient, python-glanceclient and openstacksdk against a real gateway,
#                  Schemathesis, and verdicts of rockpool policy against those of oslo.policy
#   formats        what rockpool inspect says of a generated corpus, against qemu-img and oslo.utils
#   tempest        Tempest's tests of the Image API, with the defaults and with loose settings
#   differential   what Glance answered to hundreds of requests, where ../shared has it
#   boot           a machine boots from the clone of an uploaded image
#
# The last line is `N passed, N failed, N skipped`; the exit code says whether any failed.
#
# Environment:
#   ROCKPOOL_TEST_KEEP          not empty: leave servers and logs for a look, and say how to remove them
#
# What tests find in their environment:
#   ROCKPOOL_TEST_CEPH_DIR      a Ceph node as ceph/cluster.sh makes it (ceph.conf, keyrings, run/*.pid)
#   ROCKPOOL_TEST_DATABASE_URL  the superuser of a Postgres; make a database per test
#   ROCKPOOL_TEST_KEYSTONE_URL  a real Keystone, as tests/keystone/keystone.sh makes it: .../v3
#   ROCKPOOL_TEST_KEYSTONE_SITE      its site.json: all users, projects and application credentials
#   ROCKPOOL_TEST_KEYSTONE_CLOUDS    a clouds.yaml with a cloud per user
#   ROCKPOOL_TEST_KEYSTONE_REGION, _DOMAIN (name of everybody's domain), _SERVICE_ID and _ENDPOINT_ID (of
#                               the catalogue's image service)
#   ROCKPOOL_TEST_KEYSTONE_SERVICE_USER, _SERVICE_PASSWORD, _SERVICE_PROJECT    who the service is
#   ROCKPOOL_TEST_KEYSTONE_ADMIN_USER, _ADMIN_PASSWORD, _ADMIN_PROJECT          who may do everything
#   ROCKPOOL_TEST_VENVS         a folder that outlives the run, for Python programs
#   ROCKPOOL_TEST_CLIENTS       bin folder with openstack, glance, tempest and python (not for part unit)
#   ROCKPOOL_TEST_BINARY        the daemon, from the very build that the Rust tests use
#   ROCKPOOL_TEST_CACHE         a folder that outlives the run, for downloads
#   ROCKPOOL_TEST_SKIPPED       a Rust test that cannot run here appends a line `NAME: reason` to this
#                               file and returns: it then counts as skipped, not as passed
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly REPO
readonly CLUSTER_SH=$REPO/ceph/cluster.sh
readonly KEYSTONE_SH=$REPO/tests/keystone/keystone.sh
# Those that are scripts in a folder of the same name.
readonly SCRIPT_PARTS=(clients tempest differential boot)
readonly ALL_PARTS=(unit formats "${SCRIPT_PARTS[@]}")
readonly CLIENTS=(python-openstackclient==10.5.0 python-glanceclient==4.13.0 openstacksdk==4.22.0 tempest==47.0.0
    schemathesis==4.32.5 oslo.policy==6.0.1 oslo.utils==10.2.0)
# A test that hangs must not hold the machine for ever.
readonly PART_LIMIT=30m

# The shell may have been set up for a demo, a cluster or a cloud; nothing of that may get in.
unset CEPH_CONF CEPH_ARGS CEPH_KEYRING DATABASE_URL "${!ROCKPOOL_CLUSTER_@}" "${!OS_@}" "${!PG@}"
export no_proxy=127.0.0.1,localhost NO_PROXY=127.0.0.1,localhost

PASSED=0 FAILED=0 SKIPPED=0
FAILURES=()
STATE='' CHILD='' FINISHED=''

say() { printf '\n=== %s\n' "$*"; }
passed() { PASSED=$((PASSED + ${1:-1})); }
failed() { # NAME
    FAILED=$((FAILED + 1))
    FAILURES+=("$1")
    say "FAILED: $1"
}

# ---------------------------------------------------------------- the end, whatever happened

cleanup() {
    local failure
    trap - EXIT
    trap '' INT TERM
    # The child has a process group of its own, with everything that it started.
    if [[ -n $CHILD ]]; then
        { kill -KILL -- "-$CHILD" && wait "$CHILD"; } 2>/dev/null || true
    fi
    [[ -n $FINISHED ]] || failed "the run did not get to its end"
    remove_state
    ((${#FAILURES[@]} == 0)) || say "What failed:"
    for failure in ${FAILURES[@]+"${FAILURES[@]}"}; do echo "$failure"; done
    echo "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    ((FAILED == 0)) || exit 1
    exit 0
}

remove_state() {
    [[ -n $STATE ]] || return 0
    if [[ -n ${ROCKPOOL_TEST_KEEP:-} ]]; then
        say "Everything is left in $STATE. Remove it with:" \
            "$KEYSTONE_SH down $STATE/keystone; $CLUSTER_SH wipe $STATE/cluster && rm -rf $STATE"
        return
    fi
    [[ ! -e $STATE/keystone ]] || "$KEYSTONE_SH" down "$STATE/keystone" || true
    [[ ! -e $STATE/cluster ]] || "$CLUSTER_SH" wipe "$STATE/cluster" || true
    rm -rf "$STATE"
}

# ---------------------------------------------------------------- running one thing

# run LOG COMMAND...: shows and keeps the output. The command runs in the background, because bash
# would put off a signal until a foreground command ended; and in a group of its own, so that
# cleanup reaches what it leaves behind.
run() {
    local log=$1 status=0
    shift
    : >"$log"
    setsid timeout -k 10 "$PART_LIMIT" "$@" </dev/null >"$log" 2>&1 &
    CHILD=$!
    tail -n +1 -s 0.2 --pid="$CHILD" -f "$log" &
    wait "$CHILD" || status=$?
    kill -KILL -- "-$CHILD" 2>/dev/null || true
    CHILD=''
    wait
    ((status != 124)) || echo "This took longer than $PART_LIMIT and was ended." | tee -a "$log"
    return "$status"
}

check() { # NAME COMMAND...: one command, one result
    local name=$1
    shift
    say "$name"
    if run "$STATE/log/check.log" "$@"; then
        passed
    else
        failed "$name"
        return 1
    fi
}

# ---------------------------------------------------------------- what the tests need

wants() { [[ " ${PARTS[*]} " == *" $1 "* ]]; }
wants_scripts() { [[ ${PARTS[*]} != unit ]]; }

# The emulator and its RBD module must come from one build. Where the emulator is installed already,
# from backports perhaps, the module has to follow it.
qemu_packages() {
    local version
    if version=$(dpkg-query -W -f '${Version}' qemu-system-x86 2>/dev/null) && [[ -n $version ]]; then
        echo "qemu-system-x86=$version qemu-block-extra=$version"
    else
        echo "qemu-system-x86 qemu-block-extra"
    fi
}

install_packages() {
    local packages=(gcc libc6-dev librbd-dev libssl-dev pkg-config curl jq procps openssl shellcheck python3-venv radosgw
        nginx-light qemu-utils xz-utils zstd bzip2)
    if wants_scripts; then packages+=(bsdutils); fi
    # shellcheck disable=SC2207 # words without blanks
    if wants boot; then packages+=($(qemu_packages) syslinux syslinux-common mtools cpio); fi
    "$CLUSTER_SH" install "${packages[@]}"
}

# The clients are kept between runs, next to what cargo keeps.
install_clients() {
    local venv=$ROCKPOOL_TEST_VENVS/test-clients wanted="${CLIENTS[*]}"
    export ROCKPOOL_TEST_CLIENTS=$venv/bin
    [[ $(cat "$venv/installed" 2>/dev/null) != "$wanted" ]] || return 0
    rm -rf "$venv"
    # Debian's Python, not another that the PATH may hold: a venv is tied to it.
    /usr/bin/python3 -m venv "$venv" &&
        "$venv/bin/pip" install -q --disable-pip-version-check "${CLIENTS[@]}" &&
        echo "$wanted" >"$venv/installed"
}

# Prometheus' package would start its server: the one program of it that is needed is taken out.
install_promtool() {
    local folder status=0
    [[ ! -x $ROCKPOOL_TEST_CACHE/promtool ]] || return 0
    folder=$(mktemp -d) && chmod 755 "$folder" || return 1
    (cd "$folder" && apt-get -q download prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb |
        tar -x ./usr/bin/promtool && mv usr/bin/promtool "$ROCKPOOL_TEST_CACHE/promtool") || status=$?
    rm -rf "$folder"
    return "$status"
}

# Postgres runs as a user of its own, who must be able to get there.
make_state() {
    local base
    for base in "${TMPDIR:-/tmp}" /tmp /var/tmp; do
        STATE=$(mktemp -d "$base/rockpool-test.XXXXXX") || continue
        chmod 755 "$STATE"
        if ((EUID != 0)) || (cd / && runuser -u postgres -- test -x "$STATE"); then
            mkdir "$STATE/log" "$STATE/tmp"
            # What a test leaves goes with all the rest.
            export TMPDIR=$STATE/tmp
            return
        fi
        rmdir "$STATE"
        STATE=''
    done
    return 1
}

is_free() {
    local port
    for ((port = $1; port < $1 + 50; port++)); do
        ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 1
    done
}

# Below the ports that the kernel gives to outgoing connections.
choose_ports() {
    until is_free "${ROCKPOOL_CLUSTER_PORT:=$((20000 + RANDOM % 200 * 50))}"; do unset ROCKPOOL_CLUSTER_PORT; done
    export ROCKPOOL_CLUSTER_PORT
}

start_servers() {
    local cluster=$STATE/cluster
    choose_ports
    export ROCKPOOL_CLUSTER_THROWAWAY=1
    "$CLUSTER_SH" up "$cluster" && "$CLUSTER_SH" pg-up "$cluster" || return 1
    export ROCKPOOL_TEST_CEPH_DIR=$cluster
    ROCKPOOL_TEST_DATABASE_URL=$("$CLUSTER_SH" pg-url "$cluster")
    export ROCKPOOL_TEST_DATABASE_URL
    export ROCKPOOL_TEST_SKIPPED=$STATE/skipped
    : >"$ROCKPOOL_TEST_SKIPPED"
}

start_keystone() {
    "$KEYSTONE_SH" up "$STATE/keystone" || return 1
    # shellcheck disable=SC1090 # it is written as we speak
    source <("$KEYSTONE_SH" env "$STATE/keystone")
}

# prepare NAME COMMAND...: without it nothing else makes sense.
prepare() {
    say "$1"
    "${@:2}" || {
        failed "$1"
        FINISHED=yes
        exit 1
    }
}

find_cargo() {
    PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
    export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
    command -v cargo || {
        echo "Rust is missing; ceph/demo.sh says how to get it."
        return 1
    }
    TARGET=$(cargo metadata --format-version 1 --no-deps | jq -r .target_directory)
    export ROCKPOOL_TEST_BINARY=$TARGET/debug/rockpool ROCKPOOL_TEST_CACHE=$TARGET/test-cache
    export ROCKPOOL_TEST_VENVS=$TARGET
    mkdir -p "$ROCKPOOL_TEST_CACHE"
}

# ---------------------------------------------------------------- the parts

# One profile for all: what is built here is what `cargo test` runs and what the scripts start.
build() {
    check "cargo build" cargo build --workspace --all-targets
}

count_in() { # LOG PATTERN: the sum of the numbers that the pattern's group catches
    sed -nE "s/.*$2.*/\\1/p" "$1" | awk '{ sum += $1 } END { print sum + 0 }'
}

rust_tests() {
    local log=$STATE/log/cargo-test.log status=0 before=$FAILED bad skips missing name
    say "cargo test"
    # Most of them wait: for leases, watchers, monitors.
    RUST_TEST_THREADS=4 run "$log" cargo test --workspace --no-fail-fast || status=$?
    bad=$(count_in "$log" '^test result: .* ([0-9]+) failed;')
    skips=$(wc -l <"$ROCKPOOL_TEST_SKIPPED")
    passed "$(($(count_in "$log" '^test result: .* ([0-9]+) passed;') - skips))"
    SKIPPED=$((SKIPPED + $(count_in "$log" '^test result: .* ([0-9]+) ignored;') + skips))
    sed 's/^/skip /' "$ROCKPOOL_TEST_SKIPPED"
    while read -r name; do failed "$name"; done < <(sed -nE 's/^test (.*) \.\.\. FAILED$/\1/p' "$log")
    for ((; FAILED - before < bad; )); do failed "a Rust test whose name was not understood"; done
    # A test program that crashed has printed no result.
    missing=$(($(grep -cE '^ +(Running|Doc-tests) ' "$log" || true) - $(grep -c '^test result: ' "$log" || true)))
    for ((; missing > 0; missing--)); do failed "a Rust test program ended without a result"; done
    ((status == 0 || FAILED > before)) || failed "cargo test (exit code $status)"
}

# A script reports each test by a line `ok NAME`, `not ok NAME` or `skip NAME: reason`.
script_test() {
    local name=${1#"$REPO"/} log status=0 line
    log=$STATE/log/$(basename "$1").log
    say "$name"
    run "$log" bash "$1" || status=$?
    passed "$(grep -c '^ok ' "$log" || true)"
    SKIPPED=$((SKIPPED + $(grep -c '^skip ' "$log" || true)))
    while read -r line; do failed "$name: ${line#not ok }"; done < <(grep '^not ok ' "$log")
    if grep -q '^not ok ' "$log"; then return; fi
    ((status == 0)) || failed "$name (exit code $status)"
    grep -qE '^(ok|skip) ' "$log" || failed "$name (it reported nothing)"
}

run_unit() {
    check "cargo fmt" cargo fmt --all --check -- --color never || true
    check "cargo clippy" cargo clippy --workspace --all-targets -- -D warnings || true
    # It takes functions that only a trap calls for unreachable (SC2317).
    check "shellcheck" shellcheck -x -e SC2317 ceph/*.sh tests/*.sh tests/*/*.sh deploy/*.sh fuzz/*.sh .ci/run || true
}

run_scripts() { # FOLDER
    local script
    for script in "$REPO/tests/$1"/*.sh; do
        # The others are what the tests share.
        if grep -q '^start_gateway ' "$script"; then script_test "$script"; fi
    done
}

main() {
    local part
    PARTS=("$@")
    for part in "$@"; do
        [[ " ${ALL_PARTS[*]} " == *" $part "* ]] || { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" && exit 1; }
    done
    (($# > 0)) || PARTS=("${ALL_PARTS[@]}")
    cd "$REPO"
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    prepare "Debian packages" install_packages
    prepare "Rust" find_cargo
    if wants unit; then install_promtool || say "There is no promtool: its test is skipped."; fi
    if wants_scripts; then prepare "OpenStack clients" install_clients; fi
    prepare "A folder for the servers" make_state
    if wants unit; then run_unit; fi
    if build; then
        prepare "Ceph and Postgres" start_servers
        prepare "Keystone" start_keystone
        if wants unit; then rust_tests; fi
        if wants clients; then script_test "$REPO/tests/policy/oslo.sh"; fi
        if wants formats; then script_test "$REPO/tests/formats/formats.sh"; fi
        for part in "${SCRIPT_PARTS[@]}"; do
            if wants "$part"; then run_scripts "$part"; fi
        done
    fi
    FINISHED=yes
}

main "$@"
