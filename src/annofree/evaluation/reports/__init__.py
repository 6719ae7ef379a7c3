"""Tables and pages of scores."""
