"""Parts of the tab Interpretable control."""
