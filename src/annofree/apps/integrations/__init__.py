"""What other tools call: a function for CVAT, a source of models for FiftyOne; each in their own words."""
