"""`python -m agentstream.cli`: the command where no script is installed. It takes what `main` takes, and knows no more."""

import sys

from agentstream.cli import main

if __name__ == "__main__":
    sys.exit(main())
