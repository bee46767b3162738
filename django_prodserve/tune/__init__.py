"""``prodserve tune``: measure a project on a private server, and recommend how to serve it.

``action.py`` is the order of the whole. Pure: what to measure (``choices``, ``access_log``), the model
(``costs``, ``prediction``), the result (``result``) and its forms (``report``, ``page``). With effects:
``routes`` asks the URLconf, ``server`` starts and ends the private server, ``load`` runs the client
(``client.py``, a program of its own), ``measure`` is the schedule.
"""
