"""The command new_run; its flags and what it does are in jaxtool/cli/new_run.py."""

from jaxtool.cli.new_run import entry, main

if __name__ == "__main__":
    entry.run(main)
