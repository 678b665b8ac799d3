"""What several language models made of the same prompts, as people publish it: read, checked, repaired and priced."""
