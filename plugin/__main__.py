"""`python -m explorank` is the command `explorank`."""

from explorank.cli import main

main()
