"""Backups of an installation on the embedded database: one archive, made while it runs, and the way back."""
