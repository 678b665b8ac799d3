"""What the tab "Distillation" shows and runs."""
