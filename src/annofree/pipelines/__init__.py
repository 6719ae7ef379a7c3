"""What recipes make before they measure, and what a call of the command line plans; nothing is imported before it is needed."""
