"""The command data; its flags and what it does are in jaxtool/cli/data.py."""

from jaxtool.cli.data import entry, main

if __name__ == "__main__":
    entry.run(main)
