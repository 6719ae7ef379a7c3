"""ZUTIS from an archive."""
