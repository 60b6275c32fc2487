"""`python -m cli` is `causeway`."""

from cli.app import main

if __name__ == "__main__":
    main()
