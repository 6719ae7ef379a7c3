"""Image towers of vision-language models, read from the inside."""
