"""`python -m jaxtool COMMAND` is `jaxtool COMMAND`."""

from jaxtool.cli.dispatch import main

if __name__ == "__main__":
    main()
