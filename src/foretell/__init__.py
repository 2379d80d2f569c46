"""Foretell: a self-hosted prediction service."""

__version__ = "0.1.0"
