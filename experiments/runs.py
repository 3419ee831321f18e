"""The command runs; its flags and what it does are in jaxtool/cli/runs.py."""

from jaxtool.cli.runs import entry, main

if __name__ == "__main__":
    entry.run(main)
