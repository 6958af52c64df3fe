"""Evaluation: a run and real images in, a report out."""
