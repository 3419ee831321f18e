"""How large a session may grow. Apart from the supervisor, so that the front end reads it without loading numpy."""

MAX_BRANCHES = 8  # of one session tree
TASK_ALLOWANCE = 2 * MAX_BRANCHES + 1  # processes besides the threads of the running block
