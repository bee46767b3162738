"""The supervisor's first lines, run by path in an interpreter without site (launch.py).

As few as they are because a script is compiled at every start; what it imports is read from a cache.
"""

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from django_prodserve.supervisor.supervisor import main

    sys.exit(main(int(sys.argv[1])))
