"""The compatibility matrix: which interpreter works with which library, in which system."""
