"""The tuning engine: encode -> batch -> attend -> loss -> train -> evaluate -> adapter. Runs alone on a run folder."""
