"""A turn while it runs: its account and clock, its attempts at models and tools, its memory, and who may run it."""
