"""Typer commands and the embedded runtime: the only place that imports api and worker together."""
