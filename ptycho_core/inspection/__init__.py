"""What a scan file holds, and what is wrong with it."""
