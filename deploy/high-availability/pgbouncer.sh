#!/bin/sh
# Becomes PgBouncer in transaction mode, in front of the one server that FORETELL_SERVER names.
set -eu
umask 077
mkdir -p /tmp/pgbouncer
cat >/tmp/pgbouncer/users.txt <<END
"foretell" "$(cat /run/secrets/database_password)"
"foretell_monitoring" "$(cat /run/secrets/monitoring_database_password)"
END
cat >/tmp/pgbouncer/pgbouncer.ini <<END
[databases]
* = host=$FORETELL_SERVER port=5432
[pgbouncer]
listen_addr = 0.0.0.0
listen_port = 6432
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /tmp/pgbouncer/users.txt
pool_mode = transaction
default_pool_size = 40
max_client_conn = 1000
# A server that is away is asked again soon, and whoever asks hears of it.
server_connect_timeout = 3
server_login_retry = 1
query_wait_timeout = 4
log_connections = 0
log_disconnections = 0
END
exec pgbouncer /tmp/pgbouncer/pgbouncer.ini
