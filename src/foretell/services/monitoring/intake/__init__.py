"""Turns request bodies into rows that can be stored."""
