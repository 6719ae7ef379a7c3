"""Networks that captions alone taught to segment: TCL's masker on CLIP, and GroupViT."""
