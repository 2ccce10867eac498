"""Data contracts (specs/10-data): frames, positions and probe of a scan, groups of frames, and results."""
