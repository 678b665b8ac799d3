"""What the tab "Dense to MoE" shows and runs."""
