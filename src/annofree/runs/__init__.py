"""One method, many images."""
