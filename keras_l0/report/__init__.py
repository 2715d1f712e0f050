"""What a model is made of, as tables, JSON and plots."""
