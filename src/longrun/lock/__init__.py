"""Locks: what goes together, of which files, and who accepted it."""
