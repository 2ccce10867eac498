"""Writers of images, one module a format; ``io.export`` chooses among them."""
