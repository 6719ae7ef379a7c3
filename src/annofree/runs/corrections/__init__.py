"""What people correct in the answers to images: kept as acts apart from what the machine wrote, and folded into labels."""
