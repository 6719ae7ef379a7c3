"""One paper, one file; the catalogue turns names into methods."""
