"""Metrics: AP, answer quality, separation, mIoU, errors."""
