"""The command reproduce; its flags and what it does are in jaxtool/cli/reproduce.py."""

from jaxtool.cli.reproduce import entry, main

if __name__ == "__main__":
    entry.run(main)
