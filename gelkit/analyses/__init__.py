"""Reuse: neighbours, duplicates, predictions on new images, export."""
