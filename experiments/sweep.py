"""The command sweep; its flags and what it does are in jaxtool/cli/sweep.py."""

from jaxtool.cli.sweep import entry, main

if __name__ == "__main__":
    entry.run(main)
