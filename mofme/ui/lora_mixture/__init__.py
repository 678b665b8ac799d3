"""What the tab "Mixture of routers" shows and runs."""
