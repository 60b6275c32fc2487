"""Annotation jobs in batch mode: a slice looks after the job's open batches, sends what is missing, and lets go."""
