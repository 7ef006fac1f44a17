"""`python -m agentstream.cli`, where no script is installed.

What comes in: the command line. What goes out: an exit status. It does not know the commands.
"""

import sys

from agentstream.cli import main

if __name__ == "__main__":
    sys.exit(main())
