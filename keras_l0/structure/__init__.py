"""Which channels of a network belong together, and how to take them out."""
