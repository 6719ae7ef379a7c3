"""The images of a name out of millions that nobody labeled: index, search, archives."""
