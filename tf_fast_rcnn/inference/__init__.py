"""Detection: the graph, and what runs it."""
