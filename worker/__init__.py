"""Celery tasks: translate a nudge to a use case and an engine."""
