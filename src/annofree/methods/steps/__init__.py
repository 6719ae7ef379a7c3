"""What may come after a method: SAM draws its answers anew, an objectness ranks them, CLIP names them."""
