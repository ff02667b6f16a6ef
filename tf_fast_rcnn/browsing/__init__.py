"""A page with pictures of likely annotation errors, and of the objects that the proposals miss."""
