"""``prodserve export WHAT``: files for the machine that will serve, all from one plan.

    target.py   where the file is used: a service, a container, a platform, a proxy
    site.py     names and paths of the project
    facts.py    every number, path and name of a file, with its reason: target + plan + site
    layout.py   the head of a file, comments, quoting
    kinds.py    the list of kinds: each names its target and the function that writes it

The other modules write text, one kind of file in each, and take every number from the facts.
"""
