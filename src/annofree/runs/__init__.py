"""Batch processing: resumable runs of one method over many images."""
