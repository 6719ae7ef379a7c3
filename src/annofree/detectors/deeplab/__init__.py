"""DeepLabv3+, which labels every pixel of an image with one of the names that it was trained on."""
