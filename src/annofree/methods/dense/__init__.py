"""Methods that name every pixel: CLIP read densely, alone or guided by other networks."""
