"""The command behind `make claims` and `make claim`: `python tests/claims [ID [SEED]]`.

Comes in: the id of a claim, or nothing. Goes out: the list of claims, or one line of JSON and the exit status.
It deliberately does not know more than where the package `claims` lies.
"""

import sys
from pathlib import Path

# Started as a folder, Python puts the folder itself on the path; the package is one up.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from claims._runner import main  # noqa: E402 - only now can it be found

sys.exit(main(sys.argv[1:]))
