"""What the tab "Re-routing" shows and runs."""
