"""Opens the app in the browser's reach: `python app.py`, then visit the address it prints."""

import typer

from mofme.ui.window import main

if __name__ == "__main__":
    typer.run(main)
