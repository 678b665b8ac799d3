"""What the tab "Router robustness" shows and runs."""
