"""Writers of scans, one module a format; ``io.write`` chooses among them."""
