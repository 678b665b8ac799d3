"""BinaryConnect on handwritten digits (Courbariaux et al. 2015, section 3.1)."""
