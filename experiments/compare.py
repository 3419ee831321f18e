"""The command compare; its flags and what it does are in jaxtool/cli/compare.py."""

from jaxtool.cli.compare import entry, main

if __name__ == "__main__":
    entry.run(main)
