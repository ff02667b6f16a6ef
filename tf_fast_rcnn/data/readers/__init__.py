"""Readers: one module for each kind of SPEC; `annotations.py` has the shared parts."""
