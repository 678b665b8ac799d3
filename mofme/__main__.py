"""`python -m mofme`: the command line."""

from mofme.cli.app import app

if __name__ == "__main__":
    app(prog_name="python -m mofme")
