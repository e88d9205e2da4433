"""Finds a daemon by mDNS with the `zeroconf` package, as Home Assistant does, and prints what its
records say: one JSON object, by type of service.

usage: discover.py NAME ADDRESS      the name to wait for, and the address of the interface
"""

import json
import sys
import time

from zeroconf import IPVersion, ServiceBrowser, ServiceListener, Zeroconf

TYPES = ["_wyoming._tcp.local.", "_friend-lite._tcp.local."]


class Listener(ServiceListener):
    def __init__(self) -> None:
        self.found: set[tuple[str, str]] = set()

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.found.add((type_, name))

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        pass

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        self.found.discard((type_, name))


def wait(what: str, holds) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def main() -> None:
    name, address = sys.argv[1:]
    wanted = {(kind, f"{name}.{kind}") for kind in TYPES}
    with Zeroconf(interfaces=[address], ip_version=IPVersion.V4Only) as zc:
        listener = Listener()
        ServiceBrowser(zc, TYPES, listener)
        wait(f"{wanted} among {listener.found}", lambda: wanted <= listener.found)
        records = {}
        for kind, full in wanted:
            info = zc.get_service_info(kind, full, timeout=5000)
            assert info is not None, full
            records[kind] = {
                "port": info.port,
                "server": info.server,
                "addresses": info.parsed_addresses(),
                "properties": {
                    key.decode(): value.decode() if value is not None else None
                    for key, value in info.properties.items()
                },
            }
        print(json.dumps(records))


if __name__ == "__main__":
    main()
