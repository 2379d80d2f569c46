"""Backup and restore of an installation on the embedded database, as one archive, also while it runs."""
