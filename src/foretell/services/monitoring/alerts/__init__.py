"""Alerts: rules are looked at every few seconds, and whoever has to know is told."""
