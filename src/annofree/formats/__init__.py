"""Files in and out, reader and writer side by side."""
