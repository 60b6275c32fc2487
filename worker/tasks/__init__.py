"""What a nudge starts. Tasks do not know each other."""
