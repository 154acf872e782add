"""Data sets of small images, held in memory; one class and one yaml each."""
