#!/bin/bash
# A node of a cluster: with the secret by which nodes know each other, and then as its image starts it.
set -eu
cookie=/var/lib/rabbitmq/.erlang.cookie
rm -f "$cookie"
(umask 0377 && tr -d '\n' </run/secrets/erlang_cookie >"$cookie")
chown rabbitmq "$cookie"
# Nodes without data join one that is there, which may have data from the time when it was alone. Without waiting for it,
# they would become a cluster without it.
trap 'exit 0' TERM INT
while [ -n "${FORETELL_JOINS:-}" ] && [ ! -d /var/lib/rabbitmq/mnesia ]; do
    (exec 3<>"/dev/tcp/$FORETELL_JOINS/5672") 2>/dev/null && break
    sleep 1
done
trap - TERM INT
exec docker-entrypoint.sh rabbitmq-server
