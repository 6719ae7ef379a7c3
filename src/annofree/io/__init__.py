"""Reading and writing that knows no annotation: atomic files, streams, images and where they come from."""
