"""The command select_demonstrations; its flags and what it does are in jaxtool/cli/select_demonstrations.py."""

from jaxtool.cli.select_demonstrations import entry, main

if __name__ == "__main__":
    entry.run(main)
