"""The labelling engine: prior -> prompt -> teacher -> parse -> ground. Knows the domain, not the service."""
