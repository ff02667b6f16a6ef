"""Detection: the TensorFlow graph, and the predictors that run it."""
