"""Moves an installation from the embedded database to PostgreSQL."""
