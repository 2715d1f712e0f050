"""Which weights go, how many, when, and how they stay zero."""
