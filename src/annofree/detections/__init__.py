"""From fragments and clues to named things."""
