"""The commands that make pages for people to look at: report, review, explain and compare."""
