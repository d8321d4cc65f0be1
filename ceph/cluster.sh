#!/usr/bin/env bash
# One private Ceph node and one private Postgres, each in a folder of its own: the only place that
# knows how to start them. The demo, the tests and the compose file all call it.
#
#   cluster.sh install [PACKAGE...]   install the Debian packages of both servers, and PACKAGE
#   cluster.sh up DIR                 make or resume the Ceph node (mon, mgr, one OSD, cephx)
#   cluster.sh down DIR               stop it; the data stay
#   cluster.sh status DIR             what runs; fails unless everything that was made runs
#   cluster.sh pg-up DIR              make or resume Postgres
#   cluster.sh pg-down DIR            stop it; the data stay
#   cluster.sh pg-url DIR [NAME]      print the URL of its superuser, or of the database NAME
#   cluster.sh pg-database DIR NAME   make a role and a database NAME (kept if there), print its URL
#   cluster.sh hold DIR               wait for a signal, then stop both; fails when a server dies
#   cluster.sh wipe DIR               stop both at once and remove DIR
#
# What callers and tests may rely on in DIR:
#   ceph.conf                         for daemons and clients; names the keyring of every client below
#   client.admin.keyring              everything
#   client.rockpool.keyring           'profile rbd' on the pool images
#   client.classic.keyring            the same rights in the words used before Luminous
#   client.nova.keyring               'profile rbd' on vms, read-only on images
#   run/{mon,mgr,osd,postgres}.pid    log/
#   pg-postgres.password, pg-NAME.password
#
# Environment, read when DIR is first made and kept in it from then on:
#   ROCKPOOL_CLUSTER_ADDRESS          where the servers listen (127.0.0.1)
#   ROCKPOOL_CLUSTER_PORT             first of 50 ports (15300): +0 mon v2, +1 mon v1, +2 Postgres,
#                                     +10 to +49 mgr and OSD
#   ROCKPOOL_CLUSTER_GIB              size of the OSD; its file is sparse (40)
#   ROCKPOOL_CLUSTER_THROWAWAY        not empty: made for tests. Postgres does not sync, the monitor does
#                                     not gather changes for a second (a snapshot then costs 30 ms
#                                     instead of some 0.7 s): not for measuring
set -euo pipefail

# The caller's shell may point at another cluster or database: nothing of that may leak in here.
unset CEPH_CONF CEPH_ARGS CEPH_KEYRING
unset PGHOST PGHOSTADDR PGPORT PGUSER PGPASSWORD PGPASSFILE PGDATABASE PGSERVICE PGOPTIONS PGDATA
export LC_ALL=C.UTF-8

readonly PACKAGES=(ceph-mon ceph-mgr ceph-osd ceph-common postgresql postgresql-client)
readonly WAIT_START_SECONDS=60
readonly WAIT_STOP_SECONDS=30

say() { printf '[cluster] %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit "$1"
}

# ---------------------------------------------------------------- packages

is_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# An installed package counts whatever its version; `name=version` asks for just that one.
is_satisfied() {
    local name=${1%%=*}
    is_installed "$name" || return 1
    [[ $1 != *=* || $(dpkg-query -W -f '${Version}' "$name") == "${1#*=}" ]]
}

# Debian's postgresql package makes a server on port 5432 and starts it. On a machine that had none
# it would be ours to answer for, so it is told not to; a server that is there stays as it is.
without_default_postgres() {
    local drop_in=/etc/postgresql-common/createcluster.d/rockpool.conf status=0
    if compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then
        "$@"
        return
    fi
    mkdir -p "${drop_in%/*}"
    echo 'create_main_cluster = false' >"$drop_in"
    "$@" || status=$?
    rm -f "$drop_in"
    return "$status"
}

# apt's hundreds of lines are of interest only when it fails.
apt_install() {
    local log status=0
    log=$(mktemp)
    # A source that cannot be reached need not be the one that is needed; another apt may be at work.
    { apt-get -q update || true
        apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends --allow-downgrades install "$@"
    } </dev/null >"$log" 2>&1 || status=$?
    ((status == 0)) || show_log "$log"
    rm -f "$log"
    return "$status"
}

install_packages() {
    local package missing=()
    command -v dpkg-query >/dev/null || die "This is not a Debian-like system: dpkg is missing."
    for package in "${PACKAGES[@]}" "$@"; do
        is_satisfied "$package" || missing+=("$package")
    done
    if ((${#missing[@]} == 0)); then
        say "All packages are installed."
        return
    fi
    ((EUID == 0)) || die "These packages are missing and only root can install them: ${missing[*]}"
    say "Installing ${missing[*]}."
    export DEBIAN_FRONTEND=noninteractive
    without_default_postgres apt_install "${missing[@]}" || die "apt-get failed, see above."
}

# ---------------------------------------------------------------- the folder

# Sets DIR, ADDRESS and PORT, and holds the folder's lock until the script ends.
open_dir() {
    [[ -n ${1:-} ]] || die "A state folder is missing; see $0 --help."
    DIR=$(realpath -m -- "$1")
    # ceph.conf has no quoting, and a socket's path ends at 107 bytes.
    [[ $DIR =~ ^[A-Za-z0-9/._+-]+$ ]] || die "The path $DIR has a character that ceph.conf cannot hold."
    ((${#DIR} <= 70)) || die "The path $DIR is too long for the sockets in it: 70 characters at most."
    if [[ ${2:-} == create ]]; then create_dir; fi
    [[ -e $DIR/address ]] || die "There is nothing in $DIR."
    read -r ADDRESS PORT <"$DIR/address"
    readonly DIR ADDRESS PORT
    exec 9>"$DIR/run/lock"
    flock -w $((2 * WAIT_START_SECONDS)) 9 || die "Another $0 is at work in $DIR."
}

create_dir() {
    [[ -e $DIR/address || ! -e $DIR || -z $(ls -A "$DIR") ]] || die "$DIR holds something else: choose another folder."
    mkdir -p "$DIR"/{run,log}
    # The files inside guard themselves; the user postgres has to get through.
    chmod 755 "$DIR" "$DIR/log"
    # Once a server is made its address is part of its data.
    [[ -e $DIR/ceph.ready || -e $DIR/postgres.ready ]] ||
        echo "${ROCKPOOL_CLUSTER_ADDRESS:-127.0.0.1} ${ROCKPOOL_CLUSTER_PORT:-15300}" >"$DIR/address"
}

# A pid file counts only while its process is one that was started for this very folder.
pid_of() {
    local pid
    pid=$(cat "$DIR/run/$1.pid" 2>/dev/null) && [[ -n $pid ]] || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" |
        grep -qxF -e "$DIR/ceph.conf" -e "$DIR/postgres" || return 1
    echo "$pid"
}

is_running() { pid_of "$1" >/dev/null; }

ensure_port_is_free() {
    ! (exec 3<>"/dev/tcp/$ADDRESS/$2") 2>/dev/null ||
        die "Port $2 on $ADDRESS, meant for $1, is taken; set ROCKPOOL_CLUSTER_PORT for a new folder."
}

show_log() {
    local file
    for file in "$@"; do
        [[ ! -s $file ]] || { say "The end of $file:" && tail -n 15 "$file" >&2; }
    done
}

# stop SIGNAL NAME...: all get the signal first, so that they end side by side.
stop() {
    local signal=$1 name pid
    shift
    for name in "$@"; do
        ! pid=$(pid_of "$name") || kill -"$signal" "$pid" 2>/dev/null || true
    done
    for name in "$@"; do
        await_end "$name"
        rm -f "$DIR/run/$name.pid"
    done
}

await_end() {
    local pid tries
    for ((tries = WAIT_STOP_SECONDS * 20; tries > 0; tries--)); do
        is_running "$1" || return 0
        sleep 0.05
    done
    pid=$(pid_of "$1") || return 0
    say "$1 did not stop within $WAIT_STOP_SECONDS s and is killed."
    kill -KILL "$pid" 2>/dev/null || true
}

# ---------------------------------------------------------------- Ceph

# The folder's own client.admin, never /etc/ceph; a call that cannot get through ends.
ceph_admin() { timeout "$WAIT_START_SECONDS" ceph -c "$DIR/ceph.conf" --id admin "$@" 9>&-; }
rbd_admin() { timeout "$WAIT_START_SECONDS" rbd -c "$DIR/ceph.conf" --id admin "$@" 9>&-; }

mon_addresses() { echo "[v2:$ADDRESS:$PORT,v1:$ADDRESS:$((PORT + 1))]"; }

write_ceph_conf() {
    cat >"$DIR/ceph.conf" <<CONF
[global]
fsid = $1
mon_host = $(mon_addresses)
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
public_addr = $ADDRESS
ms_bind_port_min = $((PORT + 10))
ms_bind_port_max = $((PORT + 49))
# One OSD, and no warning about that.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 16
# Splitting placement groups under a running test would only add noise.
osd_pool_default_pg_autoscale_mode = off

[mon]
mon_data = $DIR/mon
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
# The node shares its disk with everything else: warn at the last per cent only.
mon_data_avail_warn = 1
mon_data_avail_crit = 1
auth_allow_insecure_global_id_reclaim = false
log_file = $DIR/log/mon.log
admin_socket = $DIR/run/mon.asok

[mgr]
mgr_data = $DIR/mgr
mgr_initial_modules = iostat
log_file = $DIR/log/mgr.log
admin_socket = $DIR/run/mgr.asok

[osd]
osd_data = $DIR/osd
osd_objectstore = bluestore
osd_memory_target = 1073741824
bluestore_block_create = true
bluestore_block_size = $((${ROCKPOOL_CLUSTER_GIB:-40} << 30))
# A primary may answer reads for 0.8 times this long without renewing its lease. One that overslept it (SIGSTOP,
# a machine that was suspended) and has no peer to renew it with stays "laggy", and answers nothing, for ever.
osd_heartbeat_grace = 1000
log_file = $DIR/log/osd.log
admin_socket = $DIR/run/osd.asok

[client]
keyring = $DIR/\$name.keyring
CONF
    [[ -z ${ROCKPOOL_CLUSTER_THROWAWAY:-} ]] ||
        sed -i 's/^\[mon\]$/&\npaxos_propose_interval = 0.02\npaxos_min_wait = 0.01/' "$DIR/ceph.conf"
}

# make_key FILE ENTITY CAPS...: a keyring of its own and an entry in what the monitor starts with.
# Keys that are there from the start save one `ceph auth` call each, some 0.4 s.
make_key() {
    local file=$1 entity=$2
    shift 2
    ceph-authtool --mode 0600 --create-keyring "$file" --gen-key -n "$entity" "$@" >/dev/null
    [[ $entity == mon. ]] || ceph-authtool "$DIR/seed/keyring" --import-keyring "$file" >/dev/null
}

make_keys() {
    make_key "$DIR/seed/keyring" mon. --cap mon 'allow *'
    make_key "$DIR/mgr/keyring" mgr.x --cap mon 'allow profile mgr' --cap osd 'allow *' --cap mds 'allow *'
    make_key "$DIR/osd/keyring" osd.0 --cap mon 'allow profile osd' --cap mgr 'allow profile osd' --cap osd 'allow *'
    make_key "$DIR/client.admin.keyring" client.admin \
        --cap mon 'allow *' --cap osd 'allow *' --cap mds 'allow *' --cap mgr 'allow *'
    make_key "$DIR/client.rockpool.keyring" client.rockpool \
        --cap mon 'profile rbd' --cap osd 'profile rbd pool=images' --cap mgr 'profile rbd pool=images'
    make_key "$DIR/client.classic.keyring" client.classic \
        --cap mon 'allow r' --cap osd 'allow class-read object_prefix rbd_children, allow rwx pool=images'
    make_key "$DIR/client.nova.keyring" client.nova \
        --cap mon 'profile rbd' --cap osd 'profile rbd pool=vms, profile rbd-read-only pool=images' \
        --cap mgr 'profile rbd pool=vms'
}

start_daemon() {
    local name=$1 binary=$2 id=$3
    ! is_running "$name" || return 0
    # The daemon puts itself into the background; the lock must not go with it.
    "$binary" -c "$DIR/ceph.conf" -i "$id" --pid-file "$DIR/run/$name.pid" \
        </dev/null >>"$DIR/log/$name.out" 2>&1 9>&- && return 0
    show_log "$DIR/log/$name.out" "$DIR/log/$name.log"
    die "$binary did not start."
}

start_mon() {
    is_running mon || {
        ensure_port_is_free "the monitor" "$PORT"
        ensure_port_is_free "the monitor" $((PORT + 1))
    }
    start_daemon mon ceph-mon a
}

make_osd() {
    local uuid
    uuid=$(cat /proc/sys/kernel/random/uuid)
    ceph_admin osd new "$uuid" >/dev/null
    ceph-osd -c "$DIR/ceph.conf" -i 0 --mkfs --osd-uuid "$uuid" >>"$DIR/log/osd.out" 2>&1 9>&- || {
        show_log "$DIR/log/osd.out"
        die "ceph-osd could not make its store in $DIR/osd."
    }
}

make_pool() {
    ceph_admin osd pool create "$1" >/dev/null 2>&1 || die "The pool $1 could not be made."
    rbd_admin pool init "$1" || die "The pool $1 could not be initialised for RBD."
}

make_pools() {
    local job jobs=()
    make_pool images &
    jobs+=($!)
    make_pool vms &
    jobs+=($!)
    for job in "${jobs[@]}"; do wait "$job"; done
}

make_ceph() {
    local fsid
    say "Making a Ceph node in $DIR, monitor on $ADDRESS:$PORT and $((PORT + 1))."
    # What an interrupted first attempt left is no cluster yet.
    stop KILL osd mgr mon
    rm -rf "$DIR"/{seed,mon,mgr,osd}
    mkdir -p "$DIR"/{seed,mon,mgr,osd}
    fsid=$(cat /proc/sys/kernel/random/uuid)
    write_ceph_conf "$fsid"
    make_keys
    monmaptool --create --clobber --fsid "$fsid" --addv a "$(mon_addresses)" "$DIR/seed/monmap" >/dev/null
    ceph-mon -c "$DIR/ceph.conf" -i a --mkfs --monmap "$DIR/seed/monmap" --keyring "$DIR/seed/keyring" \
        >>"$DIR/log/mon.out" 2>&1 || {
        show_log "$DIR/log/mon.out"
        die "ceph-mon could not make its store in $DIR/mon."
    }
    rm -r "$DIR/seed"
    start_mon
    start_daemon mgr ceph-mgr x
    make_osd
    start_daemon osd ceph-osd 0
    make_pools
    touch "$DIR/ceph.ready"
}

resume_ceph() {
    start_mon
    start_daemon mgr ceph-mgr x
    start_daemon osd ceph-osd 0
}

await_osd() {
    local deadline=$((SECONDS + WAIT_START_SECONDS))
    until ceph_admin osd stat 2>/dev/null | grep -q ' 1 up'; do
        ((SECONDS < deadline)) || {
            show_log "$DIR/log/osd.log"
            die "The OSD did not come up within $WAIT_START_SECONDS s."
        }
        sleep 0.2
    done
}

ceph_up() {
    command -v ceph-osd >/dev/null || die "Ceph is not installed; '$0 install' does that."
    if [[ -e $DIR/ceph.ready ]] && is_running mon && is_running mgr && is_running osd; then
        say "Ceph already runs in $DIR."
        return
    fi
    if [[ -e $DIR/ceph.ready ]]; then resume_ceph; else make_ceph; fi
    await_osd
    say "Ceph is up after $SECONDS s: $DIR/ceph.conf."
}

# ---------------------------------------------------------------- Postgres

# Debian keeps every version apart; any from 14 on will do, the newest is taken.
pg_bin() {
    local newest
    newest=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -t/ -k5,5n | tail -n 1)
    if ! [[ $newest =~ /([0-9]+)/bin ]] || ((BASH_REMATCH[1] < 14)); then
        die "Postgres 14 or newer is not installed; '$0 install' does that."
    fi
    echo "${newest%/initdb}"
}

# Postgres refuses to run as root.
as_postgres() {
    if ((EUID == 0)); then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

pg_url() { # ROLE: each role has a database of its own name
    [[ -s $DIR/pg-$1.password ]] || die "There is no database $1 in $DIR."
    echo "postgres://$1:$(cat "$DIR/pg-$1.password")@$ADDRESS:$((PORT + 2))/$1"
}

# random_password FILE: hex, so that it needs no quoting in a URL, in SQL or in a shell.
random_password() {
    [[ -s $1 ]] || (umask 077 && od -An -tx1 -N24 /dev/urandom | tr -d ' \n' >"$1")
}

make_postgres() {
    local bin=$1 data=$DIR/postgres password=$DIR/pg-postgres.password
    say "Making a Postgres in $data, on $ADDRESS:$((PORT + 2))."
    rm -rf "$data"
    mkdir -m 700 "$data"
    random_password "$password"
    # The password's file is ours alone; initdb gets a copy, for as long as it runs.
    install -m 600 "$password" "$DIR/initdb.password"
    ((EUID != 0)) || chown postgres: "$data" "$DIR/initdb.password"
    as_postgres test -w "$data" ||
        die "The user postgres cannot get into $DIR: choose a folder outside of root's home, like /var/tmp/NAME."
    as_postgres "$bin/initdb" -D "$data" -U postgres --pwfile="$DIR/initdb.password" -A scram-sha-256 \
        -E UTF8 --locale=C.UTF-8 --no-sync >"$DIR/log/initdb.log" 2>&1 || {
        show_log "$DIR/log/initdb.log"
        die "initdb failed."
    }
    rm "$DIR/initdb.password"
    write_pg_conf "$data"
    touch "$DIR/postgres.ready"
}

write_pg_conf() {
    # 300 connections: a test run opens a pool per daemon.
    cat >>"$1/postgresql.conf" <<CONF
listen_addresses = '$ADDRESS'
port = $((PORT + 2))
unix_socket_directories = ''
max_connections = 300
CONF
    [[ -z ${ROCKPOOL_CLUSTER_THROWAWAY:-} ]] ||
        printf '%s\n' 'fsync = off' 'synchronous_commit = off' 'full_page_writes = off' >>"$1/postgresql.conf"
    [[ $ADDRESS == 127.* ]] || echo 'host all all samenet scram-sha-256' >>"$1/pg_hba.conf"
}

pg_up() {
    local bin data=$DIR/postgres log=$DIR/log/postgres.log
    bin=$(pg_bin)
    if is_running postgres; then
        say "Postgres already runs in $data."
        return
    fi
    ensure_port_is_free Postgres $((PORT + 2))
    [[ -e $DIR/postgres.ready ]] || make_postgres "$bin"
    touch "$log"
    ((EUID != 0)) || chown postgres: "$log"
    as_postgres "$bin/pg_ctl" -D "$data" -l "$log" -t "$WAIT_START_SECONDS" -w start \
        </dev/null >/dev/null 9>&- || {
        show_log "$log"
        die "Postgres did not start."
    }
    head -n 1 "$data/postmaster.pid" >"$DIR/run/postgres.pid"
    say "Postgres is up on $ADDRESS:$((PORT + 2))."
}

pg_admin() { psql -X -q -v ON_ERROR_STOP=1 -d "$(pg_url postgres)" "$@" 9>&-; }

pg_database() {
    [[ ${1:-} =~ ^[a-z][a-z0-9_]*$ ]] || die "'${1:-}' is no name for a database here: a-z, 0-9 and _ only."
    is_running postgres || die "Postgres does not run in $DIR."
    random_password "$DIR/pg-$1.password"
    [[ -n $(pg_admin -Atc "SELECT 1 FROM pg_roles WHERE rolname = '$1'") ]] || pg_admin -c "CREATE ROLE $1"
    pg_admin <<<"ALTER ROLE $1 LOGIN PASSWORD '$(cat "$DIR/pg-$1.password")'"
    [[ -n $(pg_admin -Atc "SELECT 1 FROM pg_database WHERE datname = '$1'") ]] ||
        pg_admin -c "CREATE DATABASE $1 OWNER $1"
    pg_url "$1"
}

# ---------------------------------------------------------------- both

made_servers() {
    [[ ! -e $DIR/ceph.ready ]] || echo mon mgr osd
    [[ ! -e $DIR/postgres.ready ]] || echo postgres
}

status() {
    local name pid result=0
    [[ -n $(made_servers) ]] || die "No server has been made in $DIR."
    for name in $(made_servers); do
        if pid=$(pid_of "$name"); then
            echo "$name runs (pid $pid)"
        else
            echo "$name does not run"
            result=1
        fi
    done
    ! is_running mon || echo "ceph health: $(ceph_admin --connect-timeout 5 health 2>&1)"
    return "$result"
}

# For a container, whose first process this is.
hold() {
    local name
    flock -u 9
    trap 'stop TERM osd mgr mon; stop INT postgres; exit 0' TERM INT
    while sleep 2 & wait $!; do
        for name in $(made_servers); do
            is_running "$name" || die "$name has died; its log is $DIR/log/$name.log."
        done
    done
}

wipe() {
    stop KILL osd mgr mon postgres
    rm -rf "$DIR"
}

main() {
    local command=${1:-}
    case $command in
    -h | --help | help) usage 0 ;;
    install) install_packages "${@:2}" ;;
    up | pg-up) open_dir "${2:-}" create ;;
    down | status | pg-down | pg-url | pg-database | hold | wipe) open_dir "${2:-}" ;;
    *) usage 1 >&2 ;;
    esac
    case $command in
    install) ;;
    up) ceph_up ;;
    down) stop TERM osd mgr mon ;;
    status) status ;;
    pg-up) pg_up ;;
    pg-down) stop INT postgres ;;
    pg-url) pg_url "${3:-postgres}" ;;
    pg-database) pg_database "${3:-}" ;;
    hold) hold ;;
    wipe) wipe ;;
    esac
}

main "$@"
