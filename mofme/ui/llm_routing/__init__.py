"""What the tab "LLM routing" shows and runs."""
