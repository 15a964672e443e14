#!/bin/bash
# Starts PostgreSQL as the official image does: makes the cluster and the database at the first start. Settings, by
# environment: POSTGRES_USER, POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, POSTGRES_DB, PGDATA.
set -euo pipefail

# Arguments that are options are postgres's.
if [ "${1:-}" = "" ] || [ "${1:0:1}" = "-" ]; then
    set -- postgres "$@"
fi
if [ "$1" != postgres ]; then
    exec "$@"
fi

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}

# initdb and postgres want a name for their user, and any uid may be given.
if ! getent passwd "$(id -u)" > /dev/null; then
    echo "postgres:x:$(id -u):$(id -g):PostgreSQL:$PGDATA:/bin/false" > /tmp/passwd
    echo "postgres:x:$(id -g):" > /tmp/group
    export NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/tmp/group
    LD_PRELOAD=$(find /usr/lib -name libnss_wrapper.so -print -quit)
    export LD_PRELOAD
fi

# A cluster that was not finished has no configuration of ours at its end, and is made anew.
if ! grep -qs '^# made by entrypoint.sh$' "$PGDATA/postgresql.conf"; then
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        POSTGRES_PASSWORD=$(< "$POSTGRES_PASSWORD_FILE")
    fi
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo "POSTGRES_PASSWORD_FILE or POSTGRES_PASSWORD: expected the password of the user $user, got none" >&2
        exit 1
    fi
    mkdir -p "$PGDATA"
    find "$PGDATA" -mindepth 1 -delete
    chmod 700 "$PGDATA" 2> /dev/null || true # a volume may belong to another user
    initdb --pgdata "$PGDATA" --username "$user" --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD") \
        --encoding UTF8 --locale C.UTF-8 --auth-local trust --auth-host scram-sha-256
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    if [ "$database" != postgres ]; then
        printf 'CREATE DATABASE "%s"\n' "$database" | postgres --single -D "$PGDATA" postgres > /dev/null
    fi
    printf "listen_addresses = '*'\n# made by entrypoint.sh\n" >> "$PGDATA/postgresql.conf"
fi
unset POSTGRES_PASSWORD

exec "$@"
