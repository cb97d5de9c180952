"""A Marathon that runs one app, /shop, whose tasks are given: `marathon.py PORT HOST:PORT...`. It forgets nothing when killed."""

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "2026-01-01T00:00:00.000Z"


def task(number, place):
    host, port = place.rsplit(":", 1)
    return {
        "id": f"shop.{number}",
        "appId": "/shop",
        "host": host,
        "ports": [int(port)],
        "ipAddresses": [{"ipAddress": host, "protocol": "IPv4"}],
        "state": "TASK_RUNNING",
        "version": VERSION,
        "startedAt": VERSION,
        "stagedAt": VERSION,
    }


APP = {
    "id": "/shop",
    "portDefinitions": [{"port": 10000, "protocol": "tcp", "labels": {"VIP_0": "/shop:80"}}],
    "version": VERSION,
    "versionInfo": {"lastScalingAt": VERSION, "lastConfigChangeAt": VERSION},
    "tasks": [task(number, place) for number, place in enumerate(sys.argv[2:])],
}
PAGES = {
    "/v2/info": {"marathon_config": {"framework_name": "marathon"}, "version": "1.11.0", "name": "marathon"},
    "/v2/apps": {"apps": [APP]},
    "/v2/apps//shop": {"app": APP},
    "/v2/pods/::status": [],
    "/v2/deployments": [],
}


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/v2/events":
            return self.events()
        page = PAGES.get(path)
        body = json.dumps({} if page is None else page).encode()
        self.send_response(404 if page is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def events(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"event: event_stream_attached\ndata: {}\n\n")
        while True:
            # What Marathon sends where nothing happens.
            time.sleep(1)
            self.wfile.write(b"\r\n")
            self.wfile.flush()


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
