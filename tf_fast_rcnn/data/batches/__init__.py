"""Hierarchical mini-batches: images, then RoIs of each."""
