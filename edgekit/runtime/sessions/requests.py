"""A pool of inference requests that threads share, with tickets for what was submitted and not yet collected."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from edgekit.errors import UserError

__all__ = ["PendingTicket", "RequestPool"]

RequestT = TypeVar("RequestT")
OutputT = TypeVar("OutputT")


class PendingTicket(Generic[RequestT, OutputT]):
    """A started inference; made by :meth:`RequestPool.start`.

    It holds its request until the outputs are copied out, by its owner or by whoever needs the request.

    Args:
        pool: The pool that made it.
        request: The request that runs.
        finish: Waits for the request and returns its outputs, copied.
        feeds: What must stay alive while the request runs.
    """

    def __init__(
        self,
        *,
        pool: RequestPool[RequestT, OutputT],
        request: RequestT,
        finish: Callable[[RequestT], OutputT],
        feeds: Sequence[Any],
    ) -> None:
        self.pool = pool
        self._lock = threading.Lock()
        self._request: RequestT | None = request
        self._finish = finish
        self._feeds: Sequence[Any] = feeds
        self._outputs: OutputT | None = None
        self._error: Exception | None = None
        self._collected = False

    def settle(self) -> RequestT | None:
        """Waits for the inference and keeps its outcome.

        Returns:
            The request, free again, or None where another thread settled first.
        """
        with self._lock:
            request = self._request
            if request is None:
                return None
            try:
                self._outputs = self._finish(request)
            except Exception as error:  # noqa: BLE001 - kept for the owner, who gets it from take()
                self._error = error
            self._request = None
            self._feeds = ()
            return request

    def take(self) -> OutputT:
        """Returns the outputs of a settled ticket, once.

        Raises:
            UserError: The ticket was redeemed before.
            StageError: The inference failed.
        """
        with self._lock:
            if self._collected:
                raise UserError("collect: this ticket was redeemed before", hint="collect each submission once")
            self._collected = True
            error, outputs = self._error, self._outputs
            self._error = self._outputs = None
        if error is not None:
            raise error
        assert outputs is not None
        return outputs


class RequestPool(Generic[RequestT, OutputT]):
    """Requests that are idle, lent to a caller, or running for a ticket.

    A caller who finds none idle takes the request of the oldest ticket once that has finished; its outputs wait in the
    ticket. So tickets that nobody collects never block anyone.

    Args:
        requests: The idle requests.
    """

    def __init__(self, requests: Sequence[RequestT]) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._idle = list(requests)
        self._under_way: deque[PendingTicket[RequestT, OutputT]] = deque()
        self._closed = False

    def acquire(self) -> RequestT:
        """Returns a request that is the caller's until :meth:`release` or :meth:`start`; blocks while all are lent.

        Raises:
            UserError: The pool is closed.
        """
        while True:
            with self._changed:
                while not (self._idle or self._under_way or self._closed):
                    self._changed.wait()
                if self._closed:
                    raise UserError("this model is closed", hint="load the bundle again")
                if self._idle:
                    return self._idle.pop()
                oldest = self._under_way.popleft()
            request = oldest.settle()
            if request is not None:
                return request

    def release(self, request: RequestT) -> None:
        """Gives a request back."""
        with self._changed:
            if not self._closed:
                self._idle.append(request)
                self._changed.notify()

    def start(
        self, request: RequestT, finish: Callable[[RequestT], OutputT], feeds: Sequence[Any]
    ) -> PendingTicket[RequestT, OutputT]:
        """Returns a ticket for a request that runs; see :class:`PendingTicket`."""
        ticket = PendingTicket(pool=self, request=request, finish=finish, feeds=feeds)
        with self._changed:
            self._under_way.append(ticket)
            self._changed.notify()
        return ticket

    def collect(self, ticket: PendingTicket[RequestT, OutputT]) -> OutputT:
        """Waits for a ticket and returns its outputs."""
        request = ticket.settle()
        if request is not None:
            with self._changed:
                if ticket in self._under_way:
                    self._under_way.remove(ticket)
            self.release(request)
        return ticket.take()

    def close(self) -> bool:
        """Waits for what was submitted and forgets all requests.

        Returns:
            Whether this call was the first.
        """
        with self._changed:
            if self._closed:
                return False
            self._closed = True
            waiting = list(self._under_way)
            self._under_way.clear()
            self._idle.clear()
            self._changed.notify_all()
        for ticket in waiting:
            ticket.settle()
        return True
