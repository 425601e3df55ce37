"""`python -m taskmill` is the `taskmill` command."""

from taskmill.cli.main import main

if __name__ == "__main__":
    main()
