"""Learning from a folder of one's own: found, chosen, trained on, found again, as long as it helps."""
