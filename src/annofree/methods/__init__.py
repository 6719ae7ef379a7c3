"""One paper, one file; the registry turns names into methods."""
