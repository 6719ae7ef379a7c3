"""The images of a name out of millions that nobody labelled: index, search, archives."""
