"""Those who say which phrases cause which: a language model behind an endpoint, or the rules of a prior."""
