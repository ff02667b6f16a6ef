"""Measurements beside peers and physical floors: what `tf-fast-rcnn benchmark` runs."""
