"""Hierarchical mini-batches: first images are sampled, then RoIs from each."""
