"""Picture files to RGB float in [0, 1] and back: all that knows of 8 bits, EXIF and colour profiles."""
