"""What ptychodus drives."""
