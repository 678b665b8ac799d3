"""What the tab "Binary weights" shows and runs."""
