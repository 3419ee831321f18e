"""The command check_demonstrations; its flags and what it does are in jaxtool/cli/check_demonstrations.py."""

from jaxtool.cli.check_demonstrations import entry, main

if __name__ == "__main__":
    entry.run(main)
