"""The folder of a run: its layout, chunks and results, and how they are read."""
