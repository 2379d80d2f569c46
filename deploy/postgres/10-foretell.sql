-- Run once, by the image of PostgreSQL, when its volume is new: two databases with an owner each, who may do nothing
-- else. The passwords are in files that only this container sees.
\set database_password `cat /run/secrets/database_password`
\set monitoring_database_password `cat /run/secrets/monitoring_database_password`

CREATE ROLE foretell LOGIN PASSWORD :'database_password';
CREATE DATABASE foretell OWNER foretell ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE foretell FROM PUBLIC;

CREATE ROLE foretell_monitoring LOGIN PASSWORD :'monitoring_database_password';
CREATE DATABASE foretell_monitoring OWNER foretell_monitoring ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE foretell_monitoring FROM PUBLIC;
