"""Prepared data sets: written by `prepare`, read again by every later command."""
