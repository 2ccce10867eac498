"""The report of a run and every file of a result folder."""
