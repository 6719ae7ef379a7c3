"""Where pictures and truth come from."""
