"""What the tab "Attention router" shows and runs."""
