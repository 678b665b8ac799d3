"""Opens the app in the browser's reach: `python app.py`, then visit the address it prints."""

import typer

from mofme.cli.app import open_app

if __name__ == "__main__":
    typer.run(open_app)
