"""Readers of files that other people's software writes, one small module a dialect."""
