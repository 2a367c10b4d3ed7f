"""The command line: noun, verb. Results go to stdout, the rest to stderr; `app.py` has the exit
codes."""


def main() -> int:
    """The entry point; imports the commands only when it is called."""
    from whimbrel.cli.app import main as run

    return run()
