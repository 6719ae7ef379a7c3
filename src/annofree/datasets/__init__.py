"""Where images and truth come from."""
