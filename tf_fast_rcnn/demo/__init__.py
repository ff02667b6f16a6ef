"""What `tf-fast-rcnn demo` needs: handwritten digits, and the page that shows the result."""
