"""The page: a server on this machine that answers for images, and keeps what people correct."""
