"""The bundled tiny models."""
