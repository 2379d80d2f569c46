"""Measurements: of the whole path, of its peers, of the limits underneath."""
