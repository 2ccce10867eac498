"""What a caller says of a recording, settled for every dialect alike; what comes out is a scan."""

from .scan import scan_of

__all__ = ["scan_of"]
