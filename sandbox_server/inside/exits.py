"""Exit codes by which a child tells the front end why no program ran. Trusted: they come before the program."""

FILES_NOT_WRITTEN = 118  # the files of the request; standard error has one line on it
