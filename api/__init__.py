"""FastAPI: translate HTTP to use cases and back. Nothing else."""
