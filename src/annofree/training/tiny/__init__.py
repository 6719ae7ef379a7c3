"""The bundled tiny models, and how they are measured."""
