"""`python -m m3tune`."""

from m3tune.cli import main

main()
