"""The command doctor; its flags and what it does are in jaxtool/cli/doctor.py."""

from jaxtool.cli.doctor import entry, main

if __name__ == "__main__":
    entry.run(main)
