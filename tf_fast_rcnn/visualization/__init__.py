"""Pictures, plots and pages."""
