"""The options of the commands, by subject: each stands once, and commands that share one say the same of it."""
