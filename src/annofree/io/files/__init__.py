"""Files that belong to somebody: paths that stay inside a folder, checksums, locks, scratch folders."""
