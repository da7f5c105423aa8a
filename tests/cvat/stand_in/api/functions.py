"""Functions that an agent outside the server carries out, and the queues of requests for them."""

from __future__ import annotations
