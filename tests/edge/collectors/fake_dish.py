"""A satellite terminal for test_starlink.py: the vendor's own messages, served with reflection as the real one does.

    python fake_dish.py PORT STATUS.json

Each request is answered with what the file holds at that moment, in protobuf's JSON. A process of its own, because the
collector learns the same messages from it by reflection, and one process cannot hold both.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from google.protobuf.json_format import Parse
from grpc_reflection.v1alpha import reflection
from spacex.api.device import device_pb2, device_pb2_grpc


class Dish(device_pb2_grpc.DeviceServicer):
    """Answers every request with its status."""

    def __init__(self, status: Path) -> None:
        self._status = status

    def Handle(self, request: device_pb2.Request, context: grpc.ServicerContext) -> device_pb2.Response:  # noqa: N802
        if not request.HasField("get_status"):
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "only the status")
        response = device_pb2.Response()
        Parse(self._status.read_text(), response.dish_get_status)
        return response


def main(port: str, status: str) -> None:
    """Serve until killed."""
    server = grpc.server(ThreadPoolExecutor(2))
    device_pb2_grpc.add_DeviceServicer_to_server(Dish(Path(status)), server)
    names = [device_pb2.DESCRIPTOR.services_by_name["Device"].full_name, reflection.SERVICE_NAME]
    reflection.enable_server_reflection(names, server)
    assert server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
