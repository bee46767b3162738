"""What a scheduler asks of its reactor, where a test has no clients and no routes."""

from __future__ import annotations


class QuietHost:
    """Nobody waits in the kernel, no other worker is overloaded, no request is late."""

    def wake_main_thread(self) -> None:
        pass

    def unaccepted(self) -> float:
        return 0.0

    def peers_overloaded(self) -> bool:
        return False

    def report_failure(self) -> None:
        raise AssertionError

    def threads_changed(self, threads: int) -> None:
        pass

    def running_paths(self) -> dict[int, str]:
        return {}

    def late_requests(self) -> int:
        return 0

    def route_limited(self, route: str, most: int, threads: int) -> None:
        raise AssertionError

    def run_delay(self) -> float:
        return 0.0

    def publish_load(self, busy: int, work: int, queue: int) -> None:
        pass
