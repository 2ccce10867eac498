"""The TensorFlow engine; importing this package imports no framework."""
