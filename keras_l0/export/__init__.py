"""From a Keras model to a TFLite file that is proven to run and to be right."""
