"""The emoji world: scenes drawn with exact truth."""
