"""A package index: its client, its pages, and what pip is configured with."""
