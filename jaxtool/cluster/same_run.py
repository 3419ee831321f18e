"""Whether the run in a bucket is the one that is launched, by the rules of a resume (docs/runs.md)."""

import tempfile
from pathlib import Path

from jaxtool.rundir.metrics import METRICS_NAME
from jaxtool.rundir.run_record import RECORD, read_record
from jaxtool.rundir.run_start import Identity, check_start
from jaxtool.train.resume_rules import MAY_CHANGE


def check_same_run(record: str, identity: Identity, place: str) -> None:
    """Raises ValueError where a start in that place would be refused as another run's, and names what differs.

    Args:
      record: the text of its run.json.
      identity: of the run that is launched.
      place: its work directory, for the message.
    """
    with tempfile.TemporaryDirectory(prefix="jaxtool-launch-") as made:
        workdir = Path(made)
        (workdir / RECORD).write_text(record, encoding="utf-8")
        found = read_record(workdir)
        if found is None or not found.settings:
            return  # only starts that were refused: the directory is nobody's
        (workdir / METRICS_NAME).write_text("{}\n", encoding="utf-8")  # a run that has begun
        try:
            check_start(workdir, identity, identity.settings(), MAY_CHANGE)
        except ValueError as error:
            raise ValueError(
                str(error).replace(str(workdir), place).replace("--workdir", "--name")
            ) from None
