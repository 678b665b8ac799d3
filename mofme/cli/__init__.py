"""The commands of the product, and the table of all commands; a paper's stand in its own folder."""
