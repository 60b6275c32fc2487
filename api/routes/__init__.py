"""One module a resource: HTTP in, a use case, HTTP out. Routes do not import each other."""
