#!/bin/sh
# Run by Patroni, once, on the server that is made first: users and databases, as without Patroni.
set -eu
exec psql --quiet --set ON_ERROR_STOP=1 --dbname "$1" --file /docker-entrypoint-initdb.d/10-foretell.sql
