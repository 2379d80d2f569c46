"""Metrics of the monitoring service itself."""

from prometheus_client import Counter, Gauge

LOGS_STORED = Counter("foretell_monitoring_logs_stored", "Log records stored.")
SAMPLES_STORED = Counter("foretell_monitoring_samples_stored", "Values of metrics stored.")
RECORDS_REFUSED = Counter("foretell_monitoring_records_refused", "Log lines that could not be read.")
WAITING_BYTES = Gauge("foretell_monitoring_waiting_bytes", "Bytes of requests whose records are not stored yet.")
DATABASE_BYTES = Gauge("foretell_monitoring_database_bytes", "About how much room all records take.")
RECORDS_REMOVED = Counter("foretell_monitoring_records_removed", "Rows removed because of age or size.", ["table"])
