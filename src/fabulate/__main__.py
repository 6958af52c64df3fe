"""`python -m fabulate` is `fabulate`."""

from fabulate.cli import main

if __name__ == "__main__":
    main()
