"""``python cli.py ...``: the same door as the installed command ``gelkit``."""

from gelkit.cli import main

if __name__ == "__main__":
    main()
