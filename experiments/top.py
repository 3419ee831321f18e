"""The command top; its flags and what it does are in jaxtool/cli/top.py."""

from jaxtool.cli.top import entry, main

if __name__ == "__main__":
    entry.run(main)
