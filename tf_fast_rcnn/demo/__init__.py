"""The demo: a dataset of handwritten digits, and the result page."""
