"""Benchmarks against other libraries and hardware limits, run by `tf-fast-rcnn benchmark`."""
