"""Class evidence per pixel or region, before any mask exists."""
