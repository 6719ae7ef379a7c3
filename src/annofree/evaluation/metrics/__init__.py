"""Numbers: AP, answers, separation, mIoU, errors."""
