"""``python -m annofree`` is ``annofree``."""

from annofree.apps.cli import main

if __name__ == "__main__":
    main()
