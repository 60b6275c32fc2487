"""Each file is one question and prints one table."""
