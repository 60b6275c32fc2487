"""`causeway demo`: an ordinary client of the REST API that sees the whole product work, and measures that it does."""
