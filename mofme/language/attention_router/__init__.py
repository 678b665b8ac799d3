"""Yuan 2.0-M32's attention router (arXiv 2405.17976) in small language models, beside linear and two-layer ones."""
