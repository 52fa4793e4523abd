"""`python -m zerofs` is the `zerofs` command."""

from zerofs.cli.main import main

if __name__ == "__main__":
    main()
