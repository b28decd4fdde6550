"""``python -m pdeinfl``: the command line."""

from pdeinfl.cli import main

main()
