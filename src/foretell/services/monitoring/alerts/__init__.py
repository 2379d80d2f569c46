"""Alerts: evaluates rules every few seconds and sends notifications."""
