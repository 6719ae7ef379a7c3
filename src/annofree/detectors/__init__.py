"""Detectors: networks for boxes and masks of the classes they were trained on."""
