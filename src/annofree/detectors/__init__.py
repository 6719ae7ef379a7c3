"""Detectors: networks that find boxes and masks of the names they were trained on."""
