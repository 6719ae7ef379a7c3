"""Label Studio: tasks with predictions, and their regions."""
