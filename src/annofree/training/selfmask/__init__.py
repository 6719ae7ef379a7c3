"""SelfMask from images alone."""
