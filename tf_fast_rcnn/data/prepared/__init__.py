"""Prepared data sets: written once by `prepare`, then read by training and evaluation."""
