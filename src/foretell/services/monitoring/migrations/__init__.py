"""The migrations of the monitoring service's tables."""
