#!/bin/sh
# Becomes Patroni, as the user postgres, with the secrets of this container. Patroni starts PostgreSQL, makes it the
# primary or a standby, and says so at port 8008.
set -eu
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres "$PGDATA"
    chmod 0700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/var/lib/postgresql "$0"
fi
# The first server makes the databases, or has them from the time when it was alone. One without data waits for it.
trap 'exit 0' TERM INT
while [ -n "${FORETELL_COPY_OF:-}" ] && [ ! -s "$PGDATA/PG_VERSION" ]; do
    python3 -I -c "import urllib.request as u; u.urlopen('http://$FORETELL_COPY_OF:8008/readiness', timeout=5)" \
        2>/dev/null && break
    sleep 1
done
trap - TERM INT
password=$(cat /run/secrets/postgres_password)
export PATRONI_SUPERUSER_USERNAME=postgres PATRONI_SUPERUSER_PASSWORD="$password"
# The superuser copies, too: so a server that was alone until now needs no other user to get a standby.
export PATRONI_REPLICATION_USERNAME=postgres PATRONI_REPLICATION_PASSWORD="$password"
# Whoever asks may know who leads; who is to lead, only we say.
export PATRONI_RESTAPI_USERNAME=foretell PATRONI_RESTAPI_PASSWORD="$password"
export PATRONI_RESTAPI_LISTEN=0.0.0.0:8008 PATRONI_RESTAPI_CONNECT_ADDRESS="$PATRONI_NAME:8008"
export PATRONI_POSTGRESQL_LISTEN=0.0.0.0:5432 PATRONI_POSTGRESQL_CONNECT_ADDRESS="$PATRONI_NAME:5432"
export PATRONI_POSTGRESQL_DATA_DIR="$PGDATA"
programs=$(readlink -f "$(command -v pg_ctl)")
export PATRONI_POSTGRESQL_BIN_DIR="${programs%/*}"
exec patroni /foretell/patroni.yml
