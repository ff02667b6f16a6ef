"""A page of pictures that shows what is wrong with annotated images, and what their proposals miss."""
