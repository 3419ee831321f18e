"""The command quickstart; its flags and what it does are in jaxtool/cli/quickstart.py."""

from jaxtool.cli.quickstart import entry, main

if __name__ == "__main__":
    entry.run(main)
