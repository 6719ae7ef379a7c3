"""Tools for language models, over the Model Context Protocol: they get paths, counts and a small image, never masks."""
