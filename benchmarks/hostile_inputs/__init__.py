"""Hostile inputs of every reader and command, a family a file, and what holds them against their oracles."""
