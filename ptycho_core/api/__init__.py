"""The host's side: the stages from a scan to an image and a report, and the doors to them."""
