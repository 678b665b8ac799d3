"""Estimators: what each model makes of a prompt, or what it costs, from the prompt's embedding."""
