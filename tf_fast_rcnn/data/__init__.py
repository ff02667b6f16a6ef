"""Data: records of annotated images, one reader a format, proposals, and prepared data sets."""
