"""What trainings on an archive share: which of its names, images and masks are learned from."""
