"""How good an image is: alignment, comparison with a truth, correlation of two halves, refined positions."""
