"""NamedMask from an archive."""
