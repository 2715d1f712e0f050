"""Keras 3 networks made small: regularization, pruning, sparse TFLite files."""
