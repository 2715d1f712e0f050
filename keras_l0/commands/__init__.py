"""The commands of the program: a module each, with its options and what it does."""
