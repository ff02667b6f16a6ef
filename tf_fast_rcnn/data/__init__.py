"""Data: annotated images, a reader for each format, proposals, prepared data sets, and mini-batches."""
