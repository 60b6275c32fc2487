"""What every process shares: domain types, use cases, database, storage. No HTTP, no Celery app, no torch."""
