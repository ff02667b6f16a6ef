"""Drawings of boxes, plots and HTML pages."""
