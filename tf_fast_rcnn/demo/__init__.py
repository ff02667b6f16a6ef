"""The demo: a data set of handwritten digits, and the result page."""
