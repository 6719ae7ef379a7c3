"""Methods that find things without names: what they find takes the one name that is asked for, or is called object."""
