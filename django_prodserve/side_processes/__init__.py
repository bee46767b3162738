"""What a project needs alongside its web workers: task workers, a scheduler.

Each process has a minder: a fork of the arbiter that starts it, passes its lines on, starts it again when it
ends, and stops it. The arbiter starts the minders when all workers answer, and knows them by their slots on
the scoreboard (arbiter/side_processes.py).

    arbiter
      |- worker ...
      `- minder     one for each process; a loop over pipes and signals; no threads but that of a host lock
           `- tasks    the process itself, in a session of its own

What ends what:

    the process     its minder starts it again, after a pause
    the minder      the kernel kills the process (PR_SET_PDEATHSIG), the arbiter kills its process group and
                    forks another minder
    the arbiter     the minder stops the process as for a stop: SIGTERM, later SIGKILL
    the supervisor  the arbiter stops, and all its minders with it

The minder of the next generation starts its process when that of the generation before has ended: it waits
for a lock on a file (host_lock.py).
"""
