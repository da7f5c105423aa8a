"""A CVAT server to test against: real HTTP on a port of its own, the answers of the recorded 2.54.

    with StandIn() as server:
        client = cvat_sdk.make_client(server.url, credentials=server.credentials)   # or access_token=server.token()
        client.config.status_check_period = 0.01
        ...
        server.human.move(shape_id, 3, 0)             # a person edits in the web interface: same id, "semi-auto"
        server.faults.add(Fault.error(503), method="PATCH", path="/api/tasks/*/annotations/")
        server.log.count("PATCH", "/api/tasks/*/annotations/")

Fixture ``cvat`` (tests/cvat/conftest.py) gives a started one, ``cvat_client`` a client that is logged in.

* ``StandIn(version="2.57.0")`` keeps the ``score`` of shapes, the default 2.54.1 drops it.
* ``StandIn(share=folder, buckets={"name": folder})`` is the server's file share and its cloud storages.
* ``StandIn(analytics=False)`` is a server without its event log.
* ``StandIn(max_body=N)`` answers 413 to bodies of more than N bytes.
* ``StandIn(state_file=path)`` survives ``restart()`` and a new process; without one ``restart()`` keeps the memory.
* ``python -m tests.cvat.stand_in --port N --state FILE`` runs it as a process of its own.
* ``server.errors`` holds tracebacks of the stand-in itself: a test that sees a 500 looks there first.

Each request of a push in turn meets with a fault:

    for number in server.each_request(push):           # runs push() once to count, then rewinds before each round
        server.faults.at(number, Fault.drop_after())   # the server does it, the client never hears of it
        ...                                            # push again, and again without a fault; compare

``server.expire_logins()``, ``server.restart()``, ``server.human.delete_project()`` and the like happen in the middle
of a push by ``Fault.before(action)`` and ``Fault.after(action)``.

What the real server does and one would not think. Recorded:

* ``action=update`` replaces all fields of a shape; attributes that are not sent fall back to the label's defaults.
* An update of a shape that is gone is answered 200 with what was sent.
* A frame that the task does not have: 200, and the shape is dropped; the answer then has no shape.

Read in the server's public source, not recorded:

* An update deletes the rows of these ids and creates them as given, so what was gone comes back with its old id.
* A delete of a shape that is gone, or is in another job, is answered 200 with what was sent.
* ``spec_id`` of another label: 400. An id that another job holds: 400.
* An update without an id creates; a create with an id and a delete without one are refused: 400.
* A task of several jobs answers job by job, so not in the order in which shapes were sent.
* Files of one name in an upload are appended to each other: one frame. What a broken upload left stays, and by TUS
  a name that is there is refused: 409. So a broken upload is best begun anew with a new task.
* The event log names shapes by their ids, one event for each type of shape in a request; a read-only token may export
  it, and who is no administrator gets their own events alone. Its moments are naive UTC.
* A change of an issue takes ``resolved``; its comments are counted there, and listed at ``/api/comments``.
* Of two jobs that overlap each holds a copy of a shape; an update of the task is refused for the second: 400.
* A person's edit of an ``auto`` shape makes it ``semi-auto``; a change of labels gives all jobs a new date.
"""

from .faults import Fault, Faults, Rule
from .log import Entry, Log
from .server import StandIn

__all__ = ["Entry", "Fault", "Faults", "Log", "Rule", "StandIn"]
