"""The command cold_start_data; its flags and what it does are in jaxtool/cli/cold_start_data.py."""

from jaxtool.cli.cold_start_data import entry, main

if __name__ == "__main__":
    entry.run(main)
