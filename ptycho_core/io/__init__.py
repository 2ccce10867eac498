"""Files: scans in and out, probes, and atomic output. HDF5 is imported when a file needs it, not before."""

from .atomic import atomic_path, ensure_output_folder, write_bytes, write_text
from .probes import read_probe
from .registry import read_scan
from .write import write_scan

__all__ = [
    "atomic_path",
    "ensure_output_folder",
    "read_probe",
    "read_scan",
    "write_bytes",
    "write_scan",
    "write_text",
]
