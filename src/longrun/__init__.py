"""Longrun: a curated Python for control rooms."""

__version__ = "2026.1.dev0"
