"""Writers of annotations: one module for each format; `labelled.py` has the shared parts."""
