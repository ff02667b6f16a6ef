"""One module for each kind of SPEC; `annotations.py` has what they share."""
