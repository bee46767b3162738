"""The supervisor's first lines, run by path in an interpreter without site (launch.py).

They are as few as possible because Python compiles a script at every start; imports come from a cache.
"""

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from django_prodserve.supervisor.supervisor import main

    sys.exit(main(int(sys.argv[1])))
