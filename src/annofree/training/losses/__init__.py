"""What is learned from: losses of sets, masks and views."""
