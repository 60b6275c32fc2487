"""The language of Causeway: spans, relations, examples, priors, training, states. Standard library only."""
